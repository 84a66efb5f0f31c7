#include <numeric>

#include "shared/learn/partition/schemes/even_split.hpp"

namespace headstart::learn {

namespace {

Counts uniform_counts(const Pools& pools, const PartitionOptions&, const at::Generator&) {
  Counts counts = pools.zeros();
  std::vector<std::size_t> clients(pools.num_clients);
  std::iota(clients.begin(), clients.end(), std::size_t{0});
  EvenSplit split;
  for (std::size_t pool = 0; pool < pools.size(); ++pool) split.add(pools.sizes[pool], clients, pool, counts);
  return counts;
}

}  // namespace

const PartitionScheme uniform_scheme{.name = "uniform", .draw = uniform_counts};

}  // namespace headstart::learn
