// Peers of one run in one process: the same code as in headstart-peer, over a loopback pair an edge.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/peer/peer_run.hpp"
#include "shared/net/time.hpp"

namespace headstart::lab {

/// What a peer works with. Lives until it is opened again.
struct PeerParts {
  peer::PeerLearner& learner;
  peer::PeerFolder& folder;
};

struct SimulatedPeer {
  std::string name;
  std::function<PeerParts()> open;  ///< Called whenever it starts.
  peer::PeerObserver* observer = nullptr;
  /// Wraps this peer's end of each connection that it opens, for tests that delay or break it; empty: as it is.
  std::function<std::unique_ptr<net::MessageChannel>(const std::string& neighbour,
                                                     std::unique_ptr<net::MessageChannel>)>
      wrap = {};
  std::chrono::milliseconds starts_after{0};  ///< By the simulation's time.
  bool starts_again = false;                  ///< Where it was stopped: at once, from its folder.
};

/// What became of a peer: its summary, or what ended it.
struct SimulatedEnd {
  nlohmann::json summary;
  std::exception_ptr failure;
};

struct PeerSimulationOptions {
  std::size_t num_threads = 1;
  /// Is given each peer's run before it begins.
  std::function<void(const std::string& name, peer::PeerRun&)> on_start = [](const std::string&, peer::PeerRun&) {};
  /// Reaches members that are not simulated, on the executor of the simulation; throws as net::connect() does. By
  /// default nobody is there.
  std::function<net::Task<std::unique_ptr<net::MessageChannel>>(net::asio::any_io_executor, std::string from,
                                                                std::string neighbour)>
      reach_other = {};
};

/// Runs the peers, each with the digests of `file` and of its learner, until all have ended, by `time`. In the order of
/// `peers`.
std::vector<SimulatedEnd> simulate_peers(const peer::PeersFile& file, const std::vector<SimulatedPeer>& peers,
                                         net::Time& time, const PeerSimulationOptions& options);

}  // namespace headstart::lab
