// The run as a whole: lobby, start, rounds, record. The only place that changes the global model.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "server/admission.hpp"
#include "server/consent.hpp"
#include "server/local_models.hpp"
#include "server/start.hpp"
#include "server/status.hpp"
#include "server/targets.hpp"

namespace headstart::server {

/// One run. Channels come from a listener or from a simulation; the federation does not know which.
/// Thread rule: all calls on `executor`, one io thread. Lifetime: until run() has ended and `pool` is joined.
class Federation {
 public:
  /// `folder` and `observer` outlive the federation.
  Federation(net::asio::any_io_executor executor, net::asio::thread_pool& pool, const ServerConfig& config,
             CentralData data, RunFolder& folder, FederationObserver& observer, Clock clock);

  /// Takes a peer through the handshake; to be spawned for each channel. `on_seated`: see Admission::admit().
  net::Task<> admit(
      std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_seated = [] {}) {
    return admission_->admit(std::move(channel), std::move(on_seated));
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
  [[nodiscard]] bool waits_for_clients() const { return !lobby_->is_closed(); }
  /// Where handshakes that end before admit() are recorded.
  [[nodiscard]] AuditLog& audit() { return folder_.audit(); }

  /// Ends run() soon, with Error(interrupted).
  void stop();

 private:
  net::Task<> run_phases();
  /// Waits for the clients, and writes down who they are and who is missing.
  net::Task<> gather_clients();
  /// The rest of a run that had finished under an earlier server: who comes is told.
  net::Task<nlohmann::json> part_again(nlohmann::json summary);
  /// The same where the clients know already.
  nlohmann::json leave_as_it_is(nlohmann::json summary);
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
  /// Holds the run to what the silos consented to; throws Error(run_failed) where that leaves no run.
  void apply_consents();
  net::Task<> run_rounds();
  /// Takes up what an earlier server had done.
  void resume();
  /// What a line of rounds.jsonl adds to targets and accuracies.
  void count_start();
  void count(const nlohmann::json& line);
  /// Makes `state` the global model of `round` and keeps it, before anybody else is told of it.
  net::Task<> adopt(wire::PackedState state, std::int64_t round, const Participation& participation);
  /// Keeps the global model where it is the best so far by validation.
  net::Task<> keep_best(std::int64_t round, std::optional<double> score);
  /// Measures the global model and writes its line.
  net::Task<> record_round(std::int64_t round, const Participation& participation);
  net::Task<std::optional<learn::Evaluation>> evaluate_here(const learn::Samples& samples);
  net::Task<std::optional<learn::Evaluation>> evaluate_at_clients();
  void write_result(const nlohmann::json& result, bool is_failure);
  net::Task<> finish_clients(const std::string& words, bool is_failure);
  [[nodiscard]] nlohmann::json run_record() const;
  [[nodiscard]] nlohmann::json summary(const std::string& stopped_because) const;
  [[nodiscard]] double seconds() const;
  [[nodiscard]] std::uint64_t bytes_up() const { return earlier_bytes_up_ + cohort_.bytes_up(); }
  [[nodiscard]] std::uint64_t bytes_down() const { return earlier_bytes_down_ + cohort_.bytes_down(); }
  [[nodiscard]] std::string kept() const;
  /// For the message of a run that ends with `code`: what is kept, and what becomes of the clients.
  [[nodiscard]] std::string what_comes_next(Errc code) const;

  net::asio::any_io_executor executor_;
  ServerConfig config_;
  CentralData data_;
  learn::Schema global_schema_;
  RunFolder& folder_;
  StatusBoard observer_;
  std::stop_source stop_;
  Recovery recovery_;
  Cohort cohort_;
  std::vector<LeftOut> left_out_;
  RunContext context_;
  LocalModels local_models_;
  std::unique_ptr<UploadSlots> slots_;
  std::unique_ptr<Lobby> lobby_;
  std::unique_ptr<Admission> admission_;
  /// Holds the model being measured, where there is a test set; used on the pool only.
  std::unique_ptr<learn::Model> evaluated_;

  DigestedState global_;
  Targets targets_;
  std::optional<TimePoint> began_at_;
  double earlier_seconds_ = 0;  ///< Of the run under an earlier server.
  std::uint64_t earlier_bytes_up_ = 0, earlier_bytes_down_ = 0;
  double reused_seconds_ = 0;                    ///< Of pre-training that was done in an earlier run.
  std::uint64_t bytes_up_ = 0, bytes_down_ = 0;  ///< When the last round's model was there.
  std::int64_t num_rounds_done_ = 0;
  std::int64_t num_measured_ = -1;         ///< The last round with a line in rounds.jsonl; -1: none.
  std::int64_t num_kept_ = -1;             ///< The last round whose model is among the checkpoints; -1: none.
  Norms norms_;                            ///< Of the updates in the model of the last round.
  std::set<std::string> dominant_judges_;  ///< Named, as they hold most of the held-out samples.
  nlohmann::json dominant_ = nlohmann::json::object();  ///< As summary.json has it, by client.
  std::optional<double> last_accuracy_, best_accuracy_;
  std::optional<learn::Evaluation> last_central_, last_federated_;  ///< As this server has measured the last round.
  double best_score_ = -1;
  StartModel start_used_ = StartModel::random;
  Consents consents_;
  std::string consent_fallback_;
  nlohmann::json start_report_, before_rounds_, ensemble_;
  std::string stopped_because_;
};

}  // namespace headstart::server
