#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <thread>

#include <fmt/format.h>

#include "experiments/lab/commands.hpp"
#include "experiments/lab/pair_study.hpp"
#include "experiments/lab/signals.hpp"
#include "experiments/lab/study_view.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::lab {

namespace {

struct PairsCommand {
  PairStudy study;
  Fields fields;
  std::string file;
  std::string share;
  std::string models;
  std::int64_t num_jobs = 0;
  std::string log = "info";
};

std::filesystem::path models_beside(const std::filesystem::path& file, const std::string& models) {
  return models.empty() ? std::filesystem::path(file).replace_extension(".models") : std::filesystem::path(models);
}

int run_pairs(const PairsCommand& command) {
  set_up_log("lab", command.log);
  check(command.study);
  const Share share = command.share.empty() ? Share() : share_of(command.share);
  // Before the study is made: settings that name no data leave none behind.
  const StudyData data = load_study_data(command.study.settings.data);
  const std::filesystem::path file = command.file;
  if (file.has_parent_path()) make_folders(file.parent_path());
  StudyStore store(file, description_of(command.study, data));

  const learn::KeepFreedMemory keep_freed_memory;
  std::stop_source stop;
  const net::StopSignals signals(
      stop_signals(), [&stop] { stop.request_stop(); }, leave_at_once());
  const bool is_terminal = ::isatty(STDOUT_FILENO) == 1;
  StudyView view(std::cout, is_terminal ? StudyView::Style::terminal : StudyView::Style::plain,
                 std::chrono::steady_clock::now);
  const StudyRunOptions options{.share = share,
                                .num_jobs = command.num_jobs > 0 ? static_cast<std::size_t>(command.num_jobs)
                                                                 : std::max(1U, std::thread::hardware_concurrency()),
                                .models = models_beside(file, command.models)};
  run_pair_study(command.study, data, store, options, view, std::chrono::steady_clock::now, stop.get_token());
  std::cout << pair_summary(store) << "done: " << file.string() << '\n';
  return 0;
}

}  // namespace

Command add_pairs(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("pairs", "Distils between all pairs of pre-trained models, by several methods");
  const auto command = std::make_shared<PairsCommand>();
  declare_fields(command->fields, command->study);
  add_settings(*sub, command->fields,
               {"data.set", "data.path", "partition.clients", "study.partitions", "study.seeds", "study.methods",
                "study.transfers", "model.name"});
  add_path(*sub, "--study", command->file,
           "Database of the study; made where it is missing, gone on with where it is there. Processes on one "
           "machine may share it")
      ->required();
  sub->add_option("--share", command->share,
                  "INDEX/COUNT: do this share of the pairs only, in a database of its own; headstart-lab merge joins "
                  "the shares");
  add_path(*sub, "--models", command->models,
           "Folder that keeps pre-trained models, for other studies and federations too (default: beside the study, "
           "NAME.models)");
  sub->add_option("--jobs", command->num_jobs, "Cells computed at the same time (default: one a core)")
      ->check(CLI::Range(1, 1024));
  sub->add_option("--log", command->log, "trace, debug, info, warn, error, off");
  return {sub, [command] { return run_pairs(*command); }};
}

namespace {

struct RepeatCommand {
  std::string file;
  std::string models;
  std::string data;
  std::vector<std::string> keys;
};

StudyData data_of(const RepeatCommand& command, const StudyStore& store, const DoneCell& done) {
  learn::DataSource source = pair_cell_of(done.cell).settings.data;
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
    const CellResult again = compute_cell(done.cell, data, models_beside(command.file, command.models),
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
