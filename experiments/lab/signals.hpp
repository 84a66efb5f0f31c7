// What stops a program, for commands that compute in the main thread.
#pragma once

#include <cstdlib>

#include "shared/base/error.hpp"
#include "shared/base/signals.hpp"
#include "shared/net/stop_signals.hpp"

namespace headstart::lab {

/// For net::StopSignals: a computation that does not end in time is left as it is; results are written whole.
inline net::StopOptions leave_at_once() {
  return {.leave = [] { std::_Exit(static_cast<int>(Errc::interrupted)); }};
}

}  // namespace headstart::lab
