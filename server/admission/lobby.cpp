#include "server/admission/lobby.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace headstart::server {

std::optional<std::string> Lobby::enter(const std::string& name) {
  const auto place = std::ranges::lower_bound(names_, name);
  if (place != names_.end() && *place == name) {
    return fmt::format("a client named '{}' is in this run already; give each client a name of its own", name);
  }
  if (is_closed_) return "the run has started; clients join before that";
  if (is_complete()) return fmt::format("the run is full: all {} clients are there", num_expected_);
  names_.insert(place, name);
  return std::nullopt;
}

void Lobby::leave(const std::string& name) { std::erase(names_, name); }

}  // namespace headstart::server
