// What a data set dictates to a model.
#pragma once

#include <cstdint>

namespace headstart::learn {

// The largest samples and the most classes that a run may have: who announces them and who reads them has these bounds.
inline constexpr std::int64_t max_channels = 4096;
inline constexpr std::int64_t max_extent = 65536;  ///< Of height and width.
inline constexpr std::int64_t max_classes = 2048;

/// Shape of one sample and number of classes: what a data set dictates to a model.
struct Task {
  std::int64_t channels = 1;
  std::int64_t height = 28;
  std::int64_t width = 28;
  std::int64_t num_classes = 10;
  friend bool operator==(const Task&, const Task&) = default;
};

}  // namespace headstart::learn
