#include <algorithm>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/learn/partition/scheme.hpp"

namespace headstart::learn {

namespace {

/// For each class the clients that hold it, in random order: every client draws k ~ U{1..C} classes.
std::vector<std::vector<std::size_t>> holders_of_classes(const Pools& pools, const at::Generator& random) {
  const auto num_pools = static_cast<std::int64_t>(pools.size());
  const Tensor order = at::randperm(static_cast<std::int64_t>(pools.num_clients), random, at::kLong);
  std::vector<std::vector<std::size_t>> holders(pools.size());
  for (std::int64_t i = 0; i < order.size(0); ++i) {
    const auto client = static_cast<std::size_t>(order[i].item<std::int64_t>());
    const auto k = at::randint(1, num_pools + 1, {1}, random, at::kLong).item<std::int64_t>();
    const Tensor classes = at::randperm(num_pools, random, at::kLong).narrow(0, 0, k);
    for (std::int64_t j = 0; j < k; ++j) {
      holders[static_cast<std::size_t>(classes.data_ptr<std::int64_t>()[j])].push_back(client);
    }
  }
  return holders;
}

/// Chunks of U[chunk_min, chunk_max] in turn to the clients that hold a class, until less than chunk_min is left of it.
Counts chunk_counts(const Pools& pools, const PartitionOptions& options, const at::Generator& random) {
  Counts counts = pools.zeros();
  const std::vector<std::vector<std::size_t>> holders = holders_of_classes(pools, random);
  for (std::size_t pool = 0; pool < pools.size(); ++pool) {
    if (holders[pool].empty()) continue;
    std::int64_t left = pools.sizes[pool];
    const std::int64_t most_chunks = left / options.chunk_min;
    const Tensor sizes = at::randint(options.chunk_min, options.chunk_max + 1, {most_chunks}, random, at::kLong);
    const auto chunk = sizes.accessor<std::int64_t, 1>();
    for (std::int64_t turn = 0; left >= options.chunk_min; ++turn) {
      const std::int64_t taken = std::min(chunk[turn], left);
      counts[holders[pool][static_cast<std::size_t>(turn) % holders[pool].size()]][pool] += taken;
      left -= taken;
    }
  }
  return counts;
}

}  // namespace

const PartitionScheme random_chunks_scheme{
    .name = "random-chunks",
    .draw = chunk_counts,
    .settings =
        [](const PartitionOptions& o) { return fmt::format("chunk_min {}, chunk_max {}", o.chunk_min, o.chunk_max); },
    .least = [](const PartitionOptions& o) { return std::max(o.min_samples, o.chunk_min); },
    .advice = "smaller chunks",
    .is_random = true};

}  // namespace headstart::learn
