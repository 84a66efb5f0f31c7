#include "shared/learn/data/stratified.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"

namespace headstart::learn {

using Indices = std::vector<std::int64_t>;

std::vector<Indices> by_class(const Tensor& labels, std::int64_t num_classes, const Indices& candidates) {
  std::vector<Indices> pools(static_cast<std::size_t>(num_classes));
  const auto label = labels.accessor<std::int64_t, 1>();
  for (const std::int64_t i : candidates) {
    if (label[i] < 0 || label[i] >= num_classes) {
      throw Error(Errc::data, fmt::format("sample {} has label {}, expected 0 to {}", i, label[i], num_classes - 1));
    }
    pools[static_cast<std::size_t>(label[i])].push_back(i);
  }
  return pools;
}

void shuffle(Indices& indices, Seed seed) {
  const Tensor order = permutation(static_cast<std::int64_t>(indices.size()), seed);
  const auto place = order.accessor<std::int64_t, 1>();
  const Indices before = indices;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    indices[i] = before[static_cast<std::size_t>(place[static_cast<std::int64_t>(i)])];
  }
}

std::vector<std::int64_t> stratified_draw(const Tensor& labels, std::int64_t num_classes,
                                          const std::vector<std::int64_t>& candidates, std::int64_t count, Seed seed) {
  const auto total = static_cast<std::int64_t>(candidates.size());
  if (count < 0 || count > total) {
    throw Error(Errc::usage, fmt::format("a draw of {} samples, and there are {}", count, total));
  }
  if (count == 0) return {};
  std::vector<Indices> pools = by_class(labels, num_classes, candidates);
  Indices quotas;
  for (const Indices& pool : pools) quotas.push_back(count * static_cast<std::int64_t>(pool.size()) / total);
  std::vector<std::size_t> by_remainder(pools.size());
  std::iota(by_remainder.begin(), by_remainder.end(), std::size_t{0});
  std::ranges::stable_sort(by_remainder, std::ranges::greater{}, [&](std::size_t pool) {
    return count * static_cast<std::int64_t>(pools[pool].size()) % total;
  });
  std::int64_t missing = count - std::accumulate(quotas.begin(), quotas.end(), std::int64_t{0});
  for (std::size_t rank = 0; missing > 0; ++rank, --missing) ++quotas[by_remainder[rank]];

  Indices drawn;
  for (std::size_t pool = 0; pool < pools.size(); ++pool) {
    shuffle(pools[pool], seed.child(pool));
    drawn.insert(drawn.end(), pools[pool].begin(), pools[pool].begin() + quotas[pool]);
  }
  std::ranges::sort(drawn);
  return drawn;
}

std::pair<Tensor, Tensor> holdout_split(const Tensor& labels, double fraction, Seed seed) {
  const std::int64_t n = labels.size(0);
  if (n == 0) throw Error(Errc::usage, "there are no samples to hold out from");
  if (!(fraction >= 0 && fraction <= 1)) {
    throw Error(Errc::usage, fmt::format("held-out fraction: expected 0 to 1, got {}", fraction));
  }
  // 0.29 * 100 is a little below 29.
  constexpr double rounding = 1e-9;
  const auto wanted = static_cast<std::int64_t>(std::floor(fraction * static_cast<double>(n) + rounding));
  std::vector<std::int64_t> candidates(static_cast<std::size_t>(n));
  std::iota(candidates.begin(), candidates.end(), std::int64_t{0});
  const std::int64_t num_classes = labels.max().item<std::int64_t>() + 1;
  const std::vector<std::int64_t> held_out =
      stratified_draw(labels, num_classes, candidates, std::min(wanted, n - 1), seed);
  std::vector<std::int64_t> training;
  std::ranges::set_difference(candidates, held_out, std::back_inserter(training));
  return {torch::tensor(training, torch::kLong), torch::tensor(held_out, torch::kLong)};
}

}  // namespace headstart::learn
