// The worker whose work is done by a process of the silo's own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/worker.hpp"
#include "shared/worker_process/worker_link.hpp"

namespace headstart::client {

struct ProcessWorkerOptions {
  std::string name;                ///< The client's.
  bool shares_with_peers = false;  ///< See SiloOptions.
  bool withholds_model = false;
  bool shows_metrics = false;
};

/// Translates the run's tasks into the few kinds that a worker process knows. Models, consent and what is computed from
/// logits and features stay here.
class ProcessWorker final : public Worker {
 public:
  /// Throws as worker_process::WorkerLink's constructor.
  ProcessWorker(ProcessWorkerOptions options, worker_process::WorkerCommand command);
  ~ProcessWorker() override;

  [[nodiscard]] std::vector<std::string> kinds() const override;
  wire::Join join(const plan::Terms& terms) override;
  [[nodiscard]] std::vector<std::string> remarks() const override { return remarks_; }
  learn::Schema global_schema() override { return schema_; }
  /// Throws Error(usage): a worker computes the run's model and no other.
  learn::Schema schema_of(const learn::ModelSpec& spec) override;
  [[nodiscard]] std::string describe(const Assignment& assignment) const override;
  TaskResult perform(const Assignment& assignment, const TaskContext& context) override;

 private:
  struct KindRow;
  static const std::vector<KindRow>& rows();

  TaskResult train(const Assignment& assignment, const TaskContext& context);
  TaskResult evaluate(const Assignment& assignment, const TaskContext& context);
  TaskResult pretrain(const Assignment& assignment, const TaskContext& context);
  TaskResult exchange(const Assignment& assignment, const TaskContext& context);
  TaskResult logits(const Assignment& assignment, const TaskContext& context);
  TaskResult answers(const Assignment& assignment, const TaskContext& context);
  TaskResult densities(const Assignment& assignment, const TaskContext& context);
  TaskResult distill(const Assignment& assignment, const TaskContext& context);

  /// Throws Error(protocol) where the worker's `joined` does not describe data and a model.
  void take_up(const nlohmann::json& joined);
  void require_model_of(const plan::Terms& terms) const;
  /// One state of the run's model from the worker.
  wire::PackedState state_from(const worker_process::WorkerRequest& request, const TaskContext& context,
                               nlohmann::json* figures = nullptr);
  learn::Tensor tensor_from(const worker_process::WorkerRequest& request, const std::string& name,
                            std::uint64_t max_bytes, const TaskContext& context);
  const wire::PackedState& pretrained(const TaskContext& context);
  void require_shared_model() const;
  /// The input's samples as float32 as models take them.
  [[nodiscard]] wire::PackedState samples_of(const Input& input) const;
  learn::Tensor logits_on(const wire::PackedState& samples, const TaskContext& context);
  learn::Tensor log_odds_on(const wire::PackedState& samples, const TaskContext& context);
  [[nodiscard]] Seed seeds() const { return terms_.client_seeds(options_.name); }

  ProcessWorkerOptions options_;
  worker_process::WorkerLink link_;
  plan::Terms terms_;
  learn::Schema schema_;
  std::uint64_t num_examples_ = 0;
  std::uint64_t num_held_out_ = 0;
  std::vector<std::string> remarks_;
  std::optional<wire::PackedState> pretrained_;
  plan::Pretraining pretraining_;
};

}  // namespace headstart::client
