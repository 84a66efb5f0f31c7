// Counts that an evaluation returns, and what is computed from them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "shared/learn/core/tensor.hpp"
#include "shared/learn/metrics/score_counts.hpp"

namespace headstart::learn {

/// What an evaluation measures.
enum class Measures {
  counts,  ///< Right, total and predicted samples per class, and the loss.
  scores,  ///< Also ScoreCounts, where there are at most max_scored_classes classes.
  exact,   ///< Also the area under each class's ROC curve without error, which cannot be added to others.
};

/// A number that whoever evaluated has measured by a measure of its own, and what it weighs in a mean.
struct OwnMetric {
  double value = 0;
  double weight = 0;  ///< 0..2^53.
};

using OwnMetrics = std::map<std::string, OwnMetric, std::less<>>;  ///< By name.

/// Right, total and predicted samples per class and the summed loss: additive over disjoint sets, so a federated
/// evaluation is the sum of the clients' counts.
struct Evaluation {
  std::vector<std::int64_t> correct;       ///< [C] Right, by true class.
  std::vector<std::int64_t> total;         ///< [C] Samples, by true class.
  std::vector<std::int64_t> predicted;     ///< [C] Samples, by the class they were taken for.
  double loss_sum = 0;                     ///< Sum over samples of cross-entropy; infinite where a logit is no number.
  std::optional<ScoreCounts> scores = {};  ///< Where they were counted.
  std::vector<std::optional<double>> exact_auc = {};  ///< [C], or empty: see Measures::exact.
  OwnMetrics own = {};

  /// Zero counts: where a sum begins.
  static Evaluation of_none(std::int64_t num_classes);
  [[nodiscard]] std::int64_t num_samples() const;
  [[nodiscard]] double accuracy() const;  ///< 0..1; 0 without samples.
  [[nodiscard]] double loss() const;      ///< Mean over samples; 0 without samples.
  /// Recall per class, 0..1; 0 for a class without samples.
  [[nodiscard]] std::vector<double> class_accuracy() const;
  /// *Global* accuracy: the mean recall of the classes that have samples, 0..1; 0 where none has.
  [[nodiscard]] double mean_class_accuracy() const;
  /// *Own* accuracy: sum_c share_c recall_c, the accuracy to be expected on data with these many samples of each class,
  /// 0..1. `class_counts`: [C], as a client's training samples have them. Classes without samples here are left out of
  /// the shares; 0 where none is left. Throws Error(internal) for another number of classes.
  [[nodiscard]] double accuracy_on(const std::vector<std::int64_t>& class_counts) const;
  /// Precision per class, above 0 and below 1: how often the class is right where it is predicted, by the rule of
  /// succession, (right + 1) / (predicted + C), so that a few lucky answers do not make an expert.
  [[nodiscard]] std::vector<double> class_precision() const;
  /// `scores` stay where all that have samples have them, `exact_auc` where only one has samples; `own` becomes the
  /// mean by weight of those that have the name. Throws Error(internal) where the class counts differ.
  Evaluation& operator+=(const Evaluation& other);
};

/// `logits` [n, C] against labels int64 [n].
Evaluation evaluate_logits(const Tensor& logits, const Tensor& labels, std::int64_t num_classes,
                           Measures measures = Measures::counts);

/// Logits that come in batches.
class BatchEvaluation {
 public:
  BatchEvaluation(std::int64_t num_classes, Measures measures);
  void add(const Tensor& logits, const Tensor& labels);
  [[nodiscard]] Evaluation result() const;

 private:
  std::int64_t num_classes_;
  Evaluation sum_;
  std::optional<ScoreList> list_;
  bool counts_scores_;
};

/// The change of class accuracy (0..1) from `before` to `after`, mean over the classes that have samples:
/// learning = mean max(0, after - before), forgetting = mean max(0, before - after).
struct Change {
  double learning = 0;
  double forgetting = 0;
};
/// Throws Error(internal) for evaluations over different samples.
Change change_between(const Evaluation& before, const Evaluation& after);

}  // namespace headstart::learn
