#include <iostream>
#include <numeric>

#include <fmt/format.h>

#include "experiments/lab/commands.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/partition/manifest.hpp"

namespace headstart::lab {

namespace {

struct ExportSettings {
  learn::DataSource data;
  std::string manifest;
  std::int64_t client = -1;
  bool wants_test = false;
  std::string out;
  Fields fields;
};

std::vector<std::int64_t> client_samples(const learn::Manifest& manifest, const ExportSettings& settings) {
  const auto num_clients = static_cast<std::int64_t>(manifest.clients.size());
  if (settings.client >= num_clients) {
    throw Error(Errc::usage, fmt::format("--client {}: {} has clients 0 to {}", settings.client, settings.manifest,
                                         num_clients - 1));
  }
  return manifest.clients[static_cast<std::size_t>(settings.client)];
}

std::vector<std::int64_t> test_samples(const learn::Manifest& manifest, const learn::Dataset& test) {
  if (!manifest.test.empty()) return manifest.test;
  std::vector<std::int64_t> all(static_cast<std::size_t>(test.size()));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

int export_samples(const ExportSettings& settings) {
  if (settings.out.empty()) throw Error(Errc::usage, "--out FOLDER is needed: where the files are written");
  if ((settings.client >= 0) == settings.wants_test) {
    throw Error(Errc::usage, "name what to export: --client NUMBER, or --test");
  }
  const learn::Split split = settings.wants_test ? learn::Split::test : learn::Split::train;
  const learn::Manifest manifest = learn::load_manifest(settings.manifest);
  const learn::Dataset dataset = learn::load_dataset(settings.data, split);
  learn::check_fits(manifest, dataset, split, settings.manifest);
  const std::vector<std::int64_t> samples =
      settings.wants_test ? test_samples(manifest, dataset) : client_samples(manifest, settings);
  learn::save_tensors(dataset, samples, split, settings.out);
  std::cout << fmt::format("{} samples written to {}\n", samples.size(), settings.out);
  return 0;
}

}  // namespace

Command add_export(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "export", "Writes a client's share of a partition, or its test set, as NumPy files (data set 'tensors')");
  const auto settings = std::make_shared<ExportSettings>();
  learn::declare_fields(settings->fields, "data", settings->data);
  add_settings(*command, settings->fields);
  add_path(*command, "--manifest", settings->manifest, "Manifest of the partition (headstart-lab partition)")
      ->required();
  command->add_option("--client", settings->client, "The client whose training samples are written, from 0")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--test", settings->wants_test, "Write the test set instead");
  add_path(*command, "--out", settings->out, "Folder for the files; samples that are there are never overwritten");
  return {command, [settings] { return export_samples(*settings); }};
}

}  // namespace headstart::lab
