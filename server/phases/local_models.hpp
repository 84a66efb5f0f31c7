// The clients' own pre-trained models: trained at the clients, collected once, rated by the validation source.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "server/phases/consolidation_plan.hpp"
#include "server/phases/run_context.hpp"
#include "server/record/recovery.hpp"

namespace headstart::server {

/// Who counts for a model's rating, in words for summary.json.
std::string counted_by(ValidationSource source, const LocalModelRecord& model);

/// One client's contribution, as far as it has come.
struct LocalModel : LocalModelRecord {
  std::string client;
  std::optional<learn::Tensor> transfer_logits;  ///< Where it teaches by logits: [public samples, classes].
  std::string reason;                            ///< Why it cannot teach; empty where it can.
};

class LocalModels {
 public:
  explicit LocalModels(const RunContext& context) : context_(context) {}

  /// Takes up what an earlier server had; a model whose file is gone or damaged is asked for again.
  void restore(const std::map<std::string, LocalModelRecord>& records);

  /// Local pre-training at every client. Throws Error(run_failed) where too few clients finish.
  net::Task<> pretrain();
  /// Exchange: weights go to the run's folder; a client with an architecture of its own returns logits of the public
  /// set instead (and of the server's validation set), or its weights where the transfer set is student data.
  net::Task<> collect();
  /// Rates the collected models by the validation source: all at the server, at clients those shared with peers.
  net::Task<> rate();

  [[nodiscard]] const std::map<std::string, LocalModel>& models() const { return models_; }
  [[nodiscard]] std::vector<Candidate> candidates() const;
  /// The best by the validation source of those that have the federated architecture and may reach other silos; null
  /// where there is none.
  [[nodiscard]] const LocalModel* best_shared() const;

  /// Longest local pre-training, as first trained, and how long the phase took this time: reused models make the
  /// second shorter than the first.
  [[nodiscard]] double longest_pretraining() const;
  [[nodiscard]] double phase_seconds() const { return phase_seconds_; }

  /// Loads a collected model. On the pool.
  [[nodiscard]] wire::PackedState load(const LocalModel& model) const;
  /// Logits of a collected model on `x`: [n, classes]. On the pool.
  [[nodiscard]] learn::Tensor logits(const LocalModel& model, const learn::Tensor& x) const;

  /// Test accuracy of the equal and the class-weighted average of probabilities of all collected models.
  net::Task<nlohmann::json> measure_ensemble();
  [[nodiscard]] nlohmann::json report() const;

 private:
  net::Task<> collect_weights(ClientSession& client, LocalModel& model);
  /// `samples`: the validation samples, where they are rated here, in front of the public ones.
  net::Task<> collect_logits(ClientSession& client, LocalModel& model, const DigestedState& samples);
  /// Why the server does not ask for it, or for its logits; empty where it does.
  [[nodiscard]] std::string why_not_sent(const LocalModel& model) const;
  [[nodiscard]] std::int64_t num_rated() const;
  /// By all clients but its own; by its own where no other has held-out samples.
  net::Task<> rate_federated(LocalModel& model);
  void require_quorum(PhaseKind phase) const;
  void keep_record(const LocalModel& model) const;

  const RunContext& context_;
  std::map<std::string, LocalModel> models_;
  double phase_seconds_ = 0;
};

}  // namespace headstart::server
