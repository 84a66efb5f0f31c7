// Reaching one of the addresses that a host has.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include <boost/asio/ip/tcp.hpp>

#include "shared/net/task.hpp"

namespace headstart::net {

/// Connects `socket` to the first of `endpoints` that takes the connection, in their order. Each but the last is given
/// up after its share of `limit`: one that swallows packets must not use up the time of the others; the last one is the
/// caller's to end, by closing the socket. `is_over()`: the caller has done so.
/// Returns why none did, "Connection refused" of a single endpoint, of several each with its own reason; empty where
/// the socket is connected.
Task<std::string> connect_to_any(asio::ip::tcp::socket& socket, std::vector<asio::ip::tcp::endpoint> endpoints,
                                 std::chrono::milliseconds limit, std::function<bool()> is_over);

}  // namespace headstart::net
