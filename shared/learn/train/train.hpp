// Local training: FedAvg's client step and pre-training with early stopping.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include "shared/base/fields.hpp"
#include "shared/base/seed.hpp"
#include "shared/learn/core/progress.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/metrics/metric.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "shared/learn/train/local_objective.hpp"

namespace headstart::learn {

enum class OptimizerKind { sgd, adam };
inline constexpr std::pair<OptimizerKind, std::string_view> optimizer_words[] = {{OptimizerKind::sgd, "sgd"},
                                                                                 {OptimizerKind::adam, "adam"}};

/// Weight decay is L2 in the gradient for both (PyTorch's SGD and Adam, not AdamW). Adam: betas 0.9, 0.999, eps 1e-8.
struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::sgd;
  double lr = 0.01;
  double momentum = 0;  ///< SGD only.
  double weight_decay = 4e-4;
};

/// One round of local training. Defaults: FedAvg as in Caldarola et al. 2022 and Alballa & Canini 2024.
struct TrainOptions {
  OptimizerOptions optimizer{};
  std::int64_t epochs = 2;
  std::int64_t batch_size = 64;
  double proximal_mu = 0;  ///< FedProx's mu; 0: no proximal term.
  double clip = 0;         ///< L2 norm that a step's gradient is scaled down to; 0: it is as it is.
};

/// Defaults: Alballa & Canini 2024, section III (lr and decay decided here).
struct PretrainOptions {
  OptimizerOptions optimizer{.kind = OptimizerKind::adam, .lr = 1e-3, .weight_decay = 1e-4};
  std::int64_t max_epochs = 100;
  std::int64_t patience = 10;  ///< Epochs without a better held-out `metric` (ties by lower loss) before it stops.
  std::int64_t batch_size = 32;
  Metric metric{};  ///< Not a setting of its own: a run fills in its validation.metric.
};

void declare_fields(Fields& fields, const std::string& prefix, OptimizerOptions& options);
void declare_fields(Fields& fields, const std::string& prefix, TrainOptions& options);
void declare_fields(Fields& fields, const std::string& prefix, PretrainOptions& options);

/// An update rule over fixed parameters: a thin owner of LibTorch's optimiser, fresh state. Gradients are freed with
/// it: kept, they would double the memory of a model that only waits.
class Optimizer {
 public:
  Optimizer(std::vector<Tensor> parameters, const OptimizerOptions& options);
  ~Optimizer();
  Optimizer(Optimizer&&) noexcept;
  Optimizer& operator=(Optimizer&&) noexcept;
  void zero_grad();
  void step();
  [[nodiscard]] const std::vector<Tensor>& parameters() const;

 private:
  struct Rule;
  std::unique_ptr<Rule> rule_;
};

/// The sample orders of `epochs` epochs: int64 [n] each, drawn from seed.child(epoch).
std::vector<Tensor> epoch_orders(std::int64_t num_samples, std::int64_t epochs, Seed seed);

/// Cross-entropy training (mean over the batch) of `model` in training mode, one pass per order, batches cut from the
/// order in sequence, the last one smaller (a last batch of one sample is joined to the one before, as BatchNorm
/// cannot train on it). Fresh optimiser. Samples and model must be on one device.
/// Returns the mean training loss per sample of the last epoch. Throws Error(run_failed) when the loss is not finite,
/// Error(interrupted) when `stop` is requested. `states`: of the local objectives; without them they begin anew. Throws
/// Error(usage) where no objective takes a part that was sent.
double train(Model& model, const Samples& samples, const TrainOptions& options, const std::vector<Tensor>& orders,
             const ProgressCallback& progress = {}, std::stop_token stop = {}, ObjectiveStates* states = nullptr,
             std::span<const LocalObjectiveRow> objectives = local_objectives());

struct PretrainResult {
  StateDict best;               ///< State after the best epoch.
  std::int64_t best_epoch = 0;  ///< From 1.
  std::int64_t num_epochs = 0;  ///< Epochs run.
  Evaluation held_out;          ///< Of the best epoch; empty where there is no held-out data.
};

/// Trains on `training`, judges each epoch on `held_out` (the client's own part, early stopping only). Without held-out
/// samples all epochs run and the last is kept. Model ends with the best state loaded. Progress counts the samples
/// trained on and is told while an epoch is judged, too. Throws as train() does.
PretrainResult pretrain(Model& model, const Samples& training, const Samples& held_out, const PretrainOptions& options,
                        Seed seed, const ProgressCallback& progress = {}, std::stop_token stop = {});

}  // namespace headstart::learn
