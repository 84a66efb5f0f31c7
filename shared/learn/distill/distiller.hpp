// Multi-teacher knowledge distillation: the consolidation loop.
// Sources: Alballa & Canini 2024 (arXiv 2402.14922), equations 6 and 7; Lin et al. 2020 (FedDF).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "shared/learn/distill/distill_options.hpp"
#include "shared/learn/distill/guidance.hpp"
#include "shared/learn/distill/losses.hpp"
#include "shared/learn/distill/soft_targets.hpp"
#include "shared/learn/distill/teacher_weights.hpp"
#include "shared/learn/train/batch_norm_statistics.hpp"

namespace headstart::learn {

class EpochLoop;

/// A distillation under way. However its epochs are divided among calls of advance(), the student ends the same, bit
/// for bit. Borrows the student, whose parameters nobody else may change meanwhile; evaluating it in between is fine.
class Distiller {
 public:
  /// `teachers`: of each sample of `transfer`. Samples with labels use the whole objective, samples without the
  /// distillation term alone (distillation_objective). Fresh optimiser; orders from seed.child(epoch), from 0.
  /// `options.epochs` is what progress refers to. Throws Error(data): no samples; Error(usage): a batch size below 1.
  Distiller(Model& student, Samples transfer, const Guidance& teachers, const DistillOptions& options, Seed seed);
  ~Distiller();
  Distiller(const Distiller&) = delete;
  Distiller& operator=(const Distiller&) = delete;

  /// `epochs` more passes, the student in training mode; its last state stays in it. Returns the mean loss per sample
  /// of the last one. `after_epoch`, when given, is called after each epoch with its number from 1 (a kept checkpoint,
  /// a log line). Throws Error(run_failed) when the loss is not finite, Error(interrupted) when `stop` is requested.
  double advance(std::int64_t epochs, const ProgressCallback& progress = {}, std::stop_token stop = {},
                 const std::function<void(std::int64_t)>& after_epoch = {});
  [[nodiscard]] std::int64_t num_epochs() const;

 private:
  Model& student_;
  Samples transfer_;
  Guidance teachers_;
  DistillOptions options_;
  Seed seed_;
  Optimizer optimizer_;
  std::unique_ptr<EpochLoop> loop_;
};

/// Distils `teachers` into `student`, options.epochs from the first to the last: see Distiller.
double distill(Model& student, const Samples& transfer, const Guidance& teachers, const DistillOptions& options,
               Seed seed, const ProgressCallback& progress = {}, std::stop_token stop = {},
               const std::function<void(std::int64_t)>& after_epoch = {});

}  // namespace headstart::learn
