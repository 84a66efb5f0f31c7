// What a data set dictates to a model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace headstart::learn {

// The largest samples and the most classes that a run may have: who announces them and who reads them has these bounds.
inline constexpr std::size_t max_rank = 7;  ///< Dimensions of a sample: a batch of them has 8 at most.
inline constexpr std::int64_t max_extent = 65536;
inline constexpr std::int64_t max_sample_values = std::int64_t{1} << 31;
inline constexpr std::int64_t max_classes = 2048;

/// Shape of one sample and number of classes: what a data set dictates to a model.
struct Task {
  /// [features], [channels, length], [channels, height, width], ...: constants and figures are of the first dimension.
  std::vector<std::int64_t> shape = {1, 28, 28};
  std::int64_t num_classes = 10;
  friend bool operator==(const Task&, const Task&) = default;
};

/// Why no sample can have this shape, in a sentence; nothing where one can.
std::optional<std::string> shape_violation(std::span<const std::int64_t> shape);

/// Of a shape that can be.
std::int64_t num_values(std::span<const std::int64_t> shape);

/// "1x28x28".
std::string shape_text(std::span<const std::int64_t> shape);
/// "1x28x28 in 10 classes".
std::string text_of(const Task& task);

}  // namespace headstart::learn
