// Triangular discrimination.
#include <limits>

#include <torch/types.h>

#include "shared/learn/distill/dissimilarity.hpp"

namespace headstart::learn {

namespace {

/// 1 - sum 2 p q / (p + q), as half the sum of (p - q)^2 / (p + q), which does not cancel where p is near q. A class
/// that neither has counts 0.
Tensor triangular(const Tensor& log_p, const Tensor& q) {
  const Tensor p = log_p.exp();
  const double smallest = std::numeric_limits<float>::min();
  return (at::square(p - q) / (p + q).clamp_min(smallest)).sum(1) / 2;
}

}  // namespace

const Dissimilarity triangular_measure{
    .name = "td", .words = "triangular discrimination", .to_one = triangular, .matched = [](std::int64_t) {
      return 2.0;
    }};

}  // namespace headstart::learn
