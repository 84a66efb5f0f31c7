// The run as a whole: lobby, start, rounds, record. The only place that changes the global model.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "server/admission/admission.hpp"
#include "server/operations/run_status.hpp"
#include "server/phases/disclosure.hpp"
#include "server/phases/local_models.hpp"
#include "server/phases/start.hpp"
#include "server/record/round_record.hpp"
#include "server/run/run_state.hpp"
#include "server/run/targets.hpp"
#include "server/strategies/strategy.hpp"

namespace headstart::server {

/// One run. Channels come from a listener or from a simulation; the federation does not know which.
/// Thread rule: all calls on `executor`, one io thread. Lifetime: until run() has ended and `pool` is joined.
class Run {
 public:
  /// `folder` and `observer` outlive the federation.
  Run(net::asio::any_io_executor executor, net::asio::thread_pool& pool, const ServerConfig& config, CentralData data,
      RunFolder& folder, RunObserver& observer, Clock clock);

  /// Takes a peer through the handshake; to be spawned for each channel. `on_established`: see Admission::admit().
  net::Task<> admit(
      std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_established = [] {}) {
    return clients_.admission->admit(std::move(channel), std::move(on_established));
  }

  /// Lobby to last round, or from where an earlier server left the run; writes the run's folder. Returns the summary.
  /// Throws Error(usage) where the folder's run is another one.
  /// Throws Error after writing what there is, the message saying what was kept. Where a server that is started again
  /// can go on with the run (stopped, no room on the disk, a bug) its clients are not told and wait for that; where it
  /// cannot (run_failed) they are told.
  /// A run that was finished and whose clients know is left as it is.
  net::Task<nlohmann::json> run();

  /// On `executor`, at any time.
  [[nodiscard]] RunStatus status() const;
  /// No client that ends now is gone on without: the run waits for all of those that it needs.
  [[nodiscard]] bool waits_for_clients() const { return !clients_.lobby->is_closed(); }
  /// Where handshakes that end before admit() are recorded.
  [[nodiscard]] AuditLog& audit() { return folder_.audit(); }

  /// Ends run() soon, with Error(interrupted).
  void stop();

 private:
  [[nodiscard]] StrategyTools strategy_tools() const;
  AdmissionRules admission_rules();
  /// Throws Error(usage) where a run that is gone on with can never have enough of them.
  void require_enough_clients() const;
  /// Writes what is left to write and tells the clients; the summary, or what the run failed with is thrown.
  net::Task<nlohmann::json> conclude(std::optional<Error> failure);
  net::Task<> run_phases();
  /// Waits for the clients, and writes down who they are and who is missing.
  net::Task<> gather_clients();
  /// Where the silos' statistics say what samples are normalised by: asks for them, unless an earlier server did, and
  /// has everybody keep to it.
  net::Task<> settle_statistics();
  /// The rest of a run that had finished under an earlier server: who comes is told.
  net::Task<nlohmann::json> resume_farewell(nlohmann::json summary);
  /// The same where the clients know already.
  nlohmann::json report_finished(nlohmann::json summary);
  /// Journals that the run goes on from an earlier round, and keeps aside what came after it.
  void go_back();
  /// Journals limits that are not as they were, and returns what run.json says of them.
  nlohmann::json note_changed_limits(const nlohmann::json& earlier, const nlohmann::json& record);
  /// Names clients that bring more than dominant_share of all examples, or of those that decide federated validation;
  /// each once.
  void note_dominant_clients();
  /// What is known of the updates in the model of the last round, and how to go back before it; empty where nothing is.
  [[nodiscard]] std::string suspicion() const;
  /// Says so where a measurement shows that the round's model is worth nothing any more: its loss is not finite or ten
  /// times that `before`, or its accuracy less than half.
  void note_collapse(const std::optional<learn::Evaluation>& now, const std::optional<learn::Evaluation>& before);
  /// The last line of the journal: nobody is left to be told. Throws Error(interrupted) where the run was stopped
  /// first.
  void end_run();
  net::Task<Start> make_start();
  void note_consent(const ClientInfo& client);
  /// To those who draw the run: its records so far.
  void show_records(const nlohmann::json& record);
  /// Holds the run to what the silos consented to; throws Error(run_failed) where that leaves no run.
  void apply_consents();
  net::Task<> run_rounds();
  /// Takes up what an earlier server had done.
  void resume();
  void note_counted(std::int64_t round, const Participation& participation);
  /// What start and rounds add to targets and accuracies.
  void count_start();
  void count(const RoundRecord& record);
  /// Makes `state` the global model of `round` and keeps it, before anybody else is told of it.
  net::Task<> adopt(ServerState state, std::int64_t round, const Participation& participation);
  /// Keeps the global model where it is the best so far by validation, and says whether it is.
  net::Task<bool> keep_best(std::int64_t round, const std::optional<learn::Evaluation>& rating);
  /// Has the clients whose people want it keep the global model.
  net::Task<> tell_keepers(std::int64_t round, bool is_best, const Participation& participation);
  /// Measures the global model and writes its line.
  net::Task<> record_round(std::int64_t round, const Participation& participation);
  /// What is measured of a round's model.
  struct RoundMeasures {
    std::optional<learn::Evaluation> central;    ///< On the server's test set.
    std::optional<learn::Evaluation> rating;     ///< By the validation source.
    std::optional<learn::Evaluation> federated;  ///< On the clients' held-out data, together.
    learn::OwnMetrics own;                       ///< Of the clients, together.
    /// Of those that let the server record it.
    std::map<std::string, learn::Evaluation> by_silo;
    double seconds = 0;  ///< Of the run, before the validation source was asked.
  };
  net::Task<RoundMeasures> measure();
  void add_metrics(RoundRecord& record, const RoundMeasures& measures) const;
  [[nodiscard]] RoundView view_of(const RoundRecord& record) const;
  net::Task<std::optional<learn::Evaluation>> evaluate_here(const learn::Samples& samples, learn::Measures measures);
  /// `by_silo`: of those that let the server record it.
  net::Task<std::optional<learn::Evaluation>> evaluate_at_clients(std::map<std::string, learn::Evaluation>& by_silo);
  void write_result(const nlohmann::json& result, bool is_failure);
  net::Task<> finish_clients(const std::string& words, bool is_failure);
  [[nodiscard]] nlohmann::json run_record() const;
  [[nodiscard]] nlohmann::json summary(const std::string& stopped_because) const;
  [[nodiscard]] double seconds() const;
  [[nodiscard]] std::uint64_t bytes_up() const { return state_.earlier_bytes_up + clients_.roster.bytes_up(); }
  [[nodiscard]] std::uint64_t bytes_down() const { return state_.earlier_bytes_down + clients_.roster.bytes_down(); }
  [[nodiscard]] std::string kept() const;
  /// For the message of a run that ends with `code`: what is kept, and what becomes of the clients.
  [[nodiscard]] std::string what_comes_next(Errc code) const;

  /// Who takes part, and how they come in.
  struct Clients {
    Roster roster;
    std::unique_ptr<UploadSlots> slots;
    std::unique_ptr<Lobby> lobby;
    std::unique_ptr<Admission> admission;
  };
  /// The federated model and what becomes of its updates.
  struct Federated {
    learn::Schema schema;
    std::unique_ptr<Strategy> strategy;
    /// Holds the model being measured, where there is a test set; used on the pool only.
    std::unique_ptr<learn::Model> measured;
  };

  ServerConfig config_;
  CentralData data_;
  RunFolder& folder_;
  StatusBoard observer_;
  std::stop_source stop_;
  Recovery recovery_;
  RunState state_;
  Clients clients_;
  Federated federated_;
  RunContext context_;
  LocalModels local_models_;
  Targets targets_;
};

}  // namespace headstart::server
