// What stops a program, for commands that compute in the main thread.
#pragma once

#include <functional>
#include <thread>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

#include "shared/base/signals.hpp"

namespace headstart::lab {

/// Calls what it is given, once, on a thread of its own, when the user asks the process to stop.
class SignalThread {
 public:
  SignalThread() {
    for (const int number : stop_signals()) signals_.add(number);
  }
  ~SignalThread() { io_.stop(); }
  SignalThread(const SignalThread&) = delete;
  SignalThread& operator=(const SignalThread&) = delete;

  void on_stop(std::function<void()> stop) {
    signals_.async_wait([stop = std::move(stop)](boost::system::error_code code, int) {
      if (!code) stop();
    });
    thread_ = std::jthread([this] { io_.run(); });
  }

 private:
  boost::asio::io_context io_;
  boost::asio::signal_set signals_{io_};
  std::jthread thread_;
};

}  // namespace headstart::lab
