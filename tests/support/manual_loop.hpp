// An event loop by manual time.
#pragma once

#include <boost/asio/io_context.hpp>

#include "shared/net/time.hpp"

namespace headstart::test {

class ManualLoop {
 public:
  ManualLoop() { time.govern(io); }
  /// Until the loop is out of work.
  void run() { time.run(io); }
  /// Since the loop was made.
  [[nodiscard]] TimePoint::duration passed() const { return time.now() - begin_; }
  [[nodiscard]] net::asio::any_io_executor executor() { return io.get_executor(); }

  net::ManualTime time;
  net::asio::io_context io{1};

 private:
  TimePoint begin_ = time.now();
};

}  // namespace headstart::test
