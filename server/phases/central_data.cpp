#include "server/phases/central_data.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "server/strategies/strategy.hpp"
#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/data/sample_figures.hpp"
#include "shared/learn/partition/manifest.hpp"

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

/// Whether the settings say it, and no data need be there.
bool is_told_what_a_sample_is(const ServerConfig& config) {
  return learn::known_dataset(config.data) || (!config.samples.classes.empty() && !config.samples.shape.empty());
}

learn::Dataset load_test_split(const ServerConfig& config) {
  if (config.federation.central_evaluation) return learn::load_dataset(config.data, learn::Split::test);
  constexpr std::string_view advice =
      "a server without data (evaluation.central false) is told what a sample is by data.classes and data.shape";
  if (config.data.path.empty()) throw Error(Errc::usage, fmt::format("data set '{}': {}", config.data.set, advice));
  try {
    return learn::load_dataset(config.data, learn::Split::test);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}; {}", error.what(), advice));
  }
}

/// A missing value that is to be the run's mean needs one.
void require_filled(const CentralData& data) {
  const learn::MissingValues missing = data.samples.table.missing;
  const bool needs_mean = missing == learn::MissingValues::mean || missing == learn::MissingValues::indicator;
  if (!needs_mean || data.awaits_statistics || !data.samples.mean.empty()) return;
  throw Error(
      Errc::usage,
      fmt::format("data.missing {} fills with the run's mean, and there is none: set data.statistics federated, "
                  "or data.mean and data.deviation",
                  word_of(Choices<learn::MissingValues>(learn::missing_words), missing)));
}

/// As a model takes them, or before they are normalised.
learn::Samples input_of(const learn::Dataset& dataset, const CentralData& data) {
  return data.awaits_statistics ? learn::stored_input(dataset, data.samples)
                                : learn::model_input(dataset, data.samples);
}

/// Task, terms and figures: of `own`, the samples that the server holds, and what the settings add.
void agree_on_samples(const ServerConfig& config, const learn::Dataset* own, CentralData& data) {
  const SampleSettings& given = config.samples;
  const std::optional<learn::Dataset> known = own == nullptr ? learn::known_dataset(config.data) : std::nullopt;
  const learn::Dataset* shown = own != nullptr ? own : known ? &*known : nullptr;
  std::vector<std::int64_t> shape = given.shape;
  if (shown != nullptr) {
    data.samples = learn::sample_terms(*shown);
    shape = shown->task().shape;
    if (!given.shape.empty() && given.shape != shape) {
      throw Error(Errc::usage, fmt::format("data.shape is {}, samples of data set {} are {}",
                                           learn::shape_text(given.shape), shown->name, learn::shape_text(shape)));
    }
  }
  if (!given.classes.empty()) data.samples.classes = given.classes;
  if (!given.mean.empty()) data.samples.mean = given.mean;
  if (!given.deviation.empty()) data.samples.deviation = given.deviation;
  if (!given.range.empty()) {
    if (shown != nullptr) {
      throw Error(Errc::usage,
                  fmt::format("data.range is for a server without data; those of data set {} say it", shown->name));
    }
    data.samples.range = given.range;
  }
  data.awaits_statistics = config.terms.statistics == plan::StatisticsSource::federated;
  if (data.awaits_statistics) data.samples.mean = data.samples.deviation = {};
  require_filled(data);
  data.task = {std::move(shape), std::ssize(data.samples.classes)};
  if (own != nullptr) {
    const learn::SampleFigures figures = learn::figures_of(*own);
    std::string odd = data.awaits_statistics ? "" : learn::odd_inputs(figures, data.samples);
    if (!odd.empty()) data.remarks.push_back(std::move(odd));
    if (!own->table) data.figures = figures;  // of a table they would show single rows to the silos
  }
  if (const auto twins = learn::names_that_differ_in_case(data.samples.classes)) {
    data.remarks.push_back(fmt::format("classes '{}' and '{}' differ only in upper and lower case; are they two?",
                                       twins->first, twins->second));
  }
  if (own != nullptr && own->class_source == learn::ClassSource::labels && given.classes.empty()) {
    data.remarks.push_back(fmt::format("{} classes, as the largest label says; meta.json or data.classes can name them",
                                       data.samples.classes.size()));
  }
}

void note_missing_classes(CentralData& data) {
  std::vector<std::string> missing;
  const at::Tensor counts = torch::bincount(data.test.y, {}, data.task.num_classes);
  for (std::int64_t label = 0; label < data.task.num_classes; ++label) {
    if (counts[label].item<std::int64_t>() == 0)
      missing.push_back(data.samples.classes[static_cast<std::size_t>(label)]);
  }
  if (missing.empty()) return;
  data.remarks.push_back(
      fmt::format("the test set has no samples of {}: they are not measured", learn::list_text(missing)));
}

/// Which draws of the manifest the run cannot do without, and the settings that want them.
struct Needs {
  bool validation = false;
  bool is_public = false;
  std::string who_validates = "validation.source server";
  std::string who_distils;
};

/// Throws Error(usage) where there is no manifest to have them from.
Needs needs_of(const ServerConfig& config) {
  const FederationOptions& federation = config.federation;
  const StrategyRow& strategy = strategy_row(federation.strategy.name);
  Needs needs;
  needs.validation = federation.validation == ValidationSource::server;
  needs.is_public = strategy.needs_public_set || (may_start_from(federation, StartModel::kd) &&
                                                  federation.consolidation.transfer != TransferSet::student);
  needs.who_distils = strategy.needs_public_set
                          ? fmt::format("federation.strategy {}", strategy.name)
                          : fmt::format("consolidation.transfer {}", word_of(Choices<TransferSet>(transfer_words),
                                                                             federation.consolidation.transfer));
  if (config.manifest.empty() && (needs.validation || needs.is_public)) {
    throw Error(Errc::usage, fmt::format("{} needs data.manifest: it says which samples are the {} set",
                                         needs.is_public ? needs.who_distils : needs.who_validates,
                                         needs.is_public ? "public" : "validation"));
  }
  return needs;
}

}  // namespace

CentralData load_central_data(const ServerConfig& config, std::optional<learn::Dataset> train) {
  const FederationOptions& federation = config.federation;
  const Needs needs = needs_of(config);

  CentralData data;
  data.dataset = config.data.set;
  learn::Manifest manifest;
  if (!config.manifest.empty()) {
    manifest = learn::load_manifest(config.manifest);
    data.manifest_digest = sha256_hex_of_file(config.manifest);
    data.num_training = num_training_samples(manifest);
  }
  // Where there is one: the average's BatchNorm statistics are re-estimated on it, and student data falls back to it.
  const bool could_use_public =
      may_start_from(federation, StartModel::average) || may_start_from(federation, StartModel::kd);
  const bool wants_public = needs.is_public || (could_use_public && !manifest.public_large.empty());

  std::optional<learn::Dataset> test;
  const bool must_show_samples = !train && !needs.validation && !wants_public && !is_told_what_a_sample_is(config);
  if (federation.central_evaluation || must_show_samples) test = load_test_split(config);
  if (test && !config.manifest.empty()) learn::check_fits(manifest, *test, learn::Split::test, config.manifest);
  if (!train && (needs.validation || wants_public)) train = learn::load_dataset(config.data, learn::Split::train);
  if (train && !config.manifest.empty()) learn::check_fits(manifest, *train, learn::Split::train, config.manifest);

  if (train && test) learn::require_alike(*train, *test);
  agree_on_samples(config, test ? &*test : train ? &*train : nullptr, data);
  if (federation.central_evaluation) {
    data.test = input_of(manifest.test.empty() ? *test : test->part(manifest.test), data);
    note_missing_classes(data);
  }
  if (needs.validation) {
    const auto& indices = needed(manifest.validation, config, needs.who_validates, "validation", "draw.validation");
    data.validation = input_of(train->part(indices), data);
  }
  if (wants_public) {
    const bool is_small = federation.consolidation.transfer == TransferSet::public_small;
    const auto& indices =
        is_small ? needed(manifest.public_small, config, needs.who_distils, "small public", "draw.public_small")
                 : needed(manifest.public_large, config, needs.who_distils, "large public", "draw.public_large");
    const learn::Dataset part = train->part(indices);
    if (part.images.scalar_type() == at::kByte) data.public_bytes = part.images;
    data.transfer = input_of(part, data).without_labels();
  }
  return data;
}

void normalise_by(const learn::FeatureScaling& scaling, CentralData& data) {
  data.samples.mean = scaling.mean;
  data.samples.deviation = scaling.deviation;
  for (learn::Samples* samples : {&data.test, &data.validation, &data.transfer}) {
    if (samples->size() == 0) continue;
    learn::normalise(samples->x, scaling.mean, scaling.deviation, data.samples.table.missing);
  }
  data.awaits_statistics = false;
}

}  // namespace headstart::server
