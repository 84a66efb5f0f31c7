#include <iostream>

#include <fmt/format.h>

#include "experiments/lab/commands.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/partition/manifest.hpp"

namespace headstart::lab {

namespace {

struct PartitionSettings {
  learn::DataSource data;
  learn::DrawOptions draws;
  learn::PartitionOptions partition;
  std::int64_t seed = 1;
  std::string out;
  Fields fields;
};

int draw(const PartitionSettings& settings) {
  if (settings.out.empty()) throw Error(Errc::usage, "--out FILE is needed: the manifest to write");
  if (is_there(settings.out, Errc::storage)) {
    throw Error(Errc::storage, settings.out + ": exists already and is never overwritten; choose another file");
  }
  const learn::Dataset train = learn::load_dataset(settings.data, learn::Split::train);
  const learn::Dataset test = learn::load_dataset(settings.data, learn::Split::test);
  const learn::Manifest manifest =
      learn::draw_manifest(train, test, settings.draws, settings.partition, static_cast<std::uint64_t>(settings.seed));
  learn::save_manifest(manifest, settings.out);
  std::cout << learn::summary_table(manifest) << "written: " << settings.out << '\n';
  return 0;
}

}  // namespace

Command add_partition(CLI::App& app) {
  CLI::App* command = app.add_subcommand("partition", "Draws who holds which samples and writes the manifest");
  const auto settings = std::make_shared<PartitionSettings>();
  learn::declare_fields(settings->fields, "data", settings->data);
  learn::declare_fields(settings->fields, "draw", settings->draws);
  learn::declare_fields(settings->fields, "partition", settings->partition);
  settings->fields.integer("seed", settings->seed, "Seed of the draws and the partition.", {0, 9007199254740992.0});
  add_settings(
      *command, settings->fields,
      {"data.set", "data.path", "partition.kind", "partition.clients", "draw.validation", "draw.public_large", "seed"});
  add_path(*command, "--out", settings->out, "Manifest to write; an existing file is never overwritten");
  return {command, [settings] { return draw(*settings); }};
}

}  // namespace headstart::lab
