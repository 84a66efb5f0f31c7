#include "shared/net/connection_limits.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace headstart::net {

std::variant<std::optional<ConnectionPlaces::Displaced>, std::string> ConnectionPlaces::make_room(
    const std::string& owner, const std::string& owner_words) const {
  const auto own = by_owner_.find(owner);
  const std::size_t num_own = own == by_owner_.end() ? 0 : own->second.size();
  if (num_own >= share_) {
    const auto candidate = first_to_go(own->second);
    if (!candidate) {
      return fmt::format(
          "the server takes no more connections: {} connections {} are joining, its share of limits.handshakes",
          num_own, owner_words);
    }
    return Displaced{std::get<3>(*candidate),
                     fmt::format("its place was given to a newer connection {}, which holds {}, its share of "
                                 "limits.handshakes",
                                 owner_words, num_own)};
  }
  if (size() < limit_) return std::optional<Displaced>();
  std::size_t most = 0;
  std::optional<Candidate> candidate;
  for (const auto& [other, connections] : by_owner_) {
    const auto first = first_to_go(connections);
    if (!first || connections.size() < num_own + 1 || connections.size() < most) continue;
    if (candidate && connections.size() == most && *first > *candidate) continue;
    most = connections.size();
    candidate = first;
  }
  if (!candidate) {
    return fmt::format(
        "the server takes no more connections: {} connections are in their handshakes (limits.handshakes)", size());
  }
  return Displaced{
      std::get<3>(*candidate),
      fmt::format("its place was given to a newer connection, as all {} are taken (limits.handshakes)", limit_)};
}

std::optional<ConnectionPlaces::Candidate> ConnectionPlaces::first_to_go(const Connections& connections) const {
  const TimePoint now = clock_();
  std::optional<Candidate> first;
  for (const auto& [connection, entry] : connections) {
    if (entry.progress == Progress::established) continue;
    const bool is_moving = now < entry.at + stall;
    const Candidate candidate(is_moving, is_moving ? entry.progress : Progress::silent, entry.order, connection);
    if (!first || candidate < *first) first = candidate;
  }
  return first;
}

void ConnectionPlaces::add(const std::string& owner, ConnectionId connection, Progress progress, Evict end) {
  by_owner_[owner].emplace(connection, Entry{progress, clock_(), next_order_++, std::move(end)});
  owner_of_.emplace(connection, owner);
}

void ConnectionPlaces::advance(ConnectionId connection, Progress progress) {
  const auto owner = owner_of_.find(connection);
  if (owner == owner_of_.end()) return;
  Entry& entry = by_owner_.at(owner->second).at(connection);
  entry.progress = progress;
  entry.at = clock_();
  entry.order = next_order_++;
}

ConnectionPlaces::Evict ConnectionPlaces::remove(ConnectionId connection) {
  const auto owner = owner_of_.find(connection);
  if (owner == owner_of_.end()) return {};  // it was put out
  const auto connections = by_owner_.find(owner->second);
  Evict end = std::move(connections->second.at(connection).end);
  connections->second.erase(connection);
  if (connections->second.empty()) by_owner_.erase(connections);
  owner_of_.erase(owner);
  return end;
}

std::vector<ConnectionPlaces::ConnectionId> ConnectionPlaces::all_before(Progress progress) const {
  std::vector<ConnectionId> found;
  for (const auto& [owner, connections] : by_owner_) {
    for (const auto& [connection, entry] : connections) {
      if (entry.progress < progress) found.push_back(connection);
    }
  }
  return found;
}

std::variant<ConnectionLimiter::ConnectionId, std::string> ConnectionLimiter::enter(const std::string& address,
                                                                                    Evict end) {
  const auto room = strangers_.make_room(address, "from " + address);
  if (const auto* full = std::get_if<std::string>(&room)) return *full;
  if (const auto& displaced = std::get<std::optional<ConnectionPlaces::Displaced>>(room)) {
    evict(strangers_, displaced->connection, displaced->reason);
  }
  const ConnectionId connection = next_++;
  strangers_.add(address, connection, Progress::silent, std::move(end));
  return connection;
}

void ConnectionLimiter::recognise(ConnectionId connection, const std::string& name) {
  Evict end = strangers_.remove(connection);
  if (!end) return;
  const auto room = known_.make_room(name, fmt::format("certified as '{}'", name));
  if (const auto* full = std::get_if<std::string>(&room)) return end(*full);
  if (const auto& displaced = std::get<std::optional<ConnectionPlaces::Displaced>>(room)) {
    evict(known_, displaced->connection, displaced->reason);
  }
  known_.add(name, connection, Progress::speaking, std::move(end));
}

void ConnectionLimiter::advance(ConnectionId connection, Progress progress) {
  strangers_.advance(connection, progress);
  known_.advance(connection, progress);
}

void ConnectionLimiter::leave(ConnectionId connection) {
  strangers_.remove(connection);
  known_.remove(connection);
}

void ConnectionLimiter::evict(ConnectionPlaces& places, ConnectionId connection, const std::string& reason) {
  // It does not count any more when it is told: what it does then may come back here.
  if (const Evict end = places.remove(connection)) end(reason);
}

void ConnectionLimiter::evict_before(Progress progress, const std::string& reason) {
  for (ConnectionPlaces* places : {&strangers_, &known_}) {
    for (const ConnectionId connection : places->all_before(progress)) evict(*places, connection, reason);
  }
}

}  // namespace headstart::net
