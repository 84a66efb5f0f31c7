// How long the server waits for a client.
#pragma once

#include <chrono>

#include "server/config/federation_options.hpp"

namespace headstart::server {

/// All are reset by what they wait for.
struct Patience {
  /// Without a byte of a task's answer, progress reports included, the task is given up.
  std::chrono::milliseconds task = std::chrono::minutes(10);
  /// The place of a client whose connection was lost is kept, and tasks wait for it.
  std::chrono::milliseconds absence = std::chrono::minutes(2);
  /// A round, or one phase before the rounds, is over for whoever has not answered by then.
  std::chrono::milliseconds phase = std::chrono::hours(24);
};

Patience patience_of(const Timeouts& timeouts);
std::chrono::milliseconds milliseconds_of(double seconds);

}  // namespace headstart::server
