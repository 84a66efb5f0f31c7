#include "experiments/lab/study_command.hpp"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <thread>

#include "experiments/lab/signals.hpp"
#include "experiments/lab/study_view.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/files.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::lab {

void add_study_options(CLI::App& app, StudyOptions& options, const std::string& shared_out) {
  add_path(app, "--study", options.file,
           "Database of the study; made where it is missing, gone on with where it is there. Processes on one "
           "machine may share it")
      ->required();
  app.add_option("--share", options.share,
                 "INDEX/COUNT: do this share of " + shared_out +
                     " only, in a database of its own; headstart-lab merge joins the shares");
  add_path(app, "--models", options.models,
           "Folder that keeps pre-trained models, for other studies and federations too (default: beside the study, "
           "NAME.models)");
  app.add_option("--jobs", options.num_jobs, "Cells computed at the same time (default: one a core)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--log", options.log, "trace, debug, info, warn, error, off");
}

std::filesystem::path models_beside(const std::filesystem::path& file, const std::string& models) {
  return models.empty() ? std::filesystem::path(file).replace_extension(".models") : std::filesystem::path(models);
}

int run_study(const StudyOptions& options, const StudyParts& parts) {
  set_up_log("lab", options.log);
  const Share share = options.share.empty() ? Share() : share_of(options.share);
  // Before the study is made: settings that name no data leave none behind.
  const StudyData data = load_study_data(parts.source);
  const std::filesystem::path file = options.file;
  if (file.has_parent_path()) make_folders(file.parent_path());
  StudyStore store(file, parts.describe(data));

  const learn::KeepFreedMemory keep_freed_memory;
  std::stop_source stop;
  const net::StopSignals signals(
      stop_signals(), [&stop] { stop.request_stop(); }, leave_at_once());
  const bool is_terminal = ::isatty(STDOUT_FILENO) == 1;
  StudyView view(std::cout, is_terminal ? StudyView::Style::terminal : StudyView::Style::plain,
                 std::chrono::steady_clock::now);
  const StudyRunOptions run{.share = share,
                            .num_jobs = options.num_jobs > 0 ? static_cast<std::size_t>(options.num_jobs)
                                                             : std::max(1U, std::thread::hardware_concurrency()),
                            .models = models_beside(file, options.models)};
  parts.run(data, store, run, view, stop.get_token());
  std::cout << parts.summarise(store) << "done: " << file.string() << '\n';
  return 0;
}

}  // namespace headstart::lab
