#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "shared/learn/partition/scheme.hpp"

namespace headstart::learn {

namespace {

/// Shares one pool out by `proportions`, which sum to 1: differences of the rounded running sums, so nothing is lost.
void cut(const Tensor& proportions, std::size_t pool, std::int64_t size, Counts& counts) {
  const auto proportion = proportions.accessor<double, 1>();
  double running = 0;
  std::int64_t given = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    running += proportion[static_cast<std::int64_t>(i)];
    const bool is_last = i + 1 == counts.size();
    const std::int64_t end =
        is_last ? size : std::clamp(static_cast<std::int64_t>(running * static_cast<double>(size)), given, size);
    counts[i][pool] = end - given;
    given = end;
  }
}

/// For each pool proportions ~ Dirichlet(betas), the betas alternating over the clients.
Counts dirichlet_counts(const Pools& pools, const std::vector<double>& betas, const at::Generator& random) {
  std::vector<double> concentration(pools.num_clients);
  for (std::size_t i = 0; i < concentration.size(); ++i) concentration[i] = betas[i % betas.size()];
  const auto num_pools = static_cast<std::int64_t>(pools.size());
  const Tensor rows = torch::tensor(concentration, at::kDouble).repeat({num_pools, 1});
  const Tensor proportions = at::_sample_dirichlet(rows, random);
  Counts counts = pools.zeros();
  for (std::size_t pool = 0; pool < pools.size(); ++pool) {
    cut(proportions.select(0, static_cast<std::int64_t>(pool)), pool, pools.sizes[pool], counts);
  }
  return counts;
}

Counts quantity_counts(const Pools& pools, const PartitionOptions& options, const at::Generator& random) {
  return dirichlet_counts(pools, {options.quantity_beta}, random);
}

Counts label_counts(const Pools& pools, const PartitionOptions& options, const at::Generator& random) {
  return dirichlet_counts(pools, options.label_betas, random);
}

}  // namespace

const PartitionScheme quantity_skew_scheme{
    .name = "quantity-skew",
    .draw = quantity_counts,
    .settings = [](const PartitionOptions& o) { return fmt::format("quantity_beta {}", o.quantity_beta); },
    .is_random = true,
    .is_one_pool = true};

const PartitionScheme label_dirichlet_scheme{
    .name = "label-dirichlet",
    .draw = label_counts,
    .settings =
        [](const PartitionOptions& o) { return fmt::format("label_betas {}", fmt::join(o.label_betas, " / ")); },
    .is_random = true};

}  // namespace headstart::learn
