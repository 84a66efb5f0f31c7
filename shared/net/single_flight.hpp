// What every kind of channel checks in the same way.
#pragma once

#include <string>

#include "shared/base/error.hpp"
#include "shared/net/message_channel.hpp"

namespace headstart::net {

/// Marks an operation as pending while it lives. Throws Error(internal) where one is pending already.
class SingleFlight {
 public:
  SingleFlight(bool& pending, const char* operation) : pending_(pending) {
    if (pending) throw Error(Errc::internal, std::string("a second ") + operation + "() on a channel while one pends");
    pending = true;
  }
  ~SingleFlight() { pending_ = false; }
  SingleFlight(const SingleFlight&) = delete;
  SingleFlight& operator=(const SingleFlight&) = delete;

 private:
  bool& pending_;
};

inline void check_message_size(std::size_t bytes) {
  if (bytes <= max_message_bytes) return;
  throw Error(Errc::internal, "a message of " + std::to_string(bytes) + " bytes to send; at most " +
                                  std::to_string(max_message_bytes) + " travel at once");
}

}  // namespace headstart::net
