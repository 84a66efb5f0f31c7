#include "client/make_worker.hpp"

#include <fmt/format.h>

#include "client/keeping_worker.hpp"
#include "client/process_worker.hpp"
#include "shared/base/error.hpp"

namespace headstart::client {

namespace {

std::unique_ptr<Worker> computing_worker(const ClientConfig& config) {
  if (config.worker.command.empty()) {
    return std::make_unique<LocalWorker>(worker_options(config), load_own_data(config));
  }
  const std::pair<std::string_view, bool> others[] = {
      {"data.path", !config.data.path.empty()},   {"data.manifest", !config.manifest.empty()},
      {"model.script", !config.script.empty()},   {"own_model", !config.own_model.empty()},
      {"data.share", config.share >= 0},          {"device", config.device != "cpu"},
      {"store.pretrained", !config.store.empty()}};
  for (const auto& [key, is_set] : others) {
    if (!is_set) continue;
    throw Error(Errc::usage,
                fmt::format("{} and worker.command exclude each other: a worker reads its data and makes its "
                            "model itself",
                            key));
  }
  return std::make_unique<ProcessWorker>(
      ProcessWorkerOptions{.name = config.name,
                           .shares_with_peers = config.share_model == Sharing::peers,
                           .withholds_model = config.share_model == Sharing::answers,
                           .shows_metrics = config.share_metrics == MetricSharing::silo},
      config.worker);
}

}  // namespace

std::unique_ptr<Worker> make_worker(const ClientConfig& config) {
  auto worker = computing_worker(config);
  if (config.keep.empty()) return worker;
  return std::make_unique<KeepingWorker>(std::move(worker), config.keep);
}

}  // namespace headstart::client
