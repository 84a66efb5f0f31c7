#include "server/sessions/patience.hpp"

#include <cmath>

namespace headstart::server {

std::chrono::milliseconds milliseconds_of(double seconds) {
  return std::chrono::milliseconds(std::llround(1000 * seconds));
}

Patience patience_of(const Timeouts& timeouts) {
  return {.task = milliseconds_of(timeouts.task),
          .absence = milliseconds_of(timeouts.absence),
          .phase = milliseconds_of(timeouts.phase)};
}

}  // namespace headstart::server
