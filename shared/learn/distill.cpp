#include "shared/learn/distill.hpp"

#include <map>
#include <string>
#include <utility>

#include <torch/torch.h>

#include "shared/base/error.hpp"
#include "shared/learn/batches.hpp"
#include "shared/learn/epoch_loop.hpp"
#include "shared/learn/random.hpp"

namespace headstart::learn {
namespace {

void expect_shape(bool fits, const std::string& what) {
  if (!fits) throw Error(Errc::internal, "distillation: " + what);
}

Tensor softened(const Tensor& logits, double temperature) { return temperature == 1 ? logits : logits / temperature; }

/// A buffer that layers update in training mode, running = (1 - momentum) running + momentum * batch's value, and the
/// sum of the batches' values. The momentum is a constant inside of a scripted model, so it is measured: the same batch
/// seen from two values of the buffer leaves them apart by (1 - momentum) of their distance.
struct RunningStatistic {
  static constexpr double probe = 0x1p20;

  std::string name;
  Tensor value;  ///< The model's own at present: a script may put another one there at any forward().
  Tensor before;
  Tensor probed;
  Tensor sum;
  double momentum = 0;

  explicit RunningStatistic(const NamedTensor& buffer)
      : name(buffer.name),
        value(buffer.tensor),
        before(buffer.tensor.clone()),
        sum(torch::zeros_like(buffer.tensor, torch::kFloat64)) {}

  void measure_momentum() { momentum = 1 - ((probed - value.to(torch::kFloat64)) / probe).mean().item<double>(); }
  /// A layer that did not run keeps what it had.
  void finish(double num_batches) {
    constexpr double least_momentum = 1e-6;
    value.copy_(momentum < least_momentum ? before : sum / (momentum * num_batches));
  }
};

}  // namespace

Tensor class_rates(const Evaluation& rating, TeacherWeighting weighting) {
  const bool by_precision = weighting == TeacherWeighting::precision;
  return torch::tensor(by_precision ? rating.class_precision() : rating.class_accuracy(), torch::kFloat64);
}

Tensor adaptive_weights(const Tensor& teachers, const Tensor& others, const Tensor& student) {
  expect_shape(teachers.dim() == 2 && others.dim() == 2 && student.dim() == 1 && teachers.size(0) > 0 &&
                   teachers.size(1) == student.size(0) && others.size(1) == student.size(0),
               "class accuracies must be [K, C], [M, C] and [C]");
  const Tensor numerator = teachers.to(torch::kFloat64);
  const Tensor denominator = student.to(torch::kFloat64) + others.to(torch::kFloat64).sum(0);
  const Tensor equal = equal_weights(teachers.size(0), teachers.size(1));
  return torch::where((denominator > 0).unsqueeze(0), numerator / denominator, equal);
}

Tensor equal_weights(std::int64_t num_teachers, std::int64_t num_classes) {
  return torch::full({num_teachers, num_classes}, 1.0 / static_cast<double>(num_teachers), torch::kFloat64);
}

SoundTeachers sound_teachers(const Tensor& logits, const Tensor& weights) {
  std::vector<std::int64_t> kept;
  SoundTeachers sound;
  for (std::int64_t k = 0; k < logits.size(0); ++k) {
    const bool is_finite = at::isfinite(logits[k]).all().item<bool>();
    (is_finite ? kept : sound.dropped).push_back(k);
  }
  if (kept.empty()) throw Error(Errc::run_failed, "consolidation: no teacher has finite logits");
  if (sound.dropped.empty()) return {logits, weights, {}};
  const Tensor rows = torch::tensor(kept, torch::kLong);
  sound.logits = logits.index_select(0, rows.to(logits.device()));
  const Tensor rest = weights.index_select(0, rows.to(weights.device()));
  // A class that none of the rest knows: all count alike.
  const Tensor known = rest.sum(0, true);
  const Tensor share =
      torch::where(known > 0, rest / known, torch::full_like(rest, 1.0 / static_cast<double>(kept.size())));
  sound.weights = share * weights.sum(0, true);
  return sound;
}

Tensor soft_targets(const Tensor& logits, const Tensor& weights, double temperature) {
  expect_shape(
      logits.dim() == 3 && weights.dim() == 2 && logits.size(0) == weights.size(0) && logits.size(2) == weights.size(1),
      "teacher logits must be [K, N, C] and weights [K, C]");
  const torch::NoGradGuard no_grad;
  const Tensor scale = weights.to(logits.options());
  Tensor targets = torch::zeros({logits.size(1), logits.size(2)}, logits.options());
  for (std::int64_t k = 0; k < logits.size(0); ++k) {
    targets.addcmul_(torch::softmax(softened(logits[k], temperature), 1), scale[k]);
  }
  return targets;
}

Tensor standardised(const Tensor& logits) {
  constexpr double least_deviation = 1e-7;
  return (logits - logits.mean(-1, true)) / (logits.std(-1, /*unbiased=*/true, /*keepdim=*/true) + least_deviation);
}

Tensor without_label_prior(const Tensor& logits, const Evaluation& rating) {
  const Tensor predicted = torch::tensor(rating.predicted, torch::kFloat64);
  expect_shape(logits.dim() == 2 && logits.size(1) == predicted.size(0), "there must be a logit for each class");
  const Tensor prior = (predicted + 1) / static_cast<double>(rating.num_samples() + predicted.size(0));
  return logits - prior.log().to(logits.options());
}

Tensor soft_targets(const Tensor& logits, const Tensor& weights, const DistillOptions& options) {
  const torch::NoGradGuard no_grad;
  const Tensor scaled = options.standardise ? standardised(logits) : logits;
  const Tensor equal = equal_weights(weights.size(0), weights.size(1));
  if (options.average == TeacherAverage::logits) {
    // A class that no teacher knows: all count alike.
    const Tensor sum = weights.sum(0, true);
    const Tensor share = torch::where(sum > 0, weights / sum, equal).to(logits.options());
    // Logits are defined but for a constant of each teacher and sample, which must not reach the target.
    const Tensor centred = scaled - scaled.mean(-1, true);
    return torch::softmax(softened((centred * share.unsqueeze(1)).sum(0), options.temperature), 1);
  }
  const Tensor targets = soft_targets(scaled, weights, options.temperature);
  if (!options.normalise) return targets;
  // Where the teachers are sure of classes that none of them counts for, they count alike.
  const Tensor sum = targets.sum(1, true);
  return torch::where(sum > 0, targets / sum, soft_targets(scaled, equal, options.temperature));
}

Tensor distillation_loss(const Tensor& student_logits, const Tensor& targets, double temperature, bool scale_by_t2) {
  const Tensor log_p = torch::log_softmax(softened(student_logits, temperature), 1);
  const Tensor loss = -(targets * log_p).sum(1).mean();
  return scale_by_t2 ? loss * (temperature * temperature) : loss;
}

void declare_fields(Fields& fields, const std::string& prefix, DistillOptions& options) {
  fields.number(prefix + ".temperature", options.temperature, "Softmax temperature T of teachers and student.",
                {.min = 0.05, .max = 100});
  fields.number(prefix + ".alpha", options.alpha,
                "Weight of the distillation term where the transfer set has labels; cross-entropy has 1 - alpha.",
                {.min = 0, .max = 1});
  fields.flag(prefix + ".scale_by_t2", options.scale_by_t2,
              "Multiply the distillation term by T^2, so that its gradient keeps its size at any T.");
  fields.choice(prefix + ".average", options.average,
                "What is averaged over the teachers: their probabilities, or their logits (FedDF).",
                Choices<TeacherAverage>(average_words));
  fields.flag(prefix + ".standardise", options.standardise,
              "Standardise each sample's logits, teachers' and student's, before they are softened.");
  fields.flag(prefix + ".normalise", options.normalise,
              "Have the targets sum to 1 over the classes; weights by class alone do not.");
  fields.integer(prefix + ".epochs", options.epochs, "Passes over the transfer set.", {.min = 1, .max = 100000});
  fields.integer(prefix + ".batch_size", options.batch_size, "Samples a step.", {.min = 1, .max = 65536});
  declare_fields(fields, prefix, options.optimizer);
}

Tensor distillation_objective(const Tensor& student_logits, const Tensor& targets, const std::optional<Tensor>& labels,
                              const DistillOptions& options) {
  const Tensor distilled = options.standardise ? standardised(student_logits) : student_logits;
  const Tensor distillation = distillation_loss(distilled, targets, options.temperature, options.scale_by_t2);
  if (!labels) return distillation;
  const Tensor supervised = at::cross_entropy_loss(student_logits, *labels);
  return (1 - options.alpha) * supervised + options.alpha * distillation;
}

Tensor kl_divergence(const Tensor& target_logits, const Tensor& logits, double temperature) {
  const Tensor log_q = torch::log_softmax(softened(target_logits, temperature), 1);
  const Tensor log_p = torch::log_softmax(softened(logits, temperature), 1);
  const Tensor q = log_q.exp();
  // 0 log 0 = 0, where a logit is -inf.
  return torch::where(q > 0, q * (log_q - log_p), torch::zeros_like(q)).sum(1).mean();
}

Distiller::Distiller(Model& student, Samples transfer, const Tensor& targets, const DistillOptions& options, Seed seed)
    : student_(student),
      transfer_(std::move(transfer)),
      options_(options),
      seed_(seed),
      optimizer_(student.parameters(), options.optimizer) {
  if (transfer_.size() == 0) throw Error(Errc::data, "there are no samples to distil on");
  expect_shape(targets.dim() == 2 && targets.size(0) == transfer_.size(),
               "there must be one row of targets for each transfer sample");
  const c10::Device device = transfer_.x.device();
  targets_ = targets.to(device);
  loop_ = std::make_unique<EpochLoop>("distillation", options.batch_size, device, transfer_.size() * options.epochs);
}
Distiller::~Distiller() = default;

double Distiller::advance(std::int64_t epochs, const ProgressCallback& progress, std::stop_token stop,
                          const std::function<void(std::int64_t)>& after_epoch) {
  const auto step = [this](const Tensor& batch) {
    const Samples samples = transfer_.select(batch);
    const auto labels = samples.is_labeled() ? std::optional<Tensor>(samples.y) : std::nullopt;
    optimizer_.zero_grad();
    Tensor loss =
        distillation_objective(student_.forward(samples.x), targets_.index_select(0, batch), labels, options_);
    loss.backward();
    optimizer_.step();
    return loss;
  };
  double loss = 0;
  for (std::int64_t i = 0; i < epochs; ++i) {
    student_.set_training(true);  // it may have been evaluated in between
    loss = loop_->run(permutation(transfer_.size(), seed_.child(static_cast<std::uint64_t>(num_epochs()))), step,
                      progress, stop);
    if (after_epoch) after_epoch(num_epochs());
  }
  return loss;
}

std::int64_t Distiller::num_epochs() const { return loop_->num_epochs(); }

double distill(Model& student, const Samples& transfer, const Tensor& targets, const DistillOptions& options, Seed seed,
               const ProgressCallback& progress, std::stop_token stop,
               const std::function<void(std::int64_t)>& after_epoch) {
  return Distiller(student, transfer, targets, options, seed).advance(options.epochs, progress, stop, after_epoch);
}

void reestimate_statistics(Model& model, const Tensor& x, std::int64_t batch_size, std::stop_token stop,
                           const ProgressCallback& progress) {
  const torch::NoGradGuard no_grad;
  std::vector<RunningStatistic> statistics;
  std::vector<NamedTensor> counters;
  for (const NamedTensor& named : model.named_state()) {
    if (named.name.ends_with("running_mean") || named.name.ends_with("running_var")) {
      statistics.emplace_back(named);
    } else if (named.name.ends_with("num_batches_tracked")) {
      counters.push_back(named);
    }
  }
  if (statistics.empty() || x.size(0) == 0) return;

  const auto look_again = [&] {
    std::map<std::string, Tensor> present;
    for (NamedTensor& named : model.named_state()) present[named.name] = std::move(named.tensor);
    for (RunningStatistic& statistic : statistics) statistic.value = present.at(statistic.name);
    for (NamedTensor& counter : counters) counter.tensor = present.at(counter.name);
  };
  const auto forward_from = [&](double start, const Tensor& batch) {
    for (RunningStatistic& statistic : statistics) statistic.value.fill_(start);
    // Layers with a cumulative momentum derive it from this count.
    for (NamedTensor& counter : counters) counter.tensor.zero_();
    model.forward(batch);
    look_again();
  };
  model.set_training(true);
  const std::vector<Tensor> batches = batches_of(x, batch_size);
  forward_from(RunningStatistic::probe, batches.front());
  for (RunningStatistic& statistic : statistics) statistic.probed = statistic.value.to(torch::kFloat64, false, true);
  std::int64_t done = 0;
  for (const Tensor& batch : batches) {
    if (stop.stop_requested()) throw Error(Errc::interrupted, "stopped while re-estimating statistics");
    forward_from(0, batch);
    for (RunningStatistic& statistic : statistics) {
      if (&batch == &batches.front()) statistic.measure_momentum();
      statistic.sum += statistic.value;
    }
    done += batch.size(0);
    if (progress) progress({.done = done, .total = x.size(0)});
  }
  for (RunningStatistic& statistic : statistics) statistic.finish(static_cast<double>(batches.size()));
  for (NamedTensor& counter : counters) counter.tensor.fill_(static_cast<std::int64_t>(batches.size()));
  model.set_training(false);
}

Tensor ensemble_scores(const Tensor& logits, const Tensor& weights) { return soft_targets(logits, weights, 1); }

}  // namespace headstart::learn
