#include "shared/base/signals.hpp"

#include <csignal>

namespace headstart {

std::vector<int> stop_signals() {
  struct sigaction on_hangup {};
  const bool is_ignored = ::sigaction(SIGHUP, nullptr, &on_hangup) == 0 && on_hangup.sa_handler == SIG_IGN;
  return is_ignored ? std::vector{SIGINT, SIGTERM} : std::vector{SIGINT, SIGTERM, SIGHUP};
}

void outlive_broken_pipes() { std::signal(SIGPIPE, SIG_IGN); }

}  // namespace headstart
