#include "server/announcement.hpp"

#include <boost/asio/ip/address.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace headstart::server {

namespace {

std::string who_may_join(const ServerConfig& config) {
  if (!config.allowed_clients.empty()) return "those named in " + config.allowed_clients;
  return config.tls.is_set() ? "all that the authority has certified (listen.allowed is empty)"
                             : "anybody who can reach the port (no tls.*)";
}

std::string reach_of(const ServerConfig& config) {
  boost::system::error_code ignored;
  const auto address = boost::asio::ip::make_address(config.address, ignored);
  return !ignored && address.is_loopback() ? "reached from this machine alone (listen.address)"
                                           : "reached from other machines too (listen.address)";
}

/// "auto: the best of kd, kd+head", "best_local+head".
std::string words_of_start(const FederationOptions& federation, const learn::ModelSpec& model) {
  if (federation.start == StartModel::automatic) {
    return fmt::format("auto: the best of {}", fmt::join(federation.candidates, ", "));
  }
  if (model.is_stated() && federation.start == StartModel::random) return model.state_file();
  return text_of({federation.start, federation.head.start});
}

std::string words_of_data(const ServerConfig& config) {
  const bool has_path = !config.data.path.empty();
  if (!has_path && !config.samples.shape.empty() && !config.federation.central_evaluation) {
    return fmt::format("data: none here; samples of {} in {} classes (data.shape, data.classes)",
                       learn::shape_text(config.samples.shape), config.samples.classes.size());
  }
  return fmt::format("data: {} from {} (data.set, data.path)", config.data.set,
                     has_path ? config.data.path : "where its package puts it");
}

}  // namespace

std::vector<std::string> announcement(const ServerConfig& config, std::uint16_t port) {
  const FederationOptions& federation = config.federation;
  return {
      words_of_data(config),
      fmt::format("clients: {} are waited for (federation.clients), {} updates make a round count "
                  "(federation.min_clients); may join: {}",
                  federation.num_clients, quorum_of(federation), who_may_join(config)),
      fmt::format("round 1 starts from: {} (start.model); then {} rounds of {} (federation.rounds)",
                  words_of_start(federation, config.terms.model), federation.num_rounds, federation.strategy.name),
      fmt::format("listening on {}://{}:{}, {}", config.tls.is_set() ? "wss" : "ws", config.address, port,
                  reach_of(config)),
      fmt::format("run folder: {} (run.folder)", config.folder),
  };
}

}  // namespace headstart::server
