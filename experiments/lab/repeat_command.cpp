#include <algorithm>
#include <iostream>
#include <memory>

#include <fmt/format.h>

#include "experiments/lab/commands.hpp"
#include "experiments/lab/pair_study.hpp"
#include "experiments/lab/peer_study.hpp"
#include "experiments/lab/signals.hpp"
#include "experiments/lab/study_command.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::lab {

namespace {

struct RepeatCommand {
  std::string file;
  std::string models;
  std::string data;
  std::vector<std::string> keys;
};

StudyData data_of(const RepeatCommand& command, const StudyStore& store, const DoneCell& done) {
  learn::DataSource source =
      is_peer_cell(done.cell) ? peer_cell_of(done.cell).settings.data : pair_cell_of(done.cell).settings.data;
  if (!command.data.empty()) source.path = command.data;
  if (!source.path.empty() && !is_there(source.path, Errc::data)) {
    throw Error(Errc::data, fmt::format("{}: the study's data are not there; --data says where they are", source.path));
  }
  StudyData data = load_study_data(source);
  require_data_of(store.settings(), data, command.file);
  return data;
}

int run_repeat(const RepeatCommand& command) {
  const StudyStore store(command.file);
  std::vector<DoneCell> chosen;
  store.for_each_done([&](const DoneCell& done) {
    if (std::ranges::find(command.keys, done.cell.key) != command.keys.end()) chosen.push_back(done);
  });
  if (chosen.size() != command.keys.size()) {
    throw Error(Errc::usage, fmt::format("{}: {} of the {} cells named are done there; headstart-lab table lists them",
                                         command.file, chosen.size(), command.keys.size()));
  }
  const learn::KeepFreedMemory keep_freed_memory;
  const StudyData data = data_of(command, store, chosen.front());
  std::stop_source stop;
  const net::StopSignals signals(
      stop_signals(), [&stop] { stop.request_stop(); }, leave_at_once());
  std::int64_t num_different = 0;
  for (const DoneCell& done : chosen) {
    const auto compute = is_peer_cell(done.cell) ? compute_peer_cell : compute_pair_cell;
    const CellResult again = compute(done.cell, data, models_beside(command.file, command.models),
                                     std::chrono::steady_clock::now, stop.get_token());
    const bool is_same = again.metrics == done.result.metrics;
    num_different += is_same ? 0 : 1;
    std::cout << fmt::format("{}: {}\n", done.cell.key, is_same ? "the same" : "different");
    if (is_same) continue;
    std::cout << fmt::format("  stored, by {}: {}\n  now, by {}: {}\n", done.result.version, done.result.metrics.dump(),
                             again.version, again.metrics.dump());
  }
  if (num_different == 0) return 0;
  throw Error(Errc::data, fmt::format("{} of {} cells came out differently", num_different, chosen.size()));
}

}  // namespace

Command add_repeat(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("repeat", "Computes cells of a study anew, from their rows, and compares");
  const auto command = std::make_shared<RepeatCommand>();
  add_path(*sub, "--study", command->file, "Database of the study")->required();
  sub->add_option("cells", command->keys, "Keys of cells, as headstart-lab table lists them")->required();
  add_path(*sub, "--models", command->models, "Folder of pre-trained models (default: NAME.models)");
  add_path(*sub, "--data", command->data, "Folder of the study's data (default: where they were when it was computed)");
  return {sub, [command] { return run_repeat(*command); }};
}

}  // namespace headstart::lab
