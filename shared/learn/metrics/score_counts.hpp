// Counts of a classifier's answers and probabilities on labeled samples, and the measures that need more of a
// probability than who is ahead. All counts are integers: sums over disjoint sets are those of the whole, bit by bit.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "shared/learn/core/tensor.hpp"

namespace headstart::learn {

/// Most classes whose scores are counted: the confusion matrix has their square.
inline constexpr std::int64_t max_scored_classes = 64;
/// Bins of the score of a class among C: 256, or fewer so that C times the bins is 4096 at most. A power of two.
std::int64_t num_score_bins(std::int64_t num_classes);
/// Log-odds beyond this are in the first and in the last bin; all bins are equally wide.
inline constexpr double largest_log_odds = 16;
/// Of the probability of the predicted class: bin m of M has ((m - 1) / M, m / M].
inline constexpr std::int64_t num_confidence_bins = 15;
/// Sums of probabilities are in units of 2^-30.
inline constexpr int confidence_fraction_bits = 30;

/// Area under the ROC curve of one class against all others: the chance that a sample of the class has a higher score
/// than one of another class, ties counting half. `error`: how far the true value can be from it.
struct RocArea {
  double value = 0;
  double error = 0;
};

/// The score of class c is its log-odds log(p_c / (1 - p_c)), p = softmax(logits): it orders samples as p_c does.
struct ScoreCounts {
  std::vector<std::int64_t> confusion;   ///< [C, C] By true class, then by the class they were taken for.
  std::vector<std::int64_t> positives;   ///< [C, B] Samples of the class, by bin of its score.
  std::vector<std::int64_t> negatives;   ///< [C, B] Samples of all others, by bin of the same score.
  std::vector<std::int64_t> answers;     ///< [M] Samples, by bin of the probability of the predicted class.
  std::vector<std::int64_t> right;       ///< [M] Those of them that are right.
  std::vector<std::int64_t> confidence;  ///< [M] Sum of their probabilities, in fixed point.

  static ScoreCounts of_none(std::int64_t num_classes);
  [[nodiscard]] std::int64_t num_classes() const;
  [[nodiscard]] std::int64_t num_bins() const;
  /// Joins each two bins, where there are more than two.
  void coarsen();
  /// Of different numbers of bins the sum has the smaller. Throws Error(internal) where the numbers of classes differ.
  ScoreCounts& operator+=(const ScoreCounts& other);
  /// From the bins; error = sum_b positives_b negatives_b / (2 P N). None where the class, or all others, have no
  /// samples.
  [[nodiscard]] std::optional<RocArea> auc(std::int64_t of_class) const;
  /// Expected calibration error, sum_m |right_m - confidence_m| / n (Guo et al. 2017, equation 3); 0 without samples.
  [[nodiscard]] double calibration_error() const;

  friend bool operator==(const ScoreCounts&, const ScoreCounts&) = default;
};

/// `logits` float64 [n, C], `labels` and `answers` (the predicted classes) int64 [n], all on the CPU; C at most
/// max_scored_classes. A sample with a logit that is no number has the lowest scores and a probability of 0.
ScoreCounts count_scores(const Tensor& logits, const Tensor& labels, const Tensor& answers);

/// All scores of a set, for areas without error.
class ScoreList {
 public:
  explicit ScoreList(std::int64_t num_classes) : scores_(static_cast<std::size_t>(num_classes)) {}
  /// As count_scores() takes them.
  void add(const Tensor& logits, const Tensor& labels);
  /// [C] The area of each class, by sorting.
  [[nodiscard]] std::vector<std::optional<double>> auc() const;

 private:
  std::vector<std::vector<double>> scores_;  ///< [C, n]
  std::vector<std::int64_t> labels_;         ///< [n]
};

}  // namespace headstart::learn
