#include "shared/learn/train/train.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/train/epoch_loop.hpp"
#include "shared/learn/train/local_objective.hpp"

namespace headstart::learn {

namespace {

using Objectives = std::vector<std::pair<std::string_view, std::unique_ptr<LocalObjective>>>;

/// The tensors of `memory` that are the objective `name`'s, under its own names.
StateDict part_of(const StateDict& memory, std::string_view name) {
  std::vector<NamedTensor> part;
  const std::string prefix = std::string(name) + "/";
  for (const NamedTensor& named : memory.tensors()) {
    if (named.name.starts_with(prefix)) part.push_back({named.name.substr(prefix.size()), named.tensor});
  }
  return StateDict(std::move(part));
}

Objectives objectives_of(std::span<const LocalObjectiveRow> rows, const TrainOptions& options,
                         const std::vector<NamedTensor>& received, const ObjectiveStates& states) {
  Objectives objectives;
  std::set<std::string_view> taken;
  for (const LocalObjectiveRow& row : rows) {
    auto objective = row.make({options, received, part_of(states.before, row.name), states.sent});
    if (!objective) continue;
    objectives.push_back({row.name, std::move(objective)});
    taken.insert(row.takes.begin(), row.takes.end());
  }
  for (const auto& [part, state] : states.sent) {
    // Training as if it were not there would give an update of another method.
    if (taken.contains(part)) continue;
    throw Error(Errc::usage, fmt::format("the server sends a part '{}' beside the model, and no local objective of "
                                         "these settings takes it",
                                         part));
  }
  return objectives;
}

StateDict memory_of(const Objectives& objectives, const std::vector<Tensor>& trained) {
  const at::NoGradGuard no_grad;
  std::vector<NamedTensor> all;
  for (const auto& [name, objective] : objectives) {
    const StateDict part = objective->remembered(trained);
    for (const NamedTensor& named : part.tensors()) {
      all.push_back({std::string(name) + "/" + named.name, named.tensor});
    }
  }
  return StateDict(std::move(all));
}

Parts returned_by(const Objectives& objectives, const std::vector<Tensor>& trained) {
  const at::NoGradGuard no_grad;
  Parts all;
  for (const auto& [name, objective] : objectives) all.merge(objective->returned(trained));
  return all;
}

/// A step of supervised training: cross-entropy, mean over the batch, and what `objectives` add to its gradient.
EpochLoop::Step supervised_step(Model& model, Optimizer& optimizer, const Samples& samples,
                                const Objectives& objectives) {
  return [&model, &optimizer, &samples, &objectives](const Tensor& batch) {
    optimizer.zero_grad();
    Tensor loss =
        at::cross_entropy_loss(model.forward(samples.x.index_select(0, batch)), samples.y.index_select(0, batch));
    loss.backward();
    if (!objectives.empty()) {
      const at::NoGradGuard no_grad;
      for (const auto& [name, objective] : objectives) objective->correct_gradients(optimizer.parameters());
    }
    optimizer.step();
    return loss;
  };
}

void check_samples(const Samples& samples) {
  if (samples.size() == 0) throw Error(Errc::data, "there are no samples to train on");
  if (!samples.is_labeled()) throw Error(Errc::data, "the samples to train on have no labels");
}

Evaluation judge(Model& model, const Samples& held_out, Measures measures, const std::stop_token& stop,
                 const ProgressCallback& progress) {
  const Tensor logits = logits_of(model, held_out.x, 256, stop, progress);
  return evaluate_logits(logits, held_out.y, logits.size(1), measures);
}

}  // namespace

void declare_fields(Fields& fields, const std::string& prefix, OptimizerOptions& options) {
  fields.choice(prefix + ".optimizer", options.kind, "Update rule.", Choices<OptimizerKind>(optimizer_words));
  fields.number(prefix + ".lr", options.lr, "Learning rate.", {.min = 0});
  fields.number(prefix + ".momentum", options.momentum, "Momentum of sgd.", {.min = 0, .max = 1});
  fields.number(prefix + ".weight_decay", options.weight_decay, "L2 penalty, added to the gradient.", {.min = 0});
}

void declare_fields(Fields& fields, const std::string& prefix, TrainOptions& options) {
  fields.group(prefix, "How a client trains in a round");
  declare_fields(fields, prefix, options.optimizer);
  fields.integer(prefix + ".epochs", options.epochs, "Local epochs a round.", {.min = 1, .max = 1e6});
  fields.number(
      prefix + ".proximal_mu", options.proximal_mu,
      "FedProx: each step also pulls the parameters towards the model as it was received, with this strength. "
      "0: it does not.",
      {.min = 0, .max = 1e6});
  fields.number(
      prefix + ".clip", options.clip,
      "L2 norm, over all parameters, that a step's gradient is scaled down to where it is larger. 0: it is not.",
      {.min = 0, .max = 1e9});
  fields.integer(prefix + ".batch_size", options.batch_size, "Samples a batch.", {.min = 1, .max = 1e6});
}

void declare_fields(Fields& fields, const std::string& prefix, PretrainOptions& options) {
  fields.group(prefix, "How a model is trained on its own, with early stopping");
  declare_fields(fields, prefix, options.optimizer);
  fields.integer(prefix + ".max_epochs", options.max_epochs, "Epochs at most.", {.min = 1, .max = 1e6});
  fields.integer(
      prefix + ".patience", options.patience,
      "Epochs without a better held-out accuracy, or validation.metric of a run (ties by lower loss), before "
      "training stops.",
      {.min = 1, .max = 1e6});
  fields.integer(prefix + ".batch_size", options.batch_size, "Samples a batch.", {.min = 1, .max = 1e6});
}

struct Optimizer::Rule {
  std::vector<Tensor> parameters;
  std::unique_ptr<torch::optim::Optimizer> update;

  Rule(std::vector<Tensor> updated, const OptimizerOptions& options);
  ~Rule() { clear_gradients(); }
  Rule(const Rule&) = delete;
  Rule& operator=(const Rule&) = delete;
  void clear_gradients() {
    for (const Tensor& parameter : parameters) parameter.mutable_grad().reset();
  }
};

Optimizer::Rule::Rule(std::vector<Tensor> updated, const OptimizerOptions& options) : parameters(std::move(updated)) {
  if (options.kind == OptimizerKind::sgd) {
    update = std::make_unique<torch::optim::SGD>(
        parameters, torch::optim::SGDOptions(options.lr).momentum(options.momentum).weight_decay(options.weight_decay));
  } else {
    update = std::make_unique<torch::optim::Adam>(
        parameters, torch::optim::AdamOptions(options.lr).weight_decay(options.weight_decay));
  }
}

Optimizer::Optimizer(std::vector<Tensor> parameters, const OptimizerOptions& options)
    : rule_(std::make_unique<Rule>(std::move(parameters), options)) {}
Optimizer::~Optimizer() = default;
Optimizer::Optimizer(Optimizer&&) noexcept = default;
Optimizer& Optimizer::operator=(Optimizer&&) noexcept = default;

void Optimizer::zero_grad() { rule_->clear_gradients(); }
void Optimizer::step() { rule_->update->step(); }
const std::vector<Tensor>& Optimizer::parameters() const { return rule_->parameters; }

std::vector<Tensor> epoch_orders(std::int64_t num_samples, std::int64_t epochs, Seed seed) {
  std::vector<Tensor> orders;
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    orders.push_back(permutation(num_samples, seed.child(static_cast<std::uint64_t>(epoch))));
  }
  return orders;
}

double train(Model& model, const Samples& samples, const TrainOptions& options, const std::vector<Tensor>& orders,
             const ProgressCallback& progress, std::stop_token stop, ObjectiveStates* states,
             std::span<const LocalObjectiveRow> rows) {
  check_samples(samples);
  const std::int64_t planned =
      std::accumulate(orders.begin(), orders.end(), std::int64_t{0},
                      [](std::int64_t sum, const Tensor& order) { return sum + order.size(0); });
  EpochLoop loop("training", options.batch_size, samples.x.device(), planned);
  Optimizer optimizer(model.parameters(), options.optimizer);
  const Objectives objectives =
      objectives_of(rows, options, model.named_parameters(), states != nullptr ? *states : ObjectiveStates{});
  const EpochLoop::Step step = supervised_step(model, optimizer, samples, objectives);
  model.set_training(true);
  double loss = 0;
  for (const Tensor& order : orders) loss = loop.run(order, step, progress, stop);
  if (states != nullptr) {
    states->after = memory_of(objectives, optimizer.parameters());
    states->returned = returned_by(objectives, optimizer.parameters());
  }
  return loss;
}

PretrainResult pretrain(Model& model, const Samples& training, const Samples& held_out, const PretrainOptions& options,
                        Seed seed, const ProgressCallback& progress, std::stop_token stop) {
  check_samples(training);
  const std::int64_t planned = training.size() * options.max_epochs;
  EpochLoop loop("training", options.batch_size, training.x.device(), planned);
  Optimizer optimizer(model.parameters(), options.optimizer);
  const Objectives none;
  const EpochLoop::Step step = supervised_step(model, optimizer, training, none);
  PretrainResult result;
  for (std::int64_t epoch = 1; epoch <= options.max_epochs; ++epoch) {
    model.set_training(true);
    loop.run(permutation(training.size(), seed.child(static_cast<std::uint64_t>(epoch - 1))), step, progress, stop);
    result.num_epochs = epoch;
    if (held_out.size() == 0) continue;
    const auto still_judging = [&](const Progress&) {
      if (progress) progress({.done = epoch * training.size(), .total = planned});
    };
    Evaluation now = judge(model, held_out, options.metric.measures(), stop, still_judging);
    if (result.best_epoch == 0 || options.metric.is_better(now, result.held_out)) {
      result.best = model.state();
      result.best_epoch = epoch;
      result.held_out = std::move(now);
    }
    if (epoch - result.best_epoch >= options.patience) break;
  }
  if (held_out.size() > 0) {
    model.load(result.best);
  } else {
    result.best = model.state();
    result.best_epoch = result.num_epochs;
  }
  return result;
}

}  // namespace headstart::learn
