#include "shared/learn/metrics/evaluation.hpp"

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

void add_own(OwnMetrics& sum, const OwnMetrics& other) {
  for (const auto& [name, added] : other) {
    OwnMetric& mean = sum[name];
    const double weight = mean.weight + added.weight;
    // Shares first: values may be as large as numbers are.
    if (weight > 0) mean.value = mean.value * (mean.weight / weight) + added.value * (added.weight / weight);
    mean.weight = weight;
  }
}

}  // namespace

Evaluation Evaluation::of_none(std::int64_t num_classes) {
  const std::vector<std::int64_t> zeros(static_cast<std::size_t>(num_classes));
  return {.correct = zeros, .total = zeros, .predicted = zeros};
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
  // Before the counts: who has samples of its own.
  if (num_samples() == 0) {
    scores = other.scores;
    exact_auc = other.exact_auc;
  } else if (other.num_samples() > 0) {
    exact_auc.clear();
    if (scores && other.scores) {
      *scores += *other.scores;
    } else {
      scores.reset();
    }
  }
  add_own(own, other.own);
  std::ranges::transform(correct, other.correct, correct.begin(), std::plus{});
  std::ranges::transform(total, other.total, total.begin(), std::plus{});
  std::ranges::transform(predicted, other.predicted, predicted.begin(), std::plus{});
  loss_sum += other.loss_sum;
  return *this;
}

BatchEvaluation::BatchEvaluation(std::int64_t num_classes, Measures measures)
    : num_classes_(num_classes),
      sum_(Evaluation::of_none(num_classes)),
      counts_scores_(measures != Measures::counts && num_classes <= max_scored_classes) {
  if (counts_scores_) sum_.scores = ScoreCounts::of_none(num_classes);
  if (counts_scores_ && measures == Measures::exact) list_.emplace(num_classes);
}

void BatchEvaluation::add(const Tensor& logits, const Tensor& labels) {
  const at::NoGradGuard no_grad;
  const Tensor scores = logits.detach().to(torch::kCPU, torch::kDouble);
  const Tensor classes = labels.to(torch::kCPU);
  if (scores.dim() != 2 || scores.size(1) != num_classes_ || scores.size(0) != classes.size(0)) {
    throw Error(Errc::internal, fmt::format("logits of {} classes for {} samples do not fit {} classes, {} labels",
                                            scores.size(-1), scores.size(0), num_classes_, classes.size(0)));
  }
  Evaluation evaluation;
  const Tensor answers = scores.argmax(1);
  evaluation.total = counts_per_class(classes, num_classes_);
  evaluation.predicted = counts_per_class(answers, num_classes_);
  evaluation.correct = counts_per_class(classes.masked_select(answers == classes), num_classes_);
  const Tensor negative_log = torch::log_softmax(scores, 1).gather(1, classes.unsqueeze(1)).neg();
  const auto loss_sum = negative_log.sum().item<double>();
  evaluation.loss_sum = std::isnan(loss_sum) ? std::numeric_limits<double>::infinity() : loss_sum;
  if (counts_scores_) evaluation.scores = count_scores(scores, classes, answers);
  if (list_) list_->add(scores, classes);
  sum_ += evaluation;
}

Evaluation BatchEvaluation::result() const {
  Evaluation evaluation = sum_;
  if (list_) evaluation.exact_auc = list_->auc();
  return evaluation;
}

Evaluation evaluate_logits(const Tensor& logits, const Tensor& labels, std::int64_t num_classes, Measures measures) {
  BatchEvaluation evaluation(num_classes, measures);
  evaluation.add(logits, labels);
  return evaluation.result();
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
