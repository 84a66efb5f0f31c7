#include "experiments/lab/central.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <torch/types.h>

#include "server/record/metrics_record.hpp"
#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/version.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/learn/data/sample_figures.hpp"
#include "shared/learn/data/sample_terms.hpp"
#include "shared/learn/data/stratified.hpp"
#include "shared/learn/partition/manifest.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::lab {

namespace {

struct CentralSamples {
  learn::Samples training;
  learn::Samples choosing;  ///< Decides which epoch is kept.
  std::string chosen_by;
};

/// All clients' samples, each once, in the order of the data set: whom they were given to plays no part.
std::vector<std::int64_t> samples_of_all(const learn::Manifest& manifest) {
  std::vector<std::int64_t> all;
  for (const std::vector<std::int64_t>& client : manifest.clients) all.insert(all.end(), client.begin(), client.end());
  std::ranges::sort(all);
  return all;
}

CentralSamples split(const learn::Dataset& train, const learn::Manifest& manifest, double held_out, Seed seed) {
  const learn::Samples all = train.select(samples_of_all(manifest));
  if (!manifest.validation.empty()) return {all, train.select(manifest.validation), "validation set of the manifest"};
  const auto [training, choosing] = learn::holdout_split(all.y, held_out, seed.child("held out"));
  return {all.select(training), all.select(choosing), "samples held out of the clients'"};
}

learn::Samples on(const learn::Samples& samples, c10::Device device) {
  return {samples.x.to(device), samples.y.to(device)};
}

nlohmann::json record(const CentralSettings& settings, const std::string& dataset, const c10::Device& device) {
  CentralSettings copy = settings;
  Fields fields;
  declare_fields(fields, copy);
  return {{"program", "headstart"},
          {"version", version()},
          {"config", fields.resolved()},
          {"seed", settings.seed},
          {"architecture", settings.model.architecture()},
          {"dataset", dataset},
          {"manifest_digest", sha256_hex_of_file(settings.manifest)},
          {"reproducible_with", learn::platform_record(device.str())}};
}

/// Those of the settings in place of the set's own, for both splits.
void use_constants(const CentralSettings& settings, learn::Dataset& train, learn::Dataset& test) {
  const auto use = [&](const char* key, const std::vector<double>& given, std::vector<double> learn::Dataset::*kept) {
    if (given.empty()) return;
    const std::int64_t channels = train.task().shape.front();
    if (std::ssize(given) != channels) {
      throw Error(Errc::usage, fmt::format("{}: {} numbers for {} channels", key, given.size(), channels));
    }
    train.*kept = given;
    test.*kept = given;
  };
  use("data.mean", settings.mean, &learn::Dataset::mean);
  use("data.deviation", settings.deviation, &learn::Dataset::deviation);
  if (train.mean.empty() != train.deviation.empty()) {
    throw Error(Errc::usage, "data.mean and data.deviation are given both, or neither");
  }
  const learn::MissingValues missing = train.columns.missing;
  if (missing != learn::MissingValues::refuse && missing != learn::MissingValues::zero && train.mean.empty()) {
    throw Error(Errc::usage, "data.missing mean and indicator fill with data.mean, which is not set");
  }
}

void write(const std::filesystem::path& file, const nlohmann::json& document) {
  write_text_atomically(file, document.dump(2) + "\n");
}

}  // namespace

void declare_fields(Fields& fields, CentralSettings& settings) {
  fields.group("run", "Folder, seed and device of the training");
  fields.path("run.folder", settings.folder, "New folder for run.json and summary.json.");
  fields.integer("run.seed", settings.seed, "Seed of the initial weights and of the samples' order.",
                 {0, 9007199254740992.0});
  fields.integer("run.threads", settings.threads, "LibTorch threads of a computation.", {1, 1024});
  fields.text("run.device", settings.device, "Where to compute: cpu, cuda or auto.");
  learn::declare_fields(fields, "data", settings.data);
  fields.numbers("data.mean", settings.mean,
                 "Per channel, subtracted from the values (uint8 divided by 255); empty: as the data set has it.",
                 {-1e30, 1e30});
  fields.numbers("data.deviation", settings.deviation, "Per channel; values are divided by it after data.mean.",
                 {learn::smallest_deviation, 1e30});
  fields.path("data.manifest", settings.manifest, "Manifest of the partition and its draws (headstart-lab partition).");
  fields.number("data.held_out", settings.held_out,
                "Fraction of the clients' samples that chooses the epoch where the manifest has no validation set.",
                {0, 0.9});
  fields.choice("run.precision", settings.precision, "What layers compute in; see headstart-server.",
                Choices<learn::Precision>(learn::precision_words));
  learn::declare_fields(fields, "model", settings.model);
  learn::declare_fields(fields, "pretrain", settings.training);
}

nlohmann::json train_centrally(const CentralSettings& settings, const Clock& clock, std::stop_token stop) {
  if (settings.manifest.empty()) {
    throw Error(Errc::usage, "data.manifest is needed: whose samples to train on (headstart-lab partition)");
  }
  learn::Dataset train = learn::load_dataset(settings.data, learn::Split::train);
  learn::Dataset test = learn::load_dataset(settings.data, learn::Split::test);
  use_constants(settings, train, test);
  learn::require_alike(train, test);
  const learn::Manifest manifest = learn::load_manifest(settings.manifest);
  learn::check_fits(manifest, train, learn::Split::train, settings.manifest);
  learn::check_fits(manifest, test, learn::Split::test, settings.manifest);
  const c10::Device device = learn::device_of(settings.device);
  learn::require_precision(settings.precision, device);
  const Seed seed = Seed(static_cast<std::uint64_t>(settings.seed)).child("central");
  const CentralSamples samples = split(train, manifest, settings.held_out, seed);
  const auto model =
      learn::in_precision(learn::make_model(settings.model, train.task(), seed.child("model")), settings.precision);
  model->to(device);

  const std::filesystem::path folder = settings.folder;
  make_new_folder(folder);
  write(folder / "run.json", record(settings, train.name, device));
  const TimePoint begin = clock();
  const auto lease = learn::lease_for(*model, seed.child("layers"));
  const learn::PretrainResult result = learn::pretrain(*model, on(samples.training, device),
                                                       on(samples.choosing, device), settings.training, seed, {}, stop);
  const double seconds = seconds_between(begin, clock());
  const learn::Samples measured = manifest.test.empty() ? test.all() : test.select(manifest.test);
  const learn::Evaluation tested =
      learn::evaluate(*model, on(measured, device), train.num_classes, learn::Measures::exact, 256, std::move(stop));
  nlohmann::json summary = {{"central", true},
                            {"clients", manifest.clients.size()},
                            {"num_examples", samples.training.size()},
                            {"epochs", result.num_epochs},
                            {"best_epoch", result.best_epoch},
                            {"epoch_chosen_by", samples.chosen_by},
                            {"validation_examples", samples.choosing.size()},
                            {"validation_accuracy", nullptr},
                            {"accuracy", tested.accuracy()},
                            {"loss", tested.loss()},
                            {"class_accuracy", tested.class_accuracy()},
                            {"metrics", {{"central", server::metrics_record(tested)}}},
                            {"seconds", seconds},
                            {"model_digest", wire::PackedState(result.best).digest()}};
  if (samples.choosing.size() > 0) {
    summary["validation_accuracy"] = result.held_out.accuracy();
  } else {
    summary["epoch_chosen_by"] = "nothing: the last epoch is kept";
  }
  write(folder / "summary.json", summary);
  return summary;
}

}  // namespace headstart::lab
