// Where connections come in: as many at a time as the limits allow, whoever sends them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "server/federation.hpp"
#include "server/status.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::server {

/// Counts connections that have not joined the run yet: in all, and from one address, which may hold a fourth of them,
/// so that a flood from one place leaves room for the others. No sockets.
class DoorCount {
 public:
  explicit DoorCount(std::size_t limit) : limit_(limit) {}

  /// Counts one more from `address`, or returns why not.
  std::optional<std::string> enter(const std::string& address);
  void leave(const std::string& address);
  /// Counts a handshake that failed, and says whether it is worth a line: of each address the 1st, 2nd, 4th, 8th, ...
  /// is, so that a flood does not fill the logs.
  bool count_failure(const std::string& address);
  [[nodiscard]] std::size_t num_inside() const { return num_inside_; }
  [[nodiscard]] std::uint64_t num_refused() const { return num_refused_; }
  [[nodiscard]] DoorStatus status() const { return {num_inside_, num_refused_, num_failed_}; }
  [[nodiscard]] std::size_t limit_per_address() const { return std::max<std::size_t>(1, limit_ / 4); }

 private:
  std::size_t limit_;
  std::size_t num_inside_ = 0;
  std::map<std::string, std::size_t> by_address_;
  std::uint64_t num_refused_ = 0;
  std::uint64_t num_failed_ = 0;
  std::map<std::string, std::uint64_t> failures_;
};

/// Accepts on `listener` until it is closed; hands each connection that finishes its handshakes to `federation`. What
/// one does costs only itself; one beyond the limits is closed at once. All arguments outlive the task.
net::Task<> keep_door(net::asio::any_io_executor executor, net::Listener& listener, net::WebSocketOptions options,
                      std::shared_ptr<DoorCount> count, Federation& federation);

}  // namespace headstart::server
