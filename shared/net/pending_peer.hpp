// What a PendingPeer holds: filled by the listener, emptied by whoever serves the peer.
#pragma once

#include <string>

#include <boost/asio/ip/tcp.hpp>

#include "shared/net/websocket.hpp"

namespace headstart::net {

struct PendingPeer::State {
  asio::ip::tcp::socket socket;
  std::string peer;
};

}  // namespace headstart::net
