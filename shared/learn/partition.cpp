#include "shared/learn/partition.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <torch/torch.h>

#include "shared/base/error.hpp"
#include "shared/learn/random.hpp"

namespace headstart::learn {

namespace {

using Indices = std::vector<std::int64_t>;
/// [clients][pools]: how many samples of each pool a client takes. A pool is a class; for quantity-skew there is one
/// pool of everything.
using Counts = std::vector<Indices>;

constexpr int most_draws = 1000;

/// What there is to share out, and to whom.
struct Table {
  Indices pool_sizes;
  std::size_t num_clients;

  [[nodiscard]] std::size_t num_pools() const { return pool_sizes.size(); }
  [[nodiscard]] Counts zeros() const { return Counts(num_clients, Indices(num_pools(), 0)); }
};

Indices class_sizes(const std::vector<Indices>& pools) {
  Indices sizes;
  for (const Indices& pool : pools) sizes.push_back(static_cast<std::int64_t>(pool.size()));
  return sizes;
}

/// `candidates` by their label.
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

/// Splits counts evenly; the odd samples go round over all calls, so that no client collects them.
class EvenSplit {
 public:
  void add(std::int64_t count, const std::vector<std::size_t>& clients, std::size_t pool, Counts& counts) {
    const auto num_clients = static_cast<std::int64_t>(clients.size());
    for (const std::size_t client : clients) counts[client][pool] += count / num_clients;
    for (std::int64_t odd = 0; odd < count % num_clients; ++odd) ++counts[clients[turn_++ % clients.size()]][pool];
  }

 private:
  std::size_t turn_ = 0;
};

std::vector<std::size_t> all_clients(const Table& table) {
  std::vector<std::size_t> clients(table.num_clients);
  std::iota(clients.begin(), clients.end(), std::size_t{0});
  return clients;
}

Counts uniform_counts(const Table& table) {
  Counts counts = table.zeros();
  const std::vector<std::size_t> clients = all_clients(table);
  EvenSplit split;
  for (std::size_t pool = 0; pool < table.num_pools(); ++pool) split.add(table.pool_sizes[pool], clients, pool, counts);
  return counts;
}

/// Client i's own class is i mod C. A class gives `share` of itself to its owners and the rest to the others;
/// with as many clients as equal classes each client's own class is then `share` of what it holds.
Counts specialized_counts(const Table& table, double share) {
  Counts counts = table.zeros();
  EvenSplit own_split;
  EvenSplit other_split;
  for (std::size_t pool = 0; pool < table.num_pools(); ++pool) {
    std::vector<std::size_t> owners;
    std::vector<std::size_t> others;
    for (std::size_t i = 0; i < table.num_clients; ++i) (i % table.num_pools() == pool ? owners : others).push_back(i);
    const std::int64_t size = table.pool_sizes[pool];
    std::int64_t own = std::llround(share * static_cast<double>(size));
    if (owners.empty()) own = 0;
    if (others.empty()) own = size;
    if (own > 0) own_split.add(own, owners, pool, counts);
    if (own < size) other_split.add(size - own, others, pool, counts);
  }
  return counts;
}

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
Counts dirichlet_counts(const Table& table, const std::vector<double>& betas, const at::Generator& random) {
  std::vector<double> concentration(table.num_clients);
  for (std::size_t i = 0; i < concentration.size(); ++i) concentration[i] = betas[i % betas.size()];
  const auto num_pools = static_cast<std::int64_t>(table.num_pools());
  const Tensor rows = torch::tensor(concentration, at::kDouble).repeat({num_pools, 1});
  const Tensor proportions = at::_sample_dirichlet(rows, random);
  Counts counts = table.zeros();
  for (std::size_t pool = 0; pool < table.num_pools(); ++pool) {
    cut(proportions.select(0, static_cast<std::int64_t>(pool)), pool, table.pool_sizes[pool], counts);
  }
  return counts;
}

/// For each class the clients that hold it, in random order: every client draws k ~ U{1..C} classes.
std::vector<std::vector<std::size_t>> holders_of_classes(const Table& table, const at::Generator& random) {
  const auto num_pools = static_cast<std::int64_t>(table.num_pools());
  const Tensor order = at::randperm(static_cast<std::int64_t>(table.num_clients), random, at::kLong);
  std::vector<std::vector<std::size_t>> holders(table.num_pools());
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
Counts chunk_counts(const Table& table, const PartitionOptions& options, const at::Generator& random) {
  Counts counts = table.zeros();
  const std::vector<std::vector<std::size_t>> holders = holders_of_classes(table, random);
  for (std::size_t pool = 0; pool < table.num_pools(); ++pool) {
    if (holders[pool].empty()) continue;
    std::int64_t left = table.pool_sizes[pool];
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

Counts draw_counts(const Table& table, const PartitionOptions& options, const at::Generator& random) {
  switch (options.kind) {
    case PartitionKind::uniform:
      return uniform_counts(table);
    case PartitionKind::quantity_skew:
      return dirichlet_counts(table, {options.quantity_beta}, random);
    case PartitionKind::specialized:
      return specialized_counts(table, options.specialized_share);
    case PartitionKind::random_chunks:
      return chunk_counts(table, options, random);
    case PartitionKind::label_dirichlet:
      return dirichlet_counts(table, options.label_betas, random);
  }
  throw Error(Errc::internal, "partition of no kind");
}

bool has_random_counts(PartitionKind kind) {
  return kind != PartitionKind::uniform && kind != PartitionKind::specialized;
}

std::int64_t smallest_client(const Counts& counts) {
  std::int64_t smallest = std::numeric_limits<std::int64_t>::max();
  for (const Indices& row : counts) smallest = std::min(smallest, std::accumulate(row.begin(), row.end(), 0L));
  return smallest;
}

Partition deal(std::vector<Indices> pools, const Counts& counts, Seed seed) {
  Partition result;
  result.clients.resize(counts.size());
  for (std::size_t pool = 0; pool < pools.size(); ++pool) {
    shuffle(pools[pool], seed.child(pool));
    auto next = pools[pool].cbegin();
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const auto end = next + counts[i][pool];
      result.clients[i].insert(result.clients[i].end(), next, end);
      next = end;
    }
    result.unused.insert(result.unused.end(), next, pools[pool].cend());
  }
  for (Indices& client : result.clients) std::ranges::sort(client);
  std::ranges::sort(result.unused);
  return result;
}

/// The settings that this kind reads, as a message names them.
std::string settings_text(const PartitionOptions& options, std::int64_t num_samples) {
  std::string own;
  switch (options.kind) {
    case PartitionKind::uniform:
      break;
    case PartitionKind::quantity_skew:
      own = fmt::format(", quantity_beta {}", options.quantity_beta);
      break;
    case PartitionKind::specialized:
      own = fmt::format(", specialized_share {}", options.specialized_share);
      break;
    case PartitionKind::random_chunks:
      own = fmt::format(", chunk_min {}, chunk_max {}", options.chunk_min, options.chunk_max);
      break;
    case PartitionKind::label_dirichlet:
      own = fmt::format(", label_betas {}", fmt::join(options.label_betas, " / "));
      break;
  }
  return fmt::format("partition {} of {} samples: clients {}{}, min_samples {}",
                     word_of<PartitionKind>(partition_words, options.kind), num_samples, options.num_clients, own,
                     options.min_samples);
}

void check(const PartitionOptions& options) {
  const auto require = [](bool holds, std::string_view sentence) {
    if (!holds) throw Error(Errc::usage, fmt::format("partition: {}", sentence));
  };
  const auto is_positive = [](double value) { return value > 0 && std::isfinite(value); };
  require(options.num_clients >= 1, fmt::format("clients {}, expected at least 1", options.num_clients));
  require(is_positive(options.quantity_beta), fmt::format("quantity_beta {}, expected above 0", options.quantity_beta));
  require(!options.label_betas.empty() && std::ranges::all_of(options.label_betas, is_positive),
          fmt::format("label_betas [{}], expected one or more numbers above 0", fmt::join(options.label_betas, ", ")));
  require(options.specialized_share >= 0 && options.specialized_share <= 1,
          fmt::format("specialized_share {}, expected 0 to 1", options.specialized_share));
  require(options.chunk_min >= 1, fmt::format("chunk_min {}, expected at least 1", options.chunk_min));
  require(options.chunk_max >= options.chunk_min,
          fmt::format("chunk_max {} is below chunk_min {}", options.chunk_max, options.chunk_min));
}

}  // namespace

void declare_fields(Fields& fields, const std::string& prefix, PartitionOptions& options) {
  // Below 0.01 the gamma variates of a Dirichlet draw vanish in double precision.
  constexpr Bounds beta{.min = 0.01, .max = 1e6};
  constexpr double many = 1e9;
  fields.choice<PartitionKind>(prefix + ".kind", options.kind, "How the samples are shared out to the clients.",
                               partition_words);
  fields.integer(prefix + ".clients", options.num_clients, "Number of clients.", {.min = 1, .max = 100000});
  fields.number(prefix + ".quantity_beta", options.quantity_beta,
                "quantity-skew: concentration of the Dirichlet distribution of client sizes.", beta);
  fields.numbers(prefix + ".label_betas", options.label_betas,
                 "label-dirichlet: concentrations, alternating over the clients.", beta);
  fields.number(prefix + ".specialized_share", options.specialized_share,
                "specialized: part of a client's samples that comes from its own class.", {.min = 0, .max = 1});
  fields.integer(prefix + ".chunk_min", options.chunk_min, "random-chunks: least samples a chunk.",
                 {.min = 1, .max = many});
  fields.integer(prefix + ".chunk_max", options.chunk_max, "random-chunks: most samples a chunk.",
                 {.min = 1, .max = many});
  fields.integer(prefix + ".min_samples", options.min_samples,
                 "Drawn again, at most 1,000 times, until every client has so many samples.", {.min = 1, .max = many});
}

Partition partition(const Tensor& labels, std::int64_t num_classes, const PartitionOptions& options, Seed seed) {
  check(options);
  Indices everything(static_cast<std::size_t>(labels.size(0)));
  std::iota(everything.begin(), everything.end(), std::int64_t{0});
  std::vector<Indices> pools = by_class(labels, num_classes, everything);
  if (options.kind == PartitionKind::quantity_skew) pools = {std::move(everything)};
  const Table table{class_sizes(pools), static_cast<std::size_t>(options.num_clients)};

  const bool takes_chunks = options.kind == PartitionKind::random_chunks;
  const std::int64_t needed = takes_chunks ? std::max(options.min_samples, options.chunk_min) : options.min_samples;
  const int num_draws = has_random_counts(options.kind) ? most_draws : 1;
  std::int64_t best = 0;
  for (int draw = 0; draw < num_draws; ++draw) {
    const Seed stream = seed.child("counts").child(static_cast<std::uint64_t>(draw));
    const Counts counts = draw_counts(table, options, generator(stream));
    const std::int64_t smallest = smallest_client(counts);
    if (smallest >= needed) return deal(std::move(pools), counts, seed.child("deal"));
    best = std::max(best, smallest);
  }
  throw Error(Errc::usage,
              fmt::format("{}: in {} the smallest client has {} samples, and {} are needed; take fewer clients, more "
                          "samples or {}",
                          settings_text(options, labels.size(0)),
                          num_draws == 1 ? "it" : fmt::format("the best of {} draws", num_draws), best, needed,
                          takes_chunks ? "smaller chunks" : "a lower min_samples"));
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

}  // namespace headstart::learn
