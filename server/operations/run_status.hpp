// How a run stands at this moment, for metrics and probes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "server/operations/run_observer.hpp"
#include "shared/base/clock.hpp"
#include "shared/net/tls_files.hpp"

namespace headstart::server {

/// What a client was asked for and has not answered yet.
struct TaskStatus {
  std::string kind;    ///< See shared/plan/tasks.hpp.
  double seconds = 0;  ///< Since it was sent.
};

/// The finished tasks of one client and one kind.
struct TaskTimes {
  std::int64_t count = 0;
  double seconds = 0;  ///< Of all, from the order to the last byte of the result.
  double last = 0;     ///< Of the last one.
};

struct ClientStatus {
  std::string name;
  bool is_connected = false;
  int num_connections = 0;  ///< So far.
  std::uint64_t bytes_received = 0, bytes_sent = 0;
  std::map<std::string, std::int64_t> refusals;  ///< Results that did not count, by kind.
  bool is_awaited = false;                       ///< It is away, and its return is waited for.
  bool is_asked = false;                         ///< The phase under way waits for its answer.
  std::int64_t num_examples = 0;
  std::optional<TaskStatus> task = {};
  std::map<std::string, TaskTimes> tasks = {};  ///< By kind.
};

struct RunStatus {
  bool takes_clients = false;  ///< A client that dials now is admitted or told why not.
  Phase phase;
  double phase_seconds = 0;
  double progress = 0;                       ///< Of the phase, 0..1, as far as it is reported.
  std::map<std::string, double> parts = {};  ///< The same of each client, or of "server".
  std::int64_t round = 0, num_rounds = 0;
  std::optional<double> accuracy, loss, federated_accuracy;  ///< Of the newest global model.
  double seconds = 0;                                        ///< Of the run.
  std::size_t num_expected = 0;
  std::size_t num_left_out = 0;  ///< What the run had to go on without.
  std::vector<ClientStatus> clients;
  std::uint64_t num_refused = 0;                    ///< Peers that were not admitted, so far.
  std::uint64_t upload_memory = 0, num_staged = 0;  ///< Updates in flight: bytes in memory; files so far.
};

/// The connections that have not joined, and what they are let in by.
struct AcceptorStatus {
  std::size_t num_inside = 0;                 ///< Connections that have not joined yet.
  std::uint64_t num_refused = 0;              ///< Beyond the limits, so far.
  std::uint64_t num_failed = 0;               ///< Handshakes that failed, so far.
  std::optional<net::TlsExpiry> expiry = {};  ///< Of the server's own files for TLS; empty in the clear.
};

/// Remembers what an observer is told, and passes it on.
class StatusBoard final : public RunObserver {
 public:
  StatusBoard(RunObserver& next, Clock clock) : next_(next), clock_(std::move(clock)) {}

  /// Fills in what was observed.
  void report(RunStatus& status) const;

  void on_lobby(const std::vector<std::string>& present, std::size_t expected) override;
  void on_phase(const Phase& phase, std::size_t num_parts) override;
  void on_progress(const std::string& part, std::uint64_t done, std::uint64_t total) override;
  void on_round(const RoundView& round) override;
  void on_refusal(RefusalCode code) override;
  void on_note(const std::string& text) override { next_.on_note(text); }
  void on_run(const nlohmann::json& run) override { next_.on_run(run); }
  void on_start(const nlohmann::json& start) override { next_.on_start(start); }
  void on_line(const nlohmann::json& line) override { next_.on_line(line); }
  void on_end(const nlohmann::json& summary, bool is_failure) override { next_.on_end(summary, is_failure); }

 private:
  RunObserver& next_;
  Clock clock_;
  Phase phase_;
  std::optional<TimePoint> phase_began_;
  std::size_t num_parts_ = 0;
  std::map<std::string, double> parts_;  ///< Shares done.
  RoundView round_;
  std::uint64_t num_refused_ = 0;
};

}  // namespace headstart::server
