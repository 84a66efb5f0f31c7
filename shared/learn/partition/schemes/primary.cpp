#include <algorithm>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/learn/partition/scheme.hpp"

namespace headstart::learn {

namespace {

/// [clients, pools] of 0 and 1: the primary classes of each client. Classes are dealt in random order, one after
/// another round the clients, until each class has a client and each client a class.
Tensor primary_classes(const Pools& pools, const at::Generator& random) {
  const auto num_clients = static_cast<std::int64_t>(pools.num_clients);
  const auto num_pools = static_cast<std::int64_t>(pools.size());
  const Tensor order = at::randperm(num_pools, random, at::kLong);
  Tensor is_primary = torch::zeros({num_clients, num_pools}, torch::kDouble);
  for (std::int64_t turn = 0; turn < std::max(num_clients, num_pools); ++turn) {
    is_primary.index_put_({torch::tensor(turn % num_clients), order[turn % num_pools]}, 1.0);
  }
  return is_primary;
}

/// Each sample of class c goes to client i with a probability of (1 + skew [c is primary for i]) / sum over clients.
Counts primary_counts(const Pools& pools, const PartitionOptions& options, const at::Generator& random) {
  const Tensor chances = 1 + options.primary_skew * primary_classes(pools, random);
  Counts counts = pools.zeros();
  for (std::size_t pool = 0; pool < pools.size(); ++pool) {
    if (pools.sizes[pool] == 0) continue;
    const Tensor chance = chances.select(1, static_cast<std::int64_t>(pool)).contiguous();
    const Tensor taken_by = at::multinomial(chance, pools.sizes[pool], /*replacement=*/true, random);
    const Tensor taken = torch::bincount(taken_by, {}, chance.size(0));
    for (std::size_t i = 0; i < pools.num_clients; ++i) {
      counts[i][pool] = taken[static_cast<std::int64_t>(i)].item<std::int64_t>();
    }
  }
  return counts;
}

}  // namespace

const PartitionScheme primary_scheme{
    .name = "primary",
    .draw = primary_counts,
    .settings = [](const PartitionOptions& o) { return fmt::format("primary_skew {}", o.primary_skew); },
    .is_random = true};

}  // namespace headstart::learn
