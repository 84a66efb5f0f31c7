// What a partition scheme decides: how many samples of each class a client gets. One file and one row of
// partition_schemes() each. Private to partition/, but for who adds a scheme of his own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/learn/partition/partition.hpp"

namespace headstart::learn {

/// [clients][pools]: how many samples of each pool a client takes.
using Counts = std::vector<std::vector<std::int64_t>>;

/// What there is to share out, and to whom. A pool is a class, or all samples where PartitionScheme::is_one_pool.
struct Pools {
  std::vector<std::int64_t> sizes;
  std::size_t num_clients = 0;

  [[nodiscard]] std::size_t size() const { return sizes.size(); }
  [[nodiscard]] Counts zeros() const { return Counts(num_clients, std::vector<std::int64_t>(size(), 0)); }
};

struct PartitionScheme {
  std::string_view name;  ///< "label-dirichlet": the word of partition.kind.
  /// The sum over clients is at most the pool's size; what is less stays unused.
  Counts (*draw)(const Pools& pools, const PartitionOptions& options, const at::Generator& random);
  /// Its own settings, as a message names them: "chunk_min 100, chunk_max 500"; empty: it has none.
  std::string (*settings)(const PartitionOptions& options) = [](const PartitionOptions&) { return std::string(); };
  /// A draw that gives a client fewer samples is made again, or refused.
  std::int64_t (*least)(const PartitionOptions& options) = [](const PartitionOptions& o) { return o.min_samples; };
  std::string_view advice =
      "a lower min_samples";  ///< What else helps where no draw does: "take fewer clients, ... or".
  bool is_random = false;     ///< Another draw may give other counts.
  bool is_one_pool = false;   ///< Classes play no part.
};

extern const PartitionScheme uniform_scheme, quantity_skew_scheme, specialized_scheme, random_chunks_scheme,
    label_dirichlet_scheme, primary_scheme;

}  // namespace headstart::learn
