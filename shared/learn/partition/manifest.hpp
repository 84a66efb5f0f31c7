// A partition and the draws made before it, as kept in a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "shared/learn/partition/partition.hpp"

namespace headstart::learn {

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

/// "KEY.validation", "KEY.clients", ... under `prefix`.
void declare_fields(Fields& fields, const std::string& prefix, DrawOptions& options);

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
