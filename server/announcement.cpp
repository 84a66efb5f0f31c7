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
std::string words_of_start(const FederationOptions& federation) {
  if (federation.start == StartModel::automatic) {
    return fmt::format("auto: the best of {}", fmt::join(federation.candidates, ", "));
  }
  return text_of({federation.start, federation.head.start});
}

}  // namespace

std::vector<std::string> announcement(const ServerConfig& config, std::uint16_t port) {
  const FederationOptions& federation = config.federation;
  return {
      fmt::format("data: {} from {} (data.set, data.path)", config.data.set,
                  config.data.path.empty() ? "where its package puts it" : config.data.path),
      fmt::format("clients: {} are waited for (federation.clients), {} updates make a round count "
                  "(federation.min_clients); may join: {}",
                  federation.num_clients, quorum_of(federation), who_may_join(config)),
      fmt::format("round 1 starts from: {} (start.model); then {} rounds of {} (federation.rounds)",
                  words_of_start(federation), federation.num_rounds, federation.strategy.name),
      fmt::format("listening on {}://{}:{}, {}", config.tls.is_set() ? "wss" : "ws", config.address, port,
                  reach_of(config)),
      fmt::format("run folder: {} (run.folder)", config.folder),
  };
}

}  // namespace headstart::server
