// How an epoch's order is cut into batches: the same for training, distillation and statistics.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace headstart::learn {

/// Consecutive views of `order` (any tensor cut along its first dimension) of `batch_size`, the last one smaller.
/// A last batch of one is joined to the one before, as BatchNorm cannot train on one sample.
inline std::vector<at::Tensor> batches_of(const at::Tensor& order, std::int64_t batch_size) {
  const std::int64_t size = order.size(0);
  std::vector<at::Tensor> batches;
  for (std::int64_t begin = 0; begin < size;) {
    const std::int64_t left = size - begin;
    const bool leaves_one = left == batch_size + 1 && batch_size > 1;
    const std::int64_t length = leaves_one ? left : std::min(batch_size, left);
    batches.push_back(order.narrow(0, begin, length));
    begin += length;
  }
  return batches;
}

}  // namespace headstart::learn
