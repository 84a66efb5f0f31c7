#include <unistd.h>

#include <iostream>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "client/config.hpp"
#include "experiments/lab/commands.hpp"
#include "experiments/lab/signals.hpp"
#include "experiments/lab/simulation.hpp"
#include "server/operations/live_view.hpp"
#include "server/phases/run_terms.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/learn/partition/manifest.hpp"

namespace headstart::lab {

namespace {

struct SimulationSettings {
  server::ServerConfig server;
  std::string store;
  client::Sharing share_model = client::Sharing::server;
  client::MetricSharing share_metrics = client::MetricSharing::sum;
  std::int64_t compute_threads = 0;
  Fields fields;
};

/// The worker of share `index` of the manifest, as a client process of the same name would build it.
SimulatedClient client_of(const SimulationSettings& settings, const learn::Dataset& train,
                          const learn::Manifest& manifest, std::size_t index) {
  const std::string name = fmt::format("silo-{}", index);
  client::SiloOptions options{
      .name = name, .device = settings.server.device, .own_model = {}, .script = {}, .store = {}};
  options.script = settings.server.terms.model.script_file();
  options.shares_with_peers = settings.share_model == client::Sharing::peers;
  options.withholds_model = settings.share_model == client::Sharing::answers;
  options.shows_metrics = settings.share_metrics == client::MetricSharing::silo;
  if (!settings.store.empty()) options.store = settings.store;
  return {name, std::make_unique<client::LocalWorker>(options, train.part(manifest.clients[index])), {}};
}

int run_simulation(const SimulationSettings& settings) {
  const server::ServerConfig& config = settings.server;
  server::check(config);
  set_up_log("lab", config.log, config.log_format);
  learn::use_threads(config.threads);
  const learn::KeepFreedMemory keep_freed_memory;
  if (config.manifest.empty())
    throw Error(Errc::usage, "data.manifest is needed: who holds which samples (headstart-lab partition)");
  const learn::Dataset train = learn::load_dataset(config.data, learn::Split::train);
  server::CentralData data = server::load_central_data(config, train);
  for (const std::string& remark : data.remarks) spdlog::warn("data: {}", remark);
  (void)server::run_terms(config, data);  // refused before there is a folder
  const learn::Manifest manifest = learn::load_manifest(config.manifest);
  learn::check_fits(manifest, train, learn::Split::train, config.manifest);
  if (static_cast<std::int64_t>(manifest.clients.size()) != config.federation.num_clients) {
    throw Error(Errc::usage, fmt::format("federation.clients {}: {} has {} clients", config.federation.num_clients,
                                         config.manifest, manifest.clients.size()));
  }
  std::vector<SimulatedClient> clients;
  for (std::size_t i = 0; i < manifest.clients.size(); ++i) clients.push_back(client_of(settings, train, manifest, i));

  server::RunFolder folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  server::LiveView view(std::cout,
                        ::isatty(STDOUT_FILENO) == 1 ? server::ViewStyle::terminal : server::ViewStyle::plain,
                        std::chrono::steady_clock::now);
  const auto num_threads = settings.compute_threads > 0 ? static_cast<std::size_t>(settings.compute_threads)
                                                        : std::max(1U, std::thread::hardware_concurrency());
  net::RealTime time(std::chrono::steady_clock::now);
  std::optional<net::StopSignals> signals;
  simulate(
      config, std::move(data), folder, view, std::move(clients), num_threads, time,
      [&signals](std::function<void()> stop) { signals.emplace(stop_signals(), std::move(stop), leave_at_once()); });
  view.finish("done: " + config.folder + "/summary.json, final.safetensors");
  return 0;
}

}  // namespace

Command add_simulate(CLI::App& app) {
  CLI::App* command = app.add_subcommand("simulate", "Runs server and clients of one federation in this process");
  const auto settings = std::make_shared<SimulationSettings>();
  server::declare_fields(settings->fields, settings->server);
  settings->fields.group("store", "Where pre-trained models are kept");
  settings->fields.path("store.pretrained", settings->store,
                        "Folder that keeps the clients' pre-trained models for later runs; empty: none.");
  settings->fields.choice("share_model", settings->share_model,
                          "Whom every client's pre-trained model may reach: the server alone, or other silos too.",
                          Choices<client::Sharing>(client::sharing_words));
  settings->fields.choice(
      "share_metrics", settings->share_metrics,
      "How every client's own figures of a round's model are recorded: in the sum over all alone, or "
      "also by its name.",
      Choices<client::MetricSharing>(client::metric_sharing_words));
  settings->fields.group("simulate", "How the simulation uses this machine");
  settings->fields.integer("simulate.threads", settings->compute_threads,
                           "Computations at the same time; 0: one a core.", {0, 1024});
  add_settings(*command, settings->fields,
               {"data.manifest", "data.set", "data.path", "run.folder", "federation.clients", "federation.rounds",
                "model.name", "start.model", "validation.source", "share_model"});
  return {command, [settings] { return run_simulation(*settings); }};
}

}  // namespace headstart::lab
