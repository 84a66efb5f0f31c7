#include "shared/learn/partition/partition.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/data/stratified.hpp"
#include "shared/learn/partition/scheme.hpp"

namespace headstart::learn {

namespace {

using Indices = std::vector<std::int64_t>;

constexpr int most_draws = 1000;

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

/// The settings that this scheme reads, as a message names them.
std::string settings_text(const PartitionScheme& scheme, const PartitionOptions& options, std::int64_t num_samples) {
  const std::string own = scheme.settings(options);
  return fmt::format("partition {} of {} samples: clients {}{}{}, min_samples {}", scheme.name, num_samples,
                     options.num_clients, own.empty() ? "" : ", ", own, options.min_samples);
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
  require(options.primary_skew >= 0 && std::isfinite(options.primary_skew),
          fmt::format("primary_skew {}, expected 0 or more", options.primary_skew));
  require(options.chunk_min >= 1, fmt::format("chunk_min {}, expected at least 1", options.chunk_min));
  require(options.chunk_max >= options.chunk_min,
          fmt::format("chunk_max {} is below chunk_min {}", options.chunk_max, options.chunk_min));
}

}  // namespace

std::span<const PartitionScheme* const> partition_schemes() {
  static constexpr std::array schemes = {&uniform_scheme,       &quantity_skew_scheme,   &specialized_scheme,
                                         &random_chunks_scheme, &label_dirichlet_scheme, &primary_scheme};
  return schemes;
}

std::vector<std::string> partition_words() {
  std::vector<std::string> words;
  for (const PartitionScheme* scheme : partition_schemes()) words.emplace_back(scheme->name);
  return words;
}

void declare_fields(Fields& fields, const std::string& prefix, PartitionOptions& options) {
  fields.group(prefix, "How samples are shared out to the clients");
  // Below 0.01 the gamma variates of a Dirichlet draw vanish in double precision.
  constexpr Bounds beta{.min = 0.01, .max = 1e6};
  constexpr double many = 1e9;
  fields.word(prefix + ".kind", options.kind, "How the samples are shared out to the clients.", partition_words());
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
  fields.number(
      prefix + ".primary_skew", options.primary_skew,
      "primary: each class is primary for one client or more, and a sample goes to such a client 1 + s times as "
      "likely as to another. 0: to all alike.",
      {.min = 0, .max = 1e9});
  fields.integer(prefix + ".min_samples", options.min_samples,
                 "Drawn again, at most 1,000 times, until every client has so many samples.", {.min = 1, .max = many});
}

Partition partition(const Tensor& labels, std::int64_t num_classes, const PartitionOptions& options, Seed seed) {
  for (const PartitionScheme* scheme : partition_schemes()) {
    if (scheme->name == options.kind) return partition(labels, num_classes, options, seed, *scheme);
  }
  throw Error(Errc::usage,
              fmt::format("partition.kind '{}': expected one of {}", options.kind, fmt::join(partition_words(), ", ")));
}

Partition partition(const Tensor& labels, std::int64_t num_classes, const PartitionOptions& options, Seed seed,
                    const PartitionScheme& scheme) {
  check(options);
  Indices everything(static_cast<std::size_t>(labels.size(0)));
  std::iota(everything.begin(), everything.end(), std::int64_t{0});
  std::vector<Indices> members = by_class(labels, num_classes, everything);
  if (scheme.is_one_pool) members = {std::move(everything)};
  Pools pools{.num_clients = static_cast<std::size_t>(options.num_clients)};
  for (const Indices& pool : members) pools.sizes.push_back(std::ssize(pool));

  const std::int64_t needed = scheme.least(options);
  const int num_draws = scheme.is_random ? most_draws : 1;
  std::int64_t best = 0;
  for (int draw = 0; draw < num_draws; ++draw) {
    const Seed stream = seed.child("counts").child(static_cast<std::uint64_t>(draw));
    const Counts counts = scheme.draw(pools, options, generator(stream));
    const std::int64_t smallest = smallest_client(counts);
    if (smallest >= needed) return deal(std::move(members), counts, seed.child("deal"));
    best = std::max(best, smallest);
  }
  throw Error(
      Errc::usage,
      fmt::format("{}: in {} the smallest client has {} samples, and {} are needed; take fewer clients, more "
                  "samples or {}",
                  settings_text(scheme, options, labels.size(0)),
                  num_draws == 1 ? "it" : fmt::format("the best of {} draws", num_draws), best, needed, scheme.advice));
}

}  // namespace headstart::learn
