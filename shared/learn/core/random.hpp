// Random streams for tensors. Nothing here touches LibTorch's process-wide generator.
#pragma once

#include <ATen/core/Generator.h>

#include "shared/base/seed.hpp"
#include "shared/learn/core/tensor.hpp"

namespace headstart::learn {

/// A CPU generator of its own, at the start of the stream that `seed` names. LibTorch's Mersenne Twister takes the
/// low 32 bits of a seed.
at::Generator generator(Seed seed);

/// A random order of 0..n-1: int64 [n].
Tensor permutation(std::int64_t n, Seed seed);

}  // namespace headstart::learn
