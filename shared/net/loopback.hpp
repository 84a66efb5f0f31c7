// Message channels within one process: the simulation's network. Nothing is shared between the ends but copied bytes.
#pragma once

#include <memory>
#include <string>

#include <boost/asio/any_io_executor.hpp>

#include "shared/net/message_channel.hpp"

namespace headstart::net {

struct LoopbackPair {
  std::unique_ptr<MessageChannel> first;
  std::unique_ptr<MessageChannel> second;
};

/// Two ends, each on its own executor; these may run on different threads. `name` is what logs show.
/// Each way holds at most four messages and about max_message_bytes that nobody has received yet: send() waits for
/// room. An end must be destroyed before the execution context of its executor.
LoopbackPair make_loopback(asio::any_io_executor first, asio::any_io_executor second, const std::string& name);

}  // namespace headstart::net
