#include <cmath>

#include <fmt/format.h>

#include "shared/learn/partition/schemes/even_split.hpp"

namespace headstart::learn {

namespace {

/// Client i's own class is i mod C. A class gives specialized_share of itself to its owners and the rest to the others;
/// with as many clients as equal classes each client's own class is then specialized_share of what it holds.
Counts specialized_counts(const Pools& pools, const PartitionOptions& options, const at::Generator&) {
  Counts counts = pools.zeros();
  EvenSplit own_split;
  EvenSplit other_split;
  for (std::size_t pool = 0; pool < pools.size(); ++pool) {
    std::vector<std::size_t> owners;
    std::vector<std::size_t> others;
    for (std::size_t i = 0; i < pools.num_clients; ++i) (i % pools.size() == pool ? owners : others).push_back(i);
    const std::int64_t size = pools.sizes[pool];
    std::int64_t own = std::llround(options.specialized_share * static_cast<double>(size));
    if (owners.empty()) own = 0;
    if (others.empty()) own = size;
    if (own > 0) own_split.add(own, owners, pool, counts);
    if (own < size) other_split.add(size - own, others, pool, counts);
  }
  return counts;
}

}  // namespace

const PartitionScheme specialized_scheme{
    .name = "specialized", .draw = specialized_counts, .settings = [](const PartitionOptions& o) {
      return fmt::format("specialized_share {}", o.specialized_share);
    }};

}  // namespace headstart::learn
