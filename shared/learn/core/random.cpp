#include "shared/learn/core/random.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

namespace headstart::learn {

at::Generator generator(Seed seed) { return at::detail::createCPUGenerator(seed.value()); }

Tensor permutation(std::int64_t n, Seed seed) { return at::randperm(n, generator(seed), at::kLong); }

}  // namespace headstart::learn
