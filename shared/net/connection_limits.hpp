// How many connections that have not joined yet may be open, and which of them makes room for another.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "shared/base/clock.hpp"

namespace headstart::net {

/// Places of one kind, each held by an owner, who may have a share of them. No sockets.
class ConnectionPlaces {
 public:
  using ConnectionId = std::uint64_t;
  using Evict = std::function<void(const std::string& reason)>;

  /// How far a connection has come. Who is established never makes room for another.
  enum class Progress { silent, speaking, upgraded, established };

  /// Who has not come further for so long is stalled, and makes room first.
  static constexpr std::chrono::milliseconds stall = std::chrono::milliseconds(250);

  ConnectionPlaces(std::size_t limit, std::size_t share, Clock clock)
      : limit_(limit), share_(std::max<std::size_t>(1, share)), clock_(std::move(clock)) {}

  /// Who has to make room for one more connection of `owner`, and why; nobody where there is a place.
  struct Displaced {
    ConnectionId connection;
    std::string reason;
  };
  /// The text: why there is no room. `owner_words`: "from 192.0.2.7".
  [[nodiscard]] std::variant<std::optional<Displaced>, std::string> make_room(const std::string& owner,
                                                                              const std::string& owner_words) const;
  void add(const std::string& owner, ConnectionId connection, Progress progress, Evict end);
  void advance(ConnectionId connection, Progress progress);
  /// Frees its place, where it has one, and returns how it is put out.
  Evict remove(ConnectionId connection);
  [[nodiscard]] std::vector<ConnectionId> all_before(Progress progress) const;
  [[nodiscard]] std::size_t size() const { return owner_of_.size(); }

 private:
  struct Entry {
    Progress progress;
    TimePoint at;         ///< When it came that far.
    std::uint64_t order;  ///< The same, in order.
    Evict end;
  };
  using Connections = std::map<ConnectionId, Entry>;
  /// The lesser is put out first: whether it is not stalled, how far it has come unless it is, since when, and who.
  using Candidate = std::tuple<bool, Progress, std::uint64_t, ConnectionId>;
  [[nodiscard]] std::optional<Candidate> first_to_go(const Connections& connections) const;

  std::size_t limit_;
  std::size_t share_;
  Clock clock_;
  std::uint64_t next_order_ = 0;
  std::map<std::string, Connections> by_owner_;
  std::map<ConnectionId, std::string> owner_of_;
};

/// The connections that have not joined yet. Strangers have `limit` places, of which an address may hold a fourth. Who
/// has shown a certificate that holds leaves them for a place of its own, of which each name in a certificate may hold
/// a few: no stranger can take it, nor another name. Who comes beyond its owner's share takes the place of the same
/// owner's connection that has been stalled for the longest; where none is, of the one that has come the least far, the
/// oldest of those. Where all places are taken, one of the owner that holds the most makes room. So stalled connections
/// lock out nobody behind them, however fast they are renewed, and a flood, from however many addresses, keeps out no
/// others. No sockets.
class ConnectionLimiter {
 public:
  using ConnectionId = ConnectionPlaces::ConnectionId;
  using Evict = ConnectionPlaces::Evict;
  using Progress = ConnectionPlaces::Progress;
  static constexpr std::size_t places_per_name = 4;

  ConnectionLimiter(std::size_t limit, const Clock& clock)
      : strangers_(limit, limit / 4, clock), known_(limit, places_per_name, clock) {}

  /// Counts one more from `address`, or returns why not. `end` puts it out; it is called at most once, after which the
  /// connection does not count any more, and never once it is established or has left.
  std::variant<ConnectionId, std::string> enter(const std::string& address, Evict end);
  /// Its certificate proves `name`: from now on it has one of that name's places.
  void recognise(ConnectionId connection, const std::string& name);
  void advance(ConnectionId connection, Progress progress);
  void leave(ConnectionId connection);
  /// Puts out whoever has come less far.
  void evict_before(Progress progress, const std::string& reason);

  [[nodiscard]] std::size_t num_inside() const { return strangers_.size() + known_.size(); }

 private:
  void evict(ConnectionPlaces& places, ConnectionId connection, const std::string& reason);

  ConnectionPlaces strangers_;
  ConnectionPlaces known_;
  ConnectionId next_ = 0;
};

}  // namespace headstart::net
