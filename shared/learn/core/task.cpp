#include "shared/learn/core/task.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace headstart::learn {

std::optional<std::string> shape_violation(std::span<const std::int64_t> shape) {
  if (shape.empty() || shape.size() > max_rank) {
    return fmt::format("a sample has 1 to {} dimensions, not {}", max_rank, shape.size());
  }
  std::int64_t values = 1;
  for (const std::int64_t extent : shape) {
    if (extent < 1 || extent > max_extent) {
      return fmt::format("a dimension of a sample is of 1 to {}, not {}", max_extent, extent);
    }
    values *= extent;
    if (values > max_sample_values) {
      return fmt::format("a sample has at most {} values, not {}", max_sample_values, shape_text(shape));
    }
  }
  return std::nullopt;
}

std::int64_t num_values(std::span<const std::int64_t> shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::string shape_text(std::span<const std::int64_t> shape) { return fmt::format("{}", fmt::join(shape, "x")); }

std::string text_of(const Task& task) {
  return fmt::format("{} in {} classes", shape_text(task.shape), task.num_classes);
}

}  // namespace headstart::learn
