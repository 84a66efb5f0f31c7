// A bound on a step that waits for a peer.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include <boost/asio/any_io_executor.hpp>

#include "shared/net/time.hpp"

namespace headstart::net {

/// Calls `expire` unless it is destroyed before `limit` has passed. Lives on the executor.
class Deadline {
 public:
  Deadline(const asio::any_io_executor& executor, std::chrono::milliseconds limit, std::function<void()> expire)
      : timer_(executor, limit) {
    timer_.on_end([fate = fate_, expire = std::move(expire)] {
      if (*fate != Fate::armed) return;
      *fate = Fate::expired;
      expire();
    });
  }
  ~Deadline() {
    if (*fate_ == Fate::armed) *fate_ = Fate::disarmed;
  }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

  [[nodiscard]] bool has_expired() const { return *fate_ == Fate::expired; }

 private:
  enum class Fate { armed, disarmed, expired };
  std::shared_ptr<Fate> fate_ = std::make_shared<Fate>(Fate::armed);
  Timer timer_;
};

}  // namespace headstart::net
