// The measure that decides which of two models is better, and the measures that are reported.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/learn/metrics/evaluation.hpp"

namespace headstart::learn {

enum class MetricKind {
  accuracy,           ///< Share of samples that are right.
  balanced_accuracy,  ///< Mean recall of the classes that have samples.
  f1,                 ///< 2 right / (total + predicted); mean over the classes that occur.
  auc,                ///< Area under the ROC curve, class against the rest; mean over the classes that have one.
  log_loss,           ///< Mean cross-entropy, in nats; lower is better.
  calibration_error,  ///< ScoreCounts::calibration_error(); lower is better.
  recall,             ///< right / total of one class.
  precision,          ///< right / predicted of one class; 0 where it is never predicted.
};
inline constexpr std::pair<MetricKind, std::string_view> metric_words[] = {
    {MetricKind::accuracy, "accuracy"},
    {MetricKind::balanced_accuracy, "balanced_accuracy"},
    {MetricKind::f1, "f1"},
    {MetricKind::auc, "auc"},
    {MetricKind::log_loss, "log_loss"},
    {MetricKind::calibration_error, "calibration_error"},
    {MetricKind::recall, "recall"},
    {MetricKind::precision, "precision"}};

/// recall, precision, f1 or auc (class against the rest) of class `c`. None where that is not defined: recall without
/// samples, F1 and precision without samples and predictions, AUC without samples of the class or of others, or without
/// score counts.
std::optional<double> class_metric(MetricKind kind, const Evaluation& evaluation, std::int64_t c);
/// How far the AUC of class `c` can be from the true one; 0 where it is exact. None where there is no AUC.
std::optional<double> auc_error(const Evaluation& evaluation, std::int64_t c);
/// Mean of these over the classes that have one.
std::optional<double> mean_auc_error(const Evaluation& evaluation);

struct Metric {
  MetricKind kind = MetricKind::accuracy;
  std::optional<std::int64_t> of_class;  ///< Of recall and precision always, of f1 and auc where it is not the mean.

  /// Whether it is more than Measures::counts can tell.
  [[nodiscard]] bool needs_scores() const { return kind == MetricKind::auc || kind == MetricKind::calibration_error; }
  [[nodiscard]] bool is_accuracy() const { return kind == MetricKind::accuracy; }
  /// What an evaluation must measure for it where all samples are in one place.
  [[nodiscard]] Measures measures() const { return needs_scores() ? Measures::exact : Measures::counts; }
  /// None where it is not defined.
  [[nodiscard]] std::optional<double> value(const Evaluation& evaluation) const;
  /// 0..1, higher is better: the value, exp(-value) of log_loss, 1 - value of calibration_error; 0 where there is none.
  [[nodiscard]] double score(const Evaluation& evaluation) const;
  /// By how much the candidate's value is better; below 0 where it is worse.
  [[nodiscard]] double gain(const Evaluation& candidate, const Evaluation& other) const;
  /// By the score, then by lower loss; never true of equals.
  [[nodiscard]] bool is_better(const Evaluation& candidate, const Evaluation& best) const;
  /// "recall:1": as metric_of() takes it.
  [[nodiscard]] std::string text() const;

  friend bool operator==(const Metric&, const Metric&) = default;
};

/// "accuracy", "recall:NAME". A class by its name, or by its number from 0 where no class has that name. Throws
/// Error(usage), with what there is, for another word, a class that is not there, recall and precision without a class,
/// a class of a word that has none, and auc or calibration_error of more than max_scored_classes classes.
Metric metric_of(const std::string& text, const std::vector<std::string>& classes);
/// The same before the classes are known: what is wrong with any of them.
void require_metric(const std::string& text);

}  // namespace headstart::learn
