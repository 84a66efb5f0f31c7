// What a PendingPeer holds: filled by the listener, emptied by whoever serves the peer.
#pragma once

#include <functional>
#include <string>

#include <boost/asio/ip/tcp.hpp>

#include "shared/net/websocket.hpp"

namespace headstart::net {

struct PendingPeer::State {
  asio::ip::tcp::socket socket;
  std::string peer;
  std::function<void(const std::string& reason)> end;  ///< Set once the socket is the handshake's.
};

}  // namespace headstart::net
