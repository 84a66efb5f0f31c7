// When to try again to reach a server that is not there yet, or not there any more.
#pragma once

#include <chrono>

#include "shared/base/seed.hpp"

namespace headstart::net {

struct RedialOptions {
  std::chrono::milliseconds patience = std::chrono::minutes(1);        ///< From the first failure to the last attempt.
  std::chrono::milliseconds patience_once_in = std::chrono::hours(1);  ///< The same for who was there already.
  std::chrono::milliseconds first_pause = std::chrono::milliseconds(500);
  std::chrono::milliseconds longest_pause = std::chrono::seconds(30);
};

/// The pause after failed attempt `attempt` (from 1): first_pause, doubled with each attempt up to longest_pause, of
/// which a random half is taken off, so that the clients of a server that comes back do not all come at once.
std::chrono::milliseconds pause_after(const RedialOptions& options, int attempt, Seed seed);

}  // namespace headstart::net
