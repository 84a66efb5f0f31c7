// What a server is about to do, said before it waits for its clients.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/config/server_config.hpp"

namespace headstart::server {

/// A line each for data, clients, start and rounds, address, folder, with the settings that decide it. `port`: where
/// the server listens.
std::vector<std::string> announcement(const ServerConfig& config, std::uint16_t port);

}  // namespace headstart::server
