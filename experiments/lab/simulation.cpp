#include "experiments/lab/simulation.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <fmt/format.h>

#include "client/run_with_reconnect.hpp"
#include "shared/base/log.hpp"
#include "shared/net/loopback.hpp"

namespace headstart::lab {

namespace {

std::string words_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

nlohmann::json simulate(const server::ServerConfig& config, server::CentralData data, server::RunFolder& folder,
                        server::RunObserver& observer, std::vector<SimulatedClient> clients, std::size_t num_threads,
                        net::Time& time, const std::function<void(std::function<void()>)>& on_stop) {
  namespace asio = boost::asio;
  asio::io_context io(1);
  time.govern(io);
  asio::thread_pool pool(num_threads);
  server::Run federation(io.get_executor(), pool, config, std::move(data), folder, observer, time.clock());
  const bool is_first_lobby = folder.earlier_run().is_null();
  if (on_stop) on_stop([&io, &federation] { asio::dispatch(io, [&federation] { federation.stop(); }); });
  client::ClientObserver silent;
  bool is_over = false;
  std::size_t num_left = clients.size();
  std::string last_words;  // of the client whose end is the run's
  const net::RedialOptions redial{.patience = std::chrono::seconds(10),
                                  .first_pause = std::chrono::milliseconds(1),
                                  .longest_pause = std::chrono::milliseconds(50)};
  for (SimulatedClient& simulated : clients) {
    const auto dial = [&]() -> net::Task<std::unique_ptr<net::MessageChannel>> {
      if (is_over) throw Error(Errc::rejected, "the run is over");
      net::LoopbackPair pair = net::make_loopback(io.get_executor(), io.get_executor(), simulated.name);
      if (simulated.wrap) pair.second = simulated.wrap(std::move(pair.second));
      auto admission = federation.admit(std::move(pair.first));
      asio::co_spawn(io, std::move(admission), [](const std::exception_ptr& failure) {
        if (failure) std::rethrow_exception(failure);
      });
      co_return std::move(pair.second);
    };
    auto running = client::run_with_reconnect(
        io.get_executor(), dial, {simulated.name, simulated.worker.get(), &pool, &silent, time.clock(), {}}, redial);
    asio::co_spawn(
        io, std::move(running),
        [&, name = simulated.name, on_end = simulated.on_end](const std::exception_ptr& failure, const std::string&) {
          --num_left;
          if (on_end) on_end(failure);
          if (!failure) return;
          const std::string why = words_of(failure);
          spdlog::warn("client {}: {}", name, why);
          // Nobody comes in its place, and in the lobby nobody's absence has a limit unless the settings say so.
          const bool is_waited_for = is_first_lobby && config.federation.timeouts.lobby == 0;
          if (is_over || !federation.waits_for_clients() || (num_left > 0 && !is_waited_for)) return;
          if (last_words.empty()) last_words = fmt::format("client {}: {}", name, why);
          federation.stop();
        });
  }
  std::exception_ptr failure;
  nlohmann::json summary;
  auto running = federation.run();
  asio::co_spawn(io, std::move(running), [&](std::exception_ptr ended, nlohmann::json result) {
    is_over = true;
    failure = std::move(ended);
    summary = std::move(result);
    if (failure) federation.stop();  // whoever is left must not keep the simulation alive
  });
  time.run(io);
  pool.join();
  if (failure && !last_words.empty()) {
    throw Error(Errc::run_failed, "the run could not begin without its clients: " + last_words);
  }
  if (failure) std::rethrow_exception(failure);
  return summary;
}

}  // namespace headstart::lab
