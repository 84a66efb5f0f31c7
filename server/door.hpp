// Where connections come in: as many at a time as the limits allow, whoever sends them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "server/federation.hpp"
#include "server/status.hpp"
#include "shared/base/told.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::server {

/// Who stands in the door: connections that have not joined the run yet, in all and from one address, which may hold a
/// fourth of the places. Who comes beyond that fourth takes the place of the oldest from the same address, so that
/// stalled connections lock out nobody behind it. Where all places are taken, one from the address that holds the most
/// makes room, so that a flood, from however many addresses, leaves the door open to others. No sockets.
class DoorCount {
 public:
  using Guest = std::uint64_t;
  using PutOut = std::function<void(const std::string& reason)>;

  explicit DoorCount(std::size_t limit) : limit_(limit) {}

  /// Counts one more from `address`, or returns why not. `end` puts it out; it is called at most once, after which the
  /// guest does not count any more, and never once it has shaken hands or left.
  std::variant<Guest, std::string> enter(const std::string& address, PutOut end);
  /// Its handshakes are done, so it will not be put out: behind TLS it is one whom the authority has certified.
  void shake_hands(Guest guest);
  void leave(Guest guest);

  [[nodiscard]] std::size_t num_inside() const { return num_inside_; }
  [[nodiscard]] std::size_t limit_per_address() const { return std::max<std::size_t>(1, limit_ / 4); }

 private:
  /// In order of coming. The function is empty once it has shaken hands.
  using Guests = std::map<Guest, PutOut>;
  /// Who would be put out first: the one that has been there for the longest without shaking hands.
  static std::optional<Guest> oldest_of(const Guests& guests);
  /// Whom a newcomer beyond the limit displaces.
  [[nodiscard]] std::optional<Guest> oldest_of_the_most(std::size_t num_from_newcomer) const;
  void put_out(Guest guest, const std::string& reason);

  std::size_t limit_;
  std::size_t num_inside_ = 0;
  Guest next_ = 0;
  std::map<std::string, Guests> by_address_;
  std::map<Guest, std::string> address_of_;
};

/// What the door knows, for whoever watches it.
struct DoorRecord {
  explicit DoorRecord(std::size_t limit) : count(limit) {}

  DoorCount count;
  Told refusals;       ///< Connections beyond the limits.
  ToldApart failures;  ///< Of handshakes, by address.

  [[nodiscard]] DoorStatus status() const { return {count.num_inside(), refusals.so_far(), failures.num_in_all()}; }
};

/// Accepts on `listener` until it is closed; hands each connection that finishes its handshakes to `federation`. What
/// one does costs only itself; one beyond the limits is closed at once. All other arguments outlive the task.
net::Task<> keep_door(net::asio::any_io_executor executor, net::Listener& listener, net::WebSocketOptions options,
                      std::shared_ptr<DoorRecord> record, Federation& federation);

}  // namespace headstart::server
