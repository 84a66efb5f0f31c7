// A model that a worker process computes, for the code here that evaluates and distils: logits and gradients come from
// the process, steps and batches stay with the caller.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "shared/learn/models/stated_model.hpp"
#include "shared/worker_process/worker_link.hpp"

namespace headstart::worker_process {

/// The worker of a process that holds no silo's samples (the server). Thread-safe: one call at a time reaches it.
class ModelWorker : public std::enable_shared_from_this<ModelWorker> {
 public:
  /// Starts it. Throws as WorkerLink's constructor, or where it can give no logits.
  explicit ModelWorker(WorkerCommand command);

  /// Tells it the terms of the run, as JSON. Throws Error(data) where its model is not of `schema`; as
  /// WorkerLink::join.
  void take_up(const std::string& terms, const learn::Schema& schema, std::int64_t num_classes);
  /// Whether it gives gradients too (`backward`), which distillation takes.
  [[nodiscard]] bool gives_gradients() const;

  /// float32 [n, C], in evaluation mode, or in training mode with draws from that stream.
  learn::Tensor logits(const learn::StateDict& model, const learn::Tensor& x, const Seed* training_seed);
  /// The gradient of sum(logits * gradient) by each trained tensor, and the model's other tensors after that forward
  /// pass in training mode.
  learn::StateDict backward(const learn::StateDict& model, const learn::Schema& schema, const learn::Tensor& x,
                            const learn::Tensor& gradient, const Seed& seed);

  /// For learn::StatedModel::make; the model keeps this worker.
  std::unique_ptr<learn::Model> make(const learn::StatedModel& stated);

 private:
  mutable std::mutex mutex_;
  WorkerLink link_;
  std::int64_t num_classes_ = 0;
};

}  // namespace headstart::worker_process
