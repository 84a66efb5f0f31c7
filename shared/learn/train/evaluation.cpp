#include "shared/learn/train/evaluation.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

std::vector<std::int64_t> counts_per_class(const Tensor& classes, std::int64_t num_classes) {
  const Tensor counts = torch::bincount(classes, {}, num_classes).contiguous();
  const auto* first = counts.data_ptr<std::int64_t>();
  return {first, first + counts.numel()};
}

std::int64_t sum_of(const std::vector<std::int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

}  // namespace

Evaluation Evaluation::of_none(std::int64_t num_classes) {
  const std::vector<std::int64_t> zeros(static_cast<std::size_t>(num_classes));
  return {zeros, zeros, zeros, 0};
}

std::int64_t Evaluation::num_samples() const { return sum_of(total); }

double Evaluation::accuracy() const {
  const std::int64_t n = num_samples();
  return n == 0 ? 0 : static_cast<double>(sum_of(correct)) / static_cast<double>(n);
}

double Evaluation::loss() const {
  const std::int64_t n = num_samples();
  return n == 0 ? 0 : loss_sum / static_cast<double>(n);
}

std::vector<double> Evaluation::class_accuracy() const {
  std::vector<double> recall(total.size(), 0.0);
  for (std::size_t c = 0; c < total.size(); ++c) {
    if (total[c] > 0) recall[c] = static_cast<double>(correct[c]) / static_cast<double>(total[c]);
  }
  return recall;
}

double Evaluation::mean_class_accuracy() const { return accuracy_on(std::vector<std::int64_t>(total.size(), 1)); }

double Evaluation::accuracy_on(const std::vector<std::int64_t>& class_counts) const {
  if (class_counts.size() != total.size()) {
    throw Error(Errc::internal, fmt::format("counts of {} classes do not fit an evaluation over {}",
                                            class_counts.size(), total.size()));
  }
  const std::vector<double> recall = class_accuracy();
  double right = 0;
  double all = 0;
  for (std::size_t c = 0; c < total.size(); ++c) {
    if (total[c] == 0) continue;
    right += static_cast<double>(class_counts[c]) * recall[c];
    all += static_cast<double>(class_counts[c]);
  }
  return all == 0 ? 0 : right / all;
}

std::vector<double> Evaluation::class_precision() const {
  std::vector<double> precision(predicted.size());
  const auto num_classes = static_cast<std::int64_t>(predicted.size());
  for (std::size_t c = 0; c < predicted.size(); ++c) {
    precision[c] = static_cast<double>(correct[c] + 1) / static_cast<double>(predicted[c] + num_classes);
  }
  return precision;
}

Evaluation& Evaluation::operator+=(const Evaluation& other) {
  if (correct.size() != other.correct.size() || total.size() != other.total.size() ||
      predicted.size() != other.predicted.size()) {
    throw Error(Errc::internal,
                fmt::format("evaluations over {} and {} classes cannot be added", total.size(), other.total.size()));
  }
  std::ranges::transform(correct, other.correct, correct.begin(), std::plus{});
  std::ranges::transform(total, other.total, total.begin(), std::plus{});
  std::ranges::transform(predicted, other.predicted, predicted.begin(), std::plus{});
  loss_sum += other.loss_sum;
  return *this;
}

Evaluation evaluate_logits(const Tensor& logits, const Tensor& labels, std::int64_t num_classes) {
  const at::NoGradGuard no_grad;
  const Tensor scores = logits.detach().to(torch::kCPU, torch::kDouble);
  const Tensor classes = labels.to(torch::kCPU);
  if (scores.dim() != 2 || scores.size(1) != num_classes || scores.size(0) != classes.size(0)) {
    throw Error(Errc::internal, fmt::format("logits of {} classes for {} samples do not fit {} classes, {} labels",
                                            scores.size(-1), scores.size(0), num_classes, classes.size(0)));
  }
  Evaluation evaluation;
  const Tensor answers = scores.argmax(1);
  evaluation.total = counts_per_class(classes, num_classes);
  evaluation.predicted = counts_per_class(answers, num_classes);
  evaluation.correct = counts_per_class(classes.masked_select(answers == classes), num_classes);
  const Tensor negative_log = torch::log_softmax(scores, 1).gather(1, classes.unsqueeze(1)).neg();
  const auto loss_sum = negative_log.sum().item<double>();
  evaluation.loss_sum = std::isnan(loss_sum) ? std::numeric_limits<double>::infinity() : loss_sum;
  return evaluation;
}

namespace {

/// `answers`: the logits of each head for a batch of samples.
template <class Answers>
std::vector<Evaluation> evaluations(Model& model, std::int64_t num_heads, const Answers& answers,
                                    const Samples& samples, std::int64_t num_classes, std::int64_t batch_size,
                                    const std::stop_token& stop, const ProgressCallback& progress) {
  if (samples.size() > 0 && !samples.is_labeled()) throw Error(Errc::internal, "samples without labels evaluated");
  const at::NoGradGuard no_grad;
  std::vector<Evaluation> sums(static_cast<std::size_t>(num_heads), Evaluation::of_none(num_classes));
  model.set_training(false);
  batch_size = model.batch_size_for(batch_size);
  for (std::int64_t begin = 0; begin < samples.size(); begin += batch_size) {
    if (stop.stop_requested()) throw Error(Errc::interrupted, "stopped while evaluating");
    const std::int64_t count = std::min(batch_size, samples.size() - begin);
    const std::vector<Tensor> logits = answers(samples.x.narrow(0, begin, count));
    for (std::size_t head = 0; head < sums.size(); ++head) {
      sums[head] += evaluate_logits(logits[head], samples.y.narrow(0, begin, count), num_classes);
    }
    if (progress) progress({.done = begin + count, .total = samples.size()});
  }
  return sums;
}

}  // namespace

Evaluation evaluate(Model& model, const Samples& samples, std::int64_t num_classes, std::int64_t batch_size,
                    std::stop_token stop, const ProgressCallback& progress) {
  const auto first_head = [&model](const Tensor& x) { return std::vector{model.forward(x)}; };
  return evaluations(model, 1, first_head, samples, num_classes, batch_size, stop, progress).front();
}

std::vector<Evaluation> evaluate_heads(Model& model, const Samples& samples, std::int64_t num_classes,
                                       std::int64_t batch_size, std::stop_token stop,
                                       const ProgressCallback& progress) {
  const auto all_heads = [&model](const Tensor& x) { return model.forward_heads(x); };
  return evaluations(model, model.num_heads(), all_heads, samples, num_classes, batch_size, stop, progress);
}

Tensor logits_of(Model& model, const Tensor& x, std::int64_t batch_size, std::stop_token stop,
                 const ProgressCallback& progress) {
  const at::NoGradGuard no_grad;
  model.set_training(false);
  batch_size = model.batch_size_for(batch_size);
  Tensor all;
  std::int64_t begin = 0;
  // Once even without samples: the width of the result is the model's to say.
  do {
    if (stop.stop_requested()) throw Error(Errc::interrupted, "stopped while computing logits");
    const std::int64_t count = std::min(batch_size, x.size(0) - begin);
    const Tensor logits = model.forward(x.narrow(0, begin, count));
    if (!all.defined()) all = torch::empty({x.size(0), logits.size(1)}, torch::kFloat);
    all.narrow(0, begin, count).copy_(logits);
    begin += count;
    if (progress) progress({.done = begin, .total = x.size(0)});
  } while (begin < x.size(0));
  return all;
}

Change change_between(const Evaluation& before, const Evaluation& after) {
  if (before.total != after.total) {
    throw Error(Errc::internal, "evaluations over different samples cannot be compared");
  }
  const std::vector<double> old_accuracy = before.class_accuracy();
  const std::vector<double> new_accuracy = after.class_accuracy();
  Change change;
  double classes = 0;
  for (std::size_t c = 0; c < before.total.size(); ++c) {
    if (before.total[c] == 0) continue;
    classes += 1;
    change.learning += std::max(0.0, new_accuracy[c] - old_accuracy[c]);
    change.forgetting += std::max(0.0, old_accuracy[c] - new_accuracy[c]);
  }
  if (classes == 0) return {};
  return {change.learning / classes, change.forgetting / classes};
}

}  // namespace headstart::learn
