// Where connections come in: as many at a time as the limits allow, whoever sends them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "server/federation.hpp"
#include "server/status.hpp"
#include "shared/base/clock.hpp"
#include "shared/base/told.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::server {

/// Places of one kind, each held by an owner, who may have a share of them. No sockets.
class Places {
 public:
  using Guest = std::uint64_t;
  using PutOut = std::function<void(const std::string& reason)>;

  /// How far a guest has come. Who is seated never makes room for another.
  enum class Progress { silent, speaking, upgraded, seated };

  /// Who has not come further for so long is stalled, and makes room first.
  static constexpr std::chrono::milliseconds stall = std::chrono::milliseconds(250);

  Places(std::size_t limit, std::size_t share, Clock clock)
      : limit_(limit), share_(std::max<std::size_t>(1, share)), clock_(std::move(clock)) {}

  /// Who has to make room for one more guest of `owner`, and why; nobody where there is a place.
  struct Displaced {
    Guest guest;
    std::string reason;
  };
  /// The text: why there is no room. `owner_words`: "from 192.0.2.7".
  [[nodiscard]] std::variant<std::optional<Displaced>, std::string> make_room(const std::string& owner,
                                                                              const std::string& owner_words) const;
  void add(const std::string& owner, Guest guest, Progress progress, PutOut end);
  void advance(Guest guest, Progress progress);
  /// Frees its place, where it has one, and returns how it is put out.
  PutOut remove(Guest guest);
  [[nodiscard]] std::vector<Guest> all_before(Progress progress) const;
  [[nodiscard]] std::size_t size() const { return owner_of_.size(); }

 private:
  struct Entry {
    Progress progress;
    TimePoint at;         ///< When it came that far.
    std::uint64_t order;  ///< The same, in order.
    PutOut end;
  };
  using Guests = std::map<Guest, Entry>;
  /// The lesser is put out first: whether it is not stalled, how far it has come unless it is, since when, and who.
  using Candidate = std::tuple<bool, Progress, std::uint64_t, Guest>;
  [[nodiscard]] std::optional<Candidate> first_to_go(const Guests& guests) const;

  std::size_t limit_;
  std::size_t share_;
  Clock clock_;
  std::uint64_t next_order_ = 0;
  std::map<std::string, Guests> by_owner_;
  std::map<Guest, std::string> owner_of_;
};

/// Who stands in the door: connections that have not joined the run yet. Strangers have `limit` places, of which an
/// address may hold a fourth. Who has shown a certificate that holds leaves them for a place of its own, of which each
/// name in a certificate may hold a few: no stranger can take it, nor another silo. Who comes beyond its owner's share
/// takes the place of the same owner's guest that has been stalled for the longest; where none is, of the one that has
/// come the least far, the oldest of those. Where all places are taken, one of the owner that holds the most makes
/// room. So stalled connections lock out nobody behind them, however fast they are renewed, and a flood, from however
/// many addresses, leaves the door open to others. No sockets.
class DoorCount {
 public:
  using Guest = Places::Guest;
  using PutOut = Places::PutOut;
  using Progress = Places::Progress;
  static constexpr std::size_t places_per_name = 4;

  DoorCount(std::size_t limit, const Clock& clock)
      : strangers_(limit, limit / 4, clock), known_(limit, places_per_name, clock) {}

  /// Counts one more from `address`, or returns why not. `end` puts it out; it is called at most once, after which the
  /// guest does not count any more, and never once it is seated or has left.
  std::variant<Guest, std::string> enter(const std::string& address, PutOut end);
  /// Its certificate proves `name`: from now on it has one of that name's places.
  void recognise(Guest guest, const std::string& name);
  void advance(Guest guest, Progress progress);
  void leave(Guest guest);
  /// Puts out whoever has come less far.
  void put_out_before(Progress progress, const std::string& reason);

  [[nodiscard]] std::size_t num_inside() const { return strangers_.size() + known_.size(); }

 private:
  void put_out(Places& places, Guest guest, const std::string& reason);

  Places strangers_;
  Places known_;
  Guest next_ = 0;
};

/// What the door knows, for whoever watches it.
struct DoorRecord {
  DoorRecord(std::size_t limit, const Clock& clock) : count(limit, clock) {}

  DoorCount count;
  Told refusals;       ///< Connections beyond the limits.
  ToldApart failures;  ///< Of handshakes, by address.

  [[nodiscard]] DoorStatus status() const { return {count.num_inside(), refusals.so_far(), failures.num_in_all()}; }
};

/// Accepts on `listener` until it is closed; hands each connection that finishes its handshakes to `federation`. What
/// one does costs only itself; one beyond the limits is told so and closed at once. When it ends, so do all handshakes
/// that are under way. All other arguments outlive the task.
net::Task<> keep_door(net::asio::any_io_executor executor, net::Listener& listener, net::WebSocketOptions options,
                      std::shared_ptr<DoorRecord> record, Federation& federation);

}  // namespace headstart::server
