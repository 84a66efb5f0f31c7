// A condition variable for coroutines of one executor.
#pragma once

#include <chrono>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "shared/net/task.hpp"

namespace headstart::net {

/// wait() resumes after the next notify(), like std::condition_variable::wait: check the condition in a loop.
/// All calls on one executor.
class Signal {
 public:
  explicit Signal(const asio::any_io_executor& executor)
      : timer_(executor, std::chrono::steady_clock::time_point::max()) {}

  void notify() { timer_.cancel(); }

  Task<> wait() {
    boost::system::error_code cancelled;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  }

 private:
  asio::steady_timer timer_;
};

}  // namespace headstart::net
