// Who holds which samples: the partitions of the study.
// Sources: Alballa & Canini 2024 (arXiv 2402.14922), section III; primary classes: Zhmoginov et al. 2023 (CVPR), as the
// decentralised distillation of Molo et al. uses them. Open points as in the comments.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "shared/base/fields.hpp"
#include "shared/base/seed.hpp"
#include "shared/learn/data/data_set.hpp"

namespace headstart::learn {

struct PartitionScheme;

struct PartitionOptions {
  std::string kind = "label-dirichlet";  ///< Of partition_words().
  std::int64_t num_clients = 10;
  double quantity_beta = 0.5;                    ///< Dirichlet concentration of client sizes (quantity-skew).
  std::vector<double> label_betas = {0.1, 0.5};  ///< Alternating over clients (label-dirichlet).
  double specialized_share = 0.91;               ///< Part of a client's samples from its own class (specialized).
  std::int64_t chunk_min = 100;                  ///< random-chunks: samples a chunk, U[chunk_min, chunk_max].
  std::int64_t chunk_max = 500;
  double primary_skew = 100;  ///< primary: s, a client gets 1 + s times as much of a class of its own; 0: by chance.
  std::int64_t min_samples = 10;  ///< Re-drawn, at most 1,000 times, until every client has so many.
};

/// One row a scheme, in the order of the help.
std::span<const PartitionScheme* const> partition_schemes();
/// Their names.
std::vector<std::string> partition_words();

/// "KEY.kind", "KEY.clients", ... under `prefix`.
void declare_fields(Fields& fields, const std::string& prefix, PartitionOptions& options);

/// Sample indices of each client, over labels of the samples to be split: int64 values into 0..labels.size()-1.
struct Partition {
  std::vector<std::vector<std::int64_t>> clients;  ///< Ascending within a client; disjoint.
  std::vector<std::int64_t> unused;                ///< What no client took (random-chunks only).
};

/// labels: int64 [n]. Throws Error(usage) naming the settings and the best draw's minimum where no draw gives every
/// client `min_samples`.
Partition partition(const Tensor& labels, std::int64_t num_classes, const PartitionOptions& options, Seed seed);

/// The same by a scheme that need not be in the table.
Partition partition(const Tensor& labels, std::int64_t num_classes, const PartitionOptions& options, Seed seed,
                    const PartitionScheme& scheme);

}  // namespace headstart::learn
