#include "shared/learn/metrics/score_counts.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <span>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

constexpr std::int64_t most_bins = 256;
constexpr std::int64_t most_cells = 4096;
constexpr int score_fraction_bits = 30;
constexpr double infinity = std::numeric_limits<double>::infinity();

std::size_t place(std::int64_t value) { return static_cast<std::size_t>(value); }

/// log(sum exp(z_j - z_first)) over all j but `first`, where none is larger than z_first.
double log_of_others(std::span<const double> logits, std::size_t first) {
  double second = -infinity;
  for (std::size_t c = 0; c < logits.size(); ++c) {
    if (c != first) second = std::max(second, logits[c]);
  }
  if (second == -infinity) return -infinity;
  double sum = 0;
  for (std::size_t c = 0; c < logits.size(); ++c) {
    if (c != first) sum += std::exp(logits[c] - second);
  }
  return second - logits[first] + std::log(sum);
}

/// softmax(logits)[c], where c has the largest logit or one as large.
double probability_of(std::span<const double> logits, std::size_t c) {
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - logits[c]);
  return 1 / sum;
}

bool is_sound(std::span<const double> logits) {
  return std::ranges::none_of(logits, [](double z) { return std::isnan(z) || z == infinity; }) &&
         std::ranges::any_of(logits, [](double z) { return z != -infinity; });
}

/// The log-odds of each class. They depend on differences of logits alone, and are rounded to 2^-30: what is equal but
/// for the rounding of a sum is a tie.
void score(std::span<const double> logits, std::span<double> scores) {
  if (!is_sound(logits)) {
    std::ranges::fill(scores, -infinity);
    return;
  }
  const auto first = static_cast<std::size_t>(std::ranges::max_element(logits) - logits.begin());
  const double largest = logits[first];
  double others = 0;
  for (std::size_t c = 0; c < logits.size(); ++c) {
    if (c != first) others += std::exp(logits[c] - largest);
  }
  const double log_sum = std::log1p(others);
  for (std::size_t c = 0; c < logits.size(); ++c) {
    const double log_probability = logits[c] - largest - log_sum;
    // 1 - p would lose its digits where p is near 1.
    const double log_odds =
        c == first ? -log_of_others(logits, first) : log_probability - std::log1p(-std::exp(log_probability));
    scores[c] = std::ldexp(std::nearbyint(std::ldexp(log_odds, score_fraction_bits)), -score_fraction_bits);
  }
}

/// `per_bin`: how many of the narrowest bins make one.
std::int64_t bin_of(double score, std::int64_t per_bin) {
  constexpr double width = 2 * largest_log_odds / static_cast<double>(most_bins);
  const double bin = std::floor((std::clamp(score, -largest_log_odds, largest_log_odds) + largest_log_odds) / width);
  return std::min(static_cast<std::int64_t>(bin), most_bins - 1) / per_bin;
}

std::int64_t confidence_bin_of(double confidence) {
  const double bin = std::ceil(confidence * static_cast<double>(num_confidence_bins)) - 1;
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(bin), 0, num_confidence_bins - 1);
}

void add_to(std::vector<std::int64_t>& sum, const std::vector<std::int64_t>& other) {
  std::ranges::transform(sum, other, sum.begin(), std::plus{});
}

/// `logits` as rows of doubles, calls `take(row, label)`.
template <class Take>
void for_each_row(const Tensor& logits, const Tensor& labels, const Take& take) {
  const Tensor rows = logits.contiguous();
  const Tensor classes = labels.contiguous();
  const auto width = place(rows.size(1));
  const double* row = rows.data_ptr<double>();
  const std::int64_t* label = classes.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < rows.size(0); ++i, row += width, ++label) take(std::span(row, width), *label);
}

/// Twice the pairs in which the sample of the class has the higher score, where equal scores are one.
std::optional<double> area_of(const std::vector<double>& scores, const std::vector<std::int64_t>& labels,
                              std::int64_t of_class) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&scores](std::size_t i) { return scores[i]; });
  std::uint64_t twice_won = 0, num_below = 0, num_positive = 0;
  for (std::size_t begin = 0; begin < order.size();) {
    std::uint64_t tied_positive = 0, tied_negative = 0;
    std::size_t end = begin;
    for (; end < order.size() && scores[order[end]] == scores[order[begin]]; ++end) {
      ++(labels[order[end]] == of_class ? tied_positive : tied_negative);
    }
    twice_won += tied_positive * (2 * num_below + tied_negative);
    num_below += tied_negative;
    num_positive += tied_positive;
    begin = end;
  }
  if (num_positive == 0 || num_below == 0) return std::nullopt;
  return static_cast<double>(twice_won) / 2 / (static_cast<double>(num_positive) * static_cast<double>(num_below));
}

}  // namespace

std::int64_t num_score_bins(std::int64_t num_classes) {
  std::int64_t bins = most_bins;
  while (bins > 2 && bins * num_classes > most_cells) bins /= 2;
  return bins;
}

ScoreCounts ScoreCounts::of_none(std::int64_t num_classes) {
  const std::vector<std::int64_t> of_scores(place(num_classes * num_score_bins(num_classes)));
  const std::vector<std::int64_t> of_answers(place(num_confidence_bins));
  return {std::vector<std::int64_t>(place(num_classes * num_classes)),
          of_scores,
          of_scores,
          of_answers,
          of_answers,
          of_answers};
}

std::int64_t ScoreCounts::num_classes() const {
  return std::llround(std::sqrt(static_cast<double>(std::ssize(confusion))));
}

std::int64_t ScoreCounts::num_bins() const { return confusion.empty() ? 0 : std::ssize(positives) / num_classes(); }

void ScoreCounts::coarsen() {
  if (num_bins() <= 2) return;
  for (auto* counts : {&positives, &negatives}) {
    for (std::size_t i = 0; i < counts->size() / 2; ++i) (*counts)[i] = (*counts)[2 * i] + (*counts)[2 * i + 1];
    counts->resize(counts->size() / 2);
  }
}

ScoreCounts& ScoreCounts::operator+=(const ScoreCounts& other) {
  if (confusion.size() != other.confusion.size()) {
    throw Error(Errc::internal,
                fmt::format("score counts of {} and {} classes cannot be added", num_classes(), other.num_classes()));
  }
  ScoreCounts added = other;
  while (num_bins() > added.num_bins()) coarsen();
  while (added.num_bins() > num_bins()) added.coarsen();
  add_to(confusion, added.confusion);
  add_to(positives, added.positives);
  add_to(negatives, added.negatives);
  add_to(answers, added.answers);
  add_to(right, added.right);
  add_to(confidence, added.confidence);
  return *this;
}

std::optional<RocArea> ScoreCounts::auc(std::int64_t of_class) const {
  const std::int64_t bins = num_bins();
  double won = 0, tied = 0, below = 0, num_positive = 0;
  for (std::int64_t i = of_class * bins; i < (of_class + 1) * bins; ++i) {
    const auto positive = static_cast<double>(positives[place(i)]);
    const auto negative = static_cast<double>(negatives[place(i)]);
    won += positive * below;
    tied += positive * negative;
    below += negative;
    num_positive += positive;
  }
  if (num_positive == 0 || below == 0) return std::nullopt;
  const double pairs = num_positive * below;
  return RocArea{(won + tied / 2) / pairs, tied / 2 / pairs};
}

double ScoreCounts::calibration_error() const {
  double gap = 0, count = 0;
  for (std::size_t m = 0; m < answers.size(); ++m) {
    gap += std::abs(static_cast<double>(right[m]) -
                    std::ldexp(static_cast<double>(confidence[m]), -confidence_fraction_bits));
    count += static_cast<double>(answers[m]);
  }
  return count == 0 ? 0 : gap / count;
}

ScoreCounts count_scores(const Tensor& logits, const Tensor& labels, const Tensor& answers) {
  const std::int64_t num_classes = logits.size(1);
  ScoreCounts counts = ScoreCounts::of_none(num_classes);
  const std::int64_t bins = counts.num_bins();
  std::vector<double> scores(place(num_classes));
  const Tensor predicted = answers.contiguous();
  const std::int64_t* answer = predicted.data_ptr<std::int64_t>();
  for_each_row(logits, labels, [&](std::span<const double> row, std::int64_t label) {
    score(row, scores);
    ++counts.confusion[place(label * num_classes + *answer)];
    for (std::int64_t c = 0; c < num_classes; ++c) {
      auto& side = c == label ? counts.positives : counts.negatives;
      ++side[place(c * bins + bin_of(scores[place(c)], most_bins / bins))];
    }
    const double confidence = is_sound(row) ? probability_of(row, place(*answer)) : 0;
    const std::size_t bin = place(confidence_bin_of(confidence));
    ++counts.answers[bin];
    if (*answer == label) ++counts.right[bin];
    counts.confidence[bin] += std::llround(std::ldexp(confidence, confidence_fraction_bits));
    ++answer;
  });
  return counts;
}

void ScoreList::add(const Tensor& logits, const Tensor& labels) {
  std::vector<double> scores(scores_.size());
  for_each_row(logits, labels, [&](std::span<const double> row, std::int64_t label) {
    score(row, scores);
    for (std::size_t c = 0; c < scores.size(); ++c) scores_[c].push_back(scores[c]);
    labels_.push_back(label);
  });
}

std::vector<std::optional<double>> ScoreList::auc() const {
  std::vector<std::optional<double>> areas;
  for (std::size_t c = 0; c < scores_.size(); ++c) {
    areas.push_back(area_of(scores_[c], labels_, static_cast<std::int64_t>(c)));
  }
  return areas;
}

}  // namespace headstart::learn
