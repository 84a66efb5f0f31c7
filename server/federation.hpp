// The run as a whole: lobby, start, rounds, record. The only place that changes the global model.
#pragma once

#include <memory>
#include <optional>

#include <nlohmann/json.hpp>

#include "server/admission.hpp"
#include "server/local_models.hpp"
#include "server/start.hpp"
#include "server/targets.hpp"

namespace headstart::server {

/// One run. Channels come from a listener or from a simulation; the federation does not know which.
/// Thread rule: all calls on `executor`, one io thread. Lifetime: until run() has ended and `pool` is joined.
class Federation {
 public:
  /// `folder` and `observer` outlive the federation.
  Federation(net::asio::any_io_executor executor, net::asio::thread_pool& pool, const ServerConfig& config,
             CentralData data, RunFolder& folder, FederationObserver& observer, Clock clock);

  /// Takes a peer through the handshake; to be spawned for each channel.
  net::Task<> admit(std::unique_ptr<net::MessageChannel> channel) { return admission_->admit(std::move(channel)); }

  /// Lobby to last round; writes the run's folder. Returns the summary.
  /// Throws Error(run_failed) and Error(interrupted) after writing what there is, the message saying what was kept.
  net::Task<nlohmann::json> run();

  /// Ends run() soon, with Error(interrupted).
  void stop();

 private:
  net::Task<> run_phases();
  net::Task<Start> make_start();
  net::Task<> run_rounds();
  /// Whose updates are in a round's model, and who is not and why.
  struct Participation {
    std::vector<std::string> accepted;
    std::map<std::string, std::string> excluded;
  };
  /// Measures the global model and writes its line.
  net::Task<> record_round(std::int64_t round, const Participation& participation);
  net::Task<std::optional<learn::Evaluation>> evaluate_centrally();
  net::Task<std::optional<learn::Evaluation>> evaluate_at_clients();
  net::Task<> finish_clients(const std::string& words);
  [[nodiscard]] nlohmann::json run_record() const;
  [[nodiscard]] nlohmann::json summary(const std::string& stopped_because) const;
  [[nodiscard]] double seconds() const;
  [[nodiscard]] std::string kept() const;

  net::asio::any_io_executor executor_;
  ServerConfig config_;
  CentralData data_;
  learn::Schema global_schema_;
  RunFolder& folder_;
  FederationObserver& observer_;
  std::stop_source stop_;
  Cohort cohort_;
  RunContext context_;
  LocalModels local_models_;
  std::unique_ptr<UploadSlots> slots_;
  std::unique_ptr<Lobby> lobby_;
  std::unique_ptr<Admission> admission_;
  /// Holds the model being measured, where there is a test set; used on the pool only.
  std::unique_ptr<learn::Model> evaluated_;

  GlobalModel global_;
  Targets targets_;
  std::optional<TimePoint> began_at_;
  double reused_seconds_ = 0;                    ///< Of pre-training that was done in an earlier run.
  std::uint64_t bytes_up_ = 0, bytes_down_ = 0;  ///< When the last round's model was there.
  std::int64_t num_rounds_done_ = 0;
  std::optional<double> last_accuracy_, best_accuracy_;
  StartModel start_used_ = StartModel::random;
  nlohmann::json start_report_, before_rounds_, ensemble_;
  std::string stopped_because_;
};

}  // namespace headstart::server
