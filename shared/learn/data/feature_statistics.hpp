// Mean and deviation of each feature over samples that lie in several places, from what each place says of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shared/learn/core/tensor.hpp"
#include "shared/learn/data/table.hpp"

namespace headstart::learn {

/// Of each channel (first dimension of a sample; of a table each feature), float64 [C].
struct FeatureStatistics {
  Tensor count;            ///< Values that are there.
  Tensor missing;          ///< Values that are not.
  Tensor mean;             ///< 0 where count is 0.
  Tensor squares;          ///< Sum of squared distances from the mean.
  Tensor least, greatest;  ///< 0 where count is 0, or where has_range is false.
  bool has_range = true;

  [[nodiscard]] std::int64_t size() const { return count.size(0); }
};

/// x: float32 [n, C, ...]; NaN is a missing value. In float64.
FeatureStatistics statistics_of(const Tensor& x);
/// Of both together, of as many channels (Chan, Golub, LeVeque 1979, equation 2.1).
FeatureStatistics merged(const FeatureStatistics& a, const FeatureStatistics& b);

/// What a silo says of its samples: of a feature of a table that is no number only how many values are missing; nothing
/// of a feature with fewer than `min_samples` values, but that so many are missing as there are samples; the range only
/// where `with_range`. Sums over few samples say much about each of them.
FeatureStatistics released(const FeatureStatistics& own, const TableTerms& table, std::int64_t min_samples,
                           bool with_range);

/// As it travels: float64 [6, C], the members in their order.
Tensor packed(const FeatureStatistics& statistics);
/// Throws Error(data), in a sentence, where no samples can have these statistics.
FeatureStatistics unpacked(const Tensor& packed, bool has_range);

/// What samples are normalised by.
struct FeatureScaling {
  std::vector<double> mean, deviation;
};
/// The deviation is that of the samples (divided by their number). A feature of which there are no values has mean 0
/// and deviation 1; one that does not vary, whose deviation is below 1e-7 of its mean's magnitude (float32 cannot hold
/// less), has deviation 1; a feature of a table that is no number stays as it is.
FeatureScaling scaling_of(const FeatureStatistics& statistics, const TableTerms& table);

/// Names of the features: of a table its own, else their numbers.
std::vector<std::string> feature_names(const TableTerms& table, std::int64_t num_features);

}  // namespace headstart::learn
