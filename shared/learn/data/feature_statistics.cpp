#include "shared/learn/data/feature_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/data/sample_terms.hpp"

namespace headstart::learn {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// values: float64 [n, C, m].
FeatureStatistics statistics_of_part(const Tensor& values) {
  const std::vector<std::int64_t> places = {0, 2};
  const Tensor is_there = values.isnan().logical_not();
  const auto total = static_cast<double>(values.size(0) * values.size(2));
  FeatureStatistics result;
  result.count = is_there.to(at::kDouble).sum(places);
  result.missing = total - result.count;
  const Tensor some = result.count.clamp_min(1);
  const auto or_else = [&](double other) {
    return torch::where(is_there, values, torch::full({}, other, at::kDouble));
  };
  result.mean = or_else(0).sum(places) / some;
  const Tensor distances = torch::where(is_there, values - result.mean.view({1, -1, 1}), torch::zeros({}, at::kDouble));
  result.squares = distances.square().sum(places);
  const Tensor is_empty = result.count == 0;
  result.least = or_else(infinity).amin(places).masked_fill(is_empty, 0);
  result.greatest = or_else(-infinity).amax(places).masked_fill(is_empty, 0);
  return result;
}

/// 1 for each number, 0 for each other feature.
Tensor numbers_among(const TableTerms& table, std::int64_t size) {
  Tensor is_number = torch::ones({size}, at::kDouble);
  const std::vector<TableFeature> features = table_features(table);
  for (std::size_t i = 0; i < features.size(); ++i) {
    if (!features[i].is_number) is_number[static_cast<std::int64_t>(i)] = 0;
  }
  return is_number;
}

}  // namespace

FeatureStatistics statistics_of(const Tensor& x) {
  constexpr std::int64_t rows_at_once = 1024;
  std::vector<FeatureStatistics> parts;
  for (const Tensor& part : x.split(rows_at_once)) {
    const FeatureStatistics next = statistics_of_part(part.to(at::kDouble).reshape({part.size(0), part.size(1), -1}));
    if (parts.empty()) {
      parts.push_back(next);
    } else {
      parts.front() = merged(parts.front(), next);
    }
  }
  return parts.front();
}

FeatureStatistics merged(const FeatureStatistics& a, const FeatureStatistics& b) {
  FeatureStatistics both;
  both.count = a.count + b.count;
  both.missing = a.missing + b.missing;
  const Tensor share = b.count / both.count.clamp_min(1);
  const Tensor distance = b.mean - a.mean;
  both.mean = torch::where(a.count == 0, b.mean, a.mean + distance * share);
  both.squares = a.squares + b.squares + distance.square() * a.count * share;
  both.has_range = a.has_range && b.has_range;
  const auto of_those = [&](const Tensor& one, const Tensor& other, const Tensor& chosen) {
    return torch::where(a.count == 0, other, torch::where(b.count == 0, one, chosen));
  };
  both.least = of_those(a.least, b.least, torch::minimum(a.least, b.least));
  both.greatest = of_those(a.greatest, b.greatest, torch::maximum(a.greatest, b.greatest));
  return both;
}

FeatureStatistics released(const FeatureStatistics& own, const TableTerms& table, std::int64_t min_samples,
                           bool with_range) {
  const Tensor is_number = numbers_among(table, own.size());
  const Tensor is_said = own.count.ge(min_samples).to(at::kDouble) * is_number;
  FeatureStatistics said;
  said.count = own.count * is_said;
  // Too few values count as missing: how few they are is not told either.
  said.missing = torch::where(is_number.gt(0), own.missing + own.count - said.count, own.missing);
  said.mean = own.mean * is_said;
  said.squares = own.squares * is_said;
  said.has_range = with_range;
  said.least = own.least * is_said * static_cast<double>(with_range);
  said.greatest = own.greatest * is_said * static_cast<double>(with_range);
  return said;
}

Tensor packed(const FeatureStatistics& statistics) {
  return torch::stack({statistics.count, statistics.missing, statistics.mean, statistics.squares, statistics.least,
                       statistics.greatest});
}

FeatureStatistics unpacked(const Tensor& packed, bool has_range) {
  const auto refuse = [](const char* what) { throw Error(Errc::data, fmt::format("its statistics have {}", what)); };
  constexpr double most_samples = 1e15;
  constexpr double most = std::numeric_limits<float>::max();
  const auto is_within = [](const Tensor& values, double low, double high) {
    return values.ge(low).logical_and(values.le(high)).all().item<bool>();
  };
  FeatureStatistics result{packed[0], packed[1], packed[2], packed[3], packed[4], packed[5], has_range};
  for (const Tensor& numbers : {result.count, result.missing}) {
    const bool are_whole = is_within(numbers, 0, most_samples) && numbers.equal(numbers.round());
    if (!are_whole) refuse("a number of samples that is none");
  }
  if (!is_within(result.mean, -most, most)) refuse("a mean that is no number of float32");
  if (!is_within(result.squares, 0, most_samples * most * most)) refuse("a sum of squares that cannot be");
  const Tensor is_empty = result.count == 0;
  const Tensor says_some = (result.mean != 0).logical_or(result.squares != 0);
  if (is_empty.logical_and(says_some).any().item<bool>()) refuse("a mean of no values");
  if (!has_range) return result;
  const Tensor is_ordered = result.least.le(result.mean).logical_and(result.mean.le(result.greatest));
  // The mean of equal numbers may be off by a rounding.
  const Tensor slack = 1e-9 * result.mean.abs() + 1e-30;
  const Tensor is_near = (result.least - slack).le(result.mean).logical_and(result.mean.le(result.greatest + slack));
  if (!is_empty.logical_or(is_ordered).logical_or(is_near).all().item<bool>()) refuse("a mean outside of its range");
  if (!is_within(result.least, -most, most) || !is_within(result.greatest, -most, most))
    refuse("a range of no numbers");
  return result;
}

FeatureScaling scaling_of(const FeatureStatistics& statistics, const TableTerms& table) {
  constexpr double least_relative = 1e-7;
  const Tensor is_number = numbers_among(table, statistics.size());
  FeatureScaling result;
  for (std::int64_t i = 0; i < statistics.size(); ++i) {
    const auto count = statistics.count[i].item<double>();
    const bool stays = is_number[i].item<double>() == 0 || count == 0;
    const double mean = stays ? 0 : statistics.mean[i].item<double>();
    const double deviation = stays ? 1 : std::sqrt(statistics.squares[i].item<double>() / count);
    const bool varies = deviation > std::max(least_relative * std::abs(mean), smallest_deviation);
    result.mean.push_back(mean);
    result.deviation.push_back(varies ? deviation : 1);
  }
  return result;
}

std::vector<std::string> feature_names(const TableTerms& table, std::int64_t num_features) {
  if (table.is_empty()) return numbered_classes(num_features);
  std::vector<std::string> names;
  for (TableFeature& feature : table_features(table)) names.push_back(std::move(feature.name));
  return names;
}

}  // namespace headstart::learn
