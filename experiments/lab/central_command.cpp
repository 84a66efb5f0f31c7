#include <chrono>
#include <iostream>

#include <fmt/format.h>

#include "experiments/lab/central.hpp"
#include "experiments/lab/commands.hpp"
#include "experiments/lab/signals.hpp"
#include "shared/base/cli.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::lab {

namespace {

struct CentralCommand {
  CentralSettings settings;
  Fields fields;
};

int run_central(const CentralSettings& settings) {
  learn::use_threads(settings.threads);
  const learn::KeepFreedMemory keep_freed_memory;
  std::stop_source stop;
  const net::StopSignals signals(
      stop_signals(), [&stop] { stop.request_stop(); }, leave_at_once());
  const nlohmann::json summary = train_centrally(settings, std::chrono::steady_clock::now, stop.get_token());
  std::cout << fmt::format("trained on {} samples of {} clients; epoch {} of {}: test accuracy {:.2f}%\nwritten: {}\n",
                           summary["num_examples"].get<std::int64_t>(), summary["clients"].get<std::int64_t>(),
                           summary["best_epoch"].get<std::int64_t>(), summary["epochs"].get<std::int64_t>(),
                           100 * summary["accuracy"].get<double>(), settings.folder);
  return 0;
}

}  // namespace

Command add_central(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "central", "Trains one model on the data of all clients together: a reference that no federation can be");
  const auto held = std::make_shared<CentralCommand>();
  declare_fields(held->fields, held->settings);
  add_settings(*command, held->fields, {"data.manifest", "data.set", "data.path", "run.folder", "model.name"});
  return {command, [held] { return run_central(held->settings); }};
}

}  // namespace headstart::lab
