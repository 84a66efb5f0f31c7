// What a peer is told that finds no place, before anything else was said.
#pragma once

#include <string>
#include <string_view>

#include <boost/asio/ip/tcp.hpp>

#include "shared/net/task.hpp"

namespace headstart::net {

/// The name that this program gives itself in the HTTP answers of its WebSocket port.
inline constexpr std::string_view http_server_name = "headstart";

/// An HTTP answer with one line of text, after which the connection is closed. `status`: "503 Service Unavailable".
std::string plain_answer(std::string_view status, std::string_view line,
                         std::string_view connection_header = "Connection: close");

/// Closes a connection on which this side has said nothing yet, saying that there is no place: by TLS's alert "internal
/// error", or by HTTP's status 503. Never waits; what cannot be written at once is left unsaid.
void turn_away(asio::ip::tcp::socket& socket, bool speaks_tls) noexcept;

}  // namespace headstart::net
