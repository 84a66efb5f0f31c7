#include "server/phases/round_machine.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace headstart::server {

RoundMachine::RoundMachine(std::uint32_t round, const std::vector<std::string>& cohort, std::size_t quorum)
    : round_(round), quorum_(quorum) {
  for (const std::string& client : cohort) clients_.emplace(client, State::asked);
}

Verdict RoundMachine::on_update(const std::string& client) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return Verdict::unknown;
  if (found->second == State::accepted) return Verdict::duplicate;
  if (found->second == State::excluded) return Verdict::late;
  found->second = State::accepted;
  return Verdict::accepted;
}

void RoundMachine::on_rejected(const std::string& client, const std::string& reason) { exclude(client, reason); }
void RoundMachine::on_lost(const std::string& client, const std::string& reason) { exclude(client, reason); }

void RoundMachine::exclude(const std::string& client, const std::string& reason) {
  const auto found = clients_.find(client);
  // An update that is in the sum stays there, whatever becomes of its client.
  if (found == clients_.end() || found->second != State::asked) return;
  found->second = State::excluded;
  excluded_.emplace(client, reason);
}

std::size_t RoundMachine::count(State state) const {
  return static_cast<std::size_t>(std::ranges::count_if(clients_, [&](const auto& c) { return c.second == state; }));
}

RoundMachine::Phase RoundMachine::phase() const {
  if (count(State::asked) > 0) return Phase::collecting;
  return count(State::accepted) >= std::max<std::size_t>(quorum_, 1) ? Phase::complete : Phase::failed;
}

std::vector<std::string> RoundMachine::accepted() const {
  std::vector<std::string> names;
  for (const auto& [name, state] : clients_) {
    if (state == State::accepted) names.push_back(name);
  }
  return names;
}

std::string RoundMachine::failure() const {
  std::string text = fmt::format("round {}: {} of {} updates were accepted, {} are needed", round_, accepted().size(),
                                 clients_.size(), std::max<std::size_t>(quorum_, 1));
  for (const auto& [client, reason] : excluded_) text += fmt::format("; {}: {}", client, reason);
  return text;
}

}  // namespace headstart::server
