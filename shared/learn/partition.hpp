// Who holds which samples: the five partitions of the study, the draws made before them, and the manifest of both.
// Source of the partitions: Alballa & Canini 2024 (arXiv 2402.14922), section III; open points as in the comments.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "shared/base/fields.hpp"
#include "shared/base/seed.hpp"
#include "shared/learn/data.hpp"

namespace headstart::learn {

enum class PartitionKind { uniform, quantity_skew, specialized, random_chunks, label_dirichlet };
inline constexpr std::pair<PartitionKind, std::string_view> partition_words[] = {
    {PartitionKind::uniform, "uniform"},
    {PartitionKind::quantity_skew, "quantity-skew"},
    {PartitionKind::specialized, "specialized"},
    {PartitionKind::random_chunks, "random-chunks"},
    {PartitionKind::label_dirichlet, "label-dirichlet"}};

struct PartitionOptions {
  PartitionKind kind = PartitionKind::label_dirichlet;
  std::int64_t num_clients = 10;
  double quantity_beta = 0.5;                    ///< Dirichlet concentration of client sizes (quantity-skew).
  std::vector<double> label_betas = {0.1, 0.5};  ///< Alternating over clients (label-dirichlet).
  double specialized_share = 0.91;               ///< Part of a client's samples from its own class (specialized).
  std::int64_t chunk_min = 100;                  ///< random-chunks: samples a chunk, U[chunk_min, chunk_max].
  std::int64_t chunk_max = 500;
  std::int64_t min_samples = 10;  ///< Re-drawn, at most 1,000 times, until every client has so many.
};

/// Sizes of the stratified, disjoint draws made before the partition, in this order; the rest of the training split
/// (or `clients` samples of it, when positive) goes to the clients. `test` limits the test split (0: all of it).
struct DrawOptions {
  std::int64_t validation = 600;
  std::int64_t public_large = 5000;
  std::int64_t public_small = 500;
  std::int64_t public_labeled = 500;
  std::int64_t clients = 6000;
  std::int64_t test = 2000;
};

/// "KEY.kind", "KEY.clients", ... under `prefix`.
void declare_fields(Fields& fields, const std::string& prefix, PartitionOptions& options);
void declare_fields(Fields& fields, const std::string& prefix, DrawOptions& options);

/// Sample indices of each client, over labels of the samples to be split: int64 values into 0..labels.size()-1.
struct Partition {
  std::vector<std::vector<std::int64_t>> clients;  ///< Ascending within a client; disjoint.
  std::vector<std::int64_t> unused;                ///< What no client took (random-chunks only).
};

/// labels: int64 [n]. Throws Error(usage) naming the settings and the best draw's minimum where no draw gives every
/// client `min_samples`.
Partition partition(const Tensor& labels, std::int64_t num_classes, const PartitionOptions& options, Seed seed);

/// `count` of `candidates` with every class in proportion to its share among them (largest remainders, ties to the
/// lower class), ascending. Throws Error(usage) where there are fewer candidates than `count`.
std::vector<std::int64_t> stratified_draw(const Tensor& labels, std::int64_t num_classes,
                                          const std::vector<std::int64_t>& candidates, std::int64_t count, Seed seed);

/// A partition and its draws over one data set, as kept in a file. Indices are into the training split, but for `test`.
/// Every training sample is in exactly one list: what nobody was given is in `unused`.
struct Manifest {
  std::string dataset;       ///< Dataset::name.
  std::string train_digest;  ///< Dataset::digest() of the training split.
  std::string test_digest;
  std::int64_t num_classes = 0;
  std::uint64_t seed = 0;
  nlohmann::json settings;  ///< The resolved partition and draw settings.
  std::vector<std::int64_t> validation, public_large, public_small, public_labeled, unused, test;
  std::vector<std::vector<std::int64_t>> clients;
  std::vector<std::vector<std::int64_t>> class_counts;  ///< [clients][classes], for tables and pictures.
};

/// The draws depend on the seed and DrawOptions alone: every kind of partition of one seed has the same validation,
/// public, client and test samples. Throws Error(usage): more samples wanted than there are, or as partition() does;
/// Error(data): fewer than two classes.
Manifest draw_manifest(const Dataset& train, const Dataset& test, const DrawOptions& draws,
                       const PartitionOptions& options, std::uint64_t seed);

/// A manifest as its file has it.
std::string manifest_text(const Manifest& manifest);
/// Reads what manifest_text() writes; `name` tells where it comes from. Throws Error(data) naming it and the key: not a
/// manifest, an index twice or negative, a client without samples.
Manifest parse_manifest(std::string_view text, const std::string& name);
/// Written atomically. Throws Error(storage).
void save_manifest(const Manifest& manifest, const std::filesystem::path& file);
/// Throws as parse_manifest() does, or where the file cannot be read.
Manifest load_manifest(const std::filesystem::path& file);
/// Throws Error(data), naming `file`, where the manifest is of another data set or size.
void check_fits(const Manifest& manifest, const Dataset& dataset, Split split, const std::string& file);

/// A table a person reads: a row a client, samples per class, totals; then the draws.
std::string summary_table(const Manifest& manifest);

}  // namespace headstart::learn
