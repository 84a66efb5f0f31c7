// Reaching a server that is not there yet, or not there any more.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "shared/base/clock.hpp"
#include "shared/base/seed.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::net {

struct RedialOptions {
  std::chrono::milliseconds patience = std::chrono::minutes(1);  ///< From the first failure to the last attempt.
  std::chrono::milliseconds first_pause = std::chrono::milliseconds(500);
  std::chrono::milliseconds longest_pause = std::chrono::seconds(30);
};

/// The pause after failed attempt `attempt` (from 1): first_pause, doubled with each attempt up to longest_pause, of
/// which a random half is taken off, so that the clients of a server that comes back do not all come at once.
std::chrono::milliseconds pause_after(const RedialOptions& options, int attempt, Seed seed);

/// connect(), tried again while it fails with Errc::network and patience lasts; any other failure ends it, as another
/// attempt would meet the same. `tell(reason, pause)` before each pause. Throws what the last attempt threw.
Task<std::unique_ptr<MessageChannel>> connect_patiently(
    asio::any_io_executor executor, Url url, WebSocketOptions options, RedialOptions redial, Seed seed, Clock clock,
    std::function<void(const std::string&, std::chrono::milliseconds)> tell);

}  // namespace headstart::net
