#include "server/admission/lobby.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace headstart::server {

std::optional<Refusal> Lobby::enter(const std::string& name) {
  const auto place = std::ranges::lower_bound(names_, name);
  if (place != names_.end() && *place == name) {
    return Refusal{RefusalCode::name_taken,
                   fmt::format("a client named '{}' is in this run already; give each client a name of its own", name),
                   true};
  }
  if (is_closed_) return Refusal{RefusalCode::started, "the run has started; clients join before that"};
  if (is_complete()) {
    return Refusal{RefusalCode::full, fmt::format("the run is full: all {} clients are there", num_expected_), true};
  }
  names_.insert(place, name);
  return std::nullopt;
}

void Lobby::leave(const std::string& name) { std::erase(names_, name); }

}  // namespace headstart::server
