#include "server/central_data.hpp"

#include <fmt/format.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/partition.hpp"

namespace headstart::server {

namespace {

const std::vector<std::int64_t>& needed(const std::vector<std::int64_t>& indices, const ServerConfig& config,
                                        std::string_view who, std::string_view what, std::string_view setting) {
  if (indices.empty()) {
    throw Error(Errc::usage, fmt::format("{} needs a {} set, and the manifest {} has none; draw one with {} above 0",
                                         who, what, config.manifest, setting));
  }
  return indices;
}

/// Every training sample is in one of the manifest's lists.
std::int64_t num_training_samples(const learn::Manifest& manifest) {
  std::int64_t sum = 0;
  for (const auto* list : {&manifest.validation, &manifest.public_large, &manifest.public_small,
                           &manifest.public_labeled, &manifest.unused}) {
    sum += std::ssize(*list);
  }
  for (const auto& client : manifest.clients) sum += std::ssize(client);
  return sum;
}

}  // namespace

CentralData load_central_data(const ServerConfig& config, std::optional<learn::Dataset> train) {
  const FederationOptions& federation = config.federation;
  const bool needs_validation = federation.validation == ValidationSource::server;
  const bool needs_public =
      federation.strategy == Strategy::feddf ||
      (federation.start == StartModel::kd && federation.consolidation.transfer != TransferSet::student);
  constexpr std::string_view who_validates = "validation.source server";
  const std::string who_distils =
      federation.strategy == Strategy::feddf
          ? "federation.strategy feddf"
          : fmt::format("consolidation.transfer {}",
                        word_of(Choices<TransferSet>(transfer_words), federation.consolidation.transfer));
  if (config.manifest.empty() && (needs_validation || needs_public)) {
    throw Error(Errc::usage, fmt::format("{} needs data.manifest: it says which samples are the {} set",
                                         needs_public ? who_distils : std::string(who_validates),
                                         needs_public ? "public" : "validation"));
  }

  CentralData data;
  const learn::Dataset test = learn::load_dataset(config.data, learn::Split::test);
  data.task = test.task();
  data.dataset = test.name;
  learn::Manifest manifest;
  if (!config.manifest.empty()) {
    manifest = learn::load_manifest(config.manifest);
    learn::check_fits(manifest, test, learn::Split::test, config.manifest);
    data.manifest_digest = sha256_hex_of_file(config.manifest);
    data.num_training = num_training_samples(manifest);
  }
  if (federation.central_evaluation) data.test = manifest.test.empty() ? test.all() : test.select(manifest.test);
  // Where there is one: the average's BatchNorm statistics are re-estimated on it, and student data falls back to it.
  const bool could_use_public = federation.start == StartModel::average || federation.start == StartModel::kd;
  const bool wants_public = needs_public || (could_use_public && !manifest.public_large.empty());
  if (!needs_validation && !wants_public) return data;

  if (!train) train = learn::load_dataset(config.data, learn::Split::train);
  learn::check_fits(manifest, *train, learn::Split::train, config.manifest);
  if (needs_validation) {
    data.validation =
        train->select(needed(manifest.validation, config, who_validates, "validation", "draw.validation"));
  }
  if (wants_public) {
    const bool is_small = federation.consolidation.transfer == TransferSet::public_small;
    const auto& indices = is_small
                              ? needed(manifest.public_small, config, who_distils, "small public", "draw.public_small")
                              : needed(manifest.public_large, config, who_distils, "large public", "draw.public_large");
    data.transfer = train->select(indices).without_labels();
  }
  return data;
}

}  // namespace headstart::server
