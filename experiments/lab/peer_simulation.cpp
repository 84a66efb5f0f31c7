#include "experiments/lab/peer_simulation.hpp"

#include <map>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>

#include "shared/base/error.hpp"
#include "shared/net/loopback.hpp"

namespace headstart::lab {

namespace {

namespace asio = boost::asio;

/// All that runs; a peer that has ended is null.
class Network {
 public:
  Network(const peer::PeersFile& file, net::Time& time, const PeerSimulationOptions& options)
      : file_(file), time_(time), options_(options), io_(1), pool_(options.num_threads) {
    time_.govern(io_);
  }

  std::vector<SimulatedEnd> run(const std::vector<SimulatedPeer>& peers) {
    std::vector<SimulatedEnd> ends(peers.size());
    for (std::size_t i = 0; i < peers.size(); ++i) {
      auto running = one(peers[i], ends[i]);
      asio::co_spawn(io_, std::move(running), [](const std::exception_ptr& failure) {
        if (failure) std::rethrow_exception(failure);
      });
    }
    time_.run(io_);
    pool_.join();
    return ends;
  }

 private:
  net::Task<> one(const SimulatedPeer& simulated, SimulatedEnd& end) {
    if (simulated.starts_after.count() > 0) {
      net::Timer timer(io_.get_executor(), simulated.starts_after);
      auto waiting = timer.wait();
      co_await std::move(waiting);
    }
    for (bool goes_on = true; goes_on;) {
      auto living = life_of(simulated, end);
      co_await std::move(living);
      goes_on = simulated.starts_again && was_stopped(end);
    }
  }

  static bool was_stopped(const SimulatedEnd& end) {
    try {
      if (end.failure) std::rethrow_exception(end.failure);
    } catch (const Error& error) {
      return error.code() == Errc::interrupted;
    } catch (const std::exception&) {
      return false;
    }
    return false;
  }

  net::Task<> life_of(const SimulatedPeer& simulated, SimulatedEnd& end) {
    const PeerParts parts = simulated.open();
    auto digests = file_.digests();
    for (const auto& [section, digest] : parts.learner.digests()) digests[section] = digest;
    peer::PeerContext context{
        .executor = io_.get_executor(),
        .pool = &pool_,
        .observer = simulated.observer != nullptr ? simulated.observer : &silent_,
        .clock = time_.clock(),
        .dial = {},
        .redial = {.first_pause = std::chrono::milliseconds(1), .longest_pause = std::chrono::milliseconds(50)}};
    context.dial = [this, &simulated](const std::string& neighbour) { return dial(simulated, neighbour); };
    peer::PeerRun run(std::move(context), file_, simulated.name, digests, parts.learner, parts.folder);
    options_.on_start(simulated.name, run);
    runs_[simulated.name] = &run;
    end = {};
    try {
      auto running = run.run();
      end.summary = co_await std::move(running);
    } catch (const std::exception&) {
      end.failure = std::current_exception();
    }
    runs_[simulated.name] = nullptr;
  }

  net::Task<std::unique_ptr<net::MessageChannel>> dial(const SimulatedPeer& from, std::string neighbour) {
    const auto found = runs_.find(neighbour);
    if (found == runs_.end() && options_.reach_other) {
      auto reaching = options_.reach_other(io_.get_executor(), from.name, neighbour);
      co_return co_await std::move(reaching);
    }
    if (found == runs_.end() || found->second == nullptr) throw Error(Errc::network, neighbour + " is not there");
    net::LoopbackPair pair = net::make_loopback(io_.get_executor(), io_.get_executor(), from.name + "-" + neighbour);
    if (from.wrap) pair.second = from.wrap(neighbour, std::move(pair.second));
    auto admission = found->second->admit(std::move(pair.first), [] {});
    asio::co_spawn(io_, std::move(admission), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
    co_return std::move(pair.second);
  }

  const peer::PeersFile& file_;
  net::Time& time_;
  const PeerSimulationOptions& options_;
  asio::io_context io_;
  asio::thread_pool pool_;
  peer::PeerObserver silent_;
  std::map<std::string, peer::PeerRun*> runs_;
};

}  // namespace

std::vector<SimulatedEnd> simulate_peers(const peer::PeersFile& file, const std::vector<SimulatedPeer>& peers,
                                         net::Time& time, const PeerSimulationOptions& options) {
  return Network(file, time, options).run(peers);
}

}  // namespace headstart::lab
