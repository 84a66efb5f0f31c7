// One peer over the whole of a run: its rounds, its neighbours' connections, and what is said on them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <boost/asio/thread_pool.hpp>
#include <nlohmann/json.hpp>

#include "client/peer/peer_folder.hpp"
#include "client/peer/peer_learner.hpp"
#include "client/peer/peers_file.hpp"
#include "client/peer/round_machine.hpp"
#include "shared/base/clock.hpp"
#include "shared/net/redial.hpp"
#include "shared/net/time.hpp"
#include "shared/session/conversation.hpp"

namespace headstart::peer {

/// What a person watches. Called on the run's executor, but for on_progress(), which is called by whoever computes.
class PeerObserver {
 public:
  virtual ~PeerObserver() = default;
  virtual void on_phase(const std::string& /*what*/) {}
  virtual void on_progress(const learn::Progress& /*progress*/) {}
  virtual void on_connected(const std::string& /*neighbour*/, const std::string& /*address*/) {}
  virtual void on_lost(const std::string& /*neighbour*/, const std::string& /*why*/) {}
  /// Every few seconds while a round waits: for whom, and why.
  virtual void on_waiting(std::int64_t /*round*/, const std::map<std::string, std::string>& /*for_whom*/) {}
  virtual void on_round(const RoundLine& /*line*/) {}
};

/// For metrics.
struct PeerStatus {
  std::int64_t round = -1;  ///< Combined last; 0: pre-trained; -1: nothing is done.
  std::int64_t num_rounds = 0;
  bool is_waiting = false;
  std::map<std::string, bool> connected;  ///< By neighbour.
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  std::int64_t num_unusable = 0;
  std::int64_t num_missing = 0;  ///< Neighbours' messages that rounds went on without.
};

/// Opens a connection to the neighbour; throws as net::connect() does.
using DialNeighbour = std::function<net::Task<std::unique_ptr<net::MessageChannel>>(const std::string& neighbour)>;

struct PeerContext {
  net::asio::any_io_executor executor;
  net::asio::thread_pool* pool = nullptr;
  PeerObserver* observer = nullptr;
  Clock clock;
  DialNeighbour dial;
  net::RedialOptions redial;
};

/// All calls on the executor. What it is given outlives it.
class PeerRun {
 public:
  PeerRun(PeerContext context, const PeersFile& file, const std::string& name,
          std::map<std::string, std::string> digests, PeerLearner& learner, PeerFolder& folder);
  ~PeerRun();
  PeerRun(const PeerRun&) = delete;
  PeerRun& operator=(const PeerRun&) = delete;

  /// Goes through all rounds from where the folder is, waits until no neighbour needs it, and returns the summary.
  /// Throws what its own work throws, Error(storage), Error(interrupted) after stop().
  net::Task<nlohmann::json> run();
  /// Serves a connection that a neighbour has opened, until it ends. Never throws. `on_established`: called when it is
  /// a neighbour's.
  net::Task<> admit(std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_established);
  void stop();

  [[nodiscard]] PeerStatus status() const;

 private:
  class State;
  std::shared_ptr<State> state_;  ///< Shared with the connections, which may end after the run.
};

/// What a peer says first.
wire::PeerHello greeting(const std::string& name, const std::map<std::string, std::string>& digests,
                         std::int64_t rounds_done, bool is_check);
/// Why a peer that greets like this cannot be `expected`, whose certificate proves `identity` (empty: none), in a run
/// that must have `digests` alike; nothing where it can.
std::optional<std::string> objection_to(const wire::PeerHello& hello, const std::string& expected,
                                        const std::string& identity, const std::map<std::string, std::string>& digests);

}  // namespace headstart::peer
