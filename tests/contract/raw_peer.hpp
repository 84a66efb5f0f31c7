// A TCP peer without manners.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "shared/net/task.hpp"

namespace headstart::net {

/// A peer that writes what it likes.
struct RawPeer {
  explicit RawPeer(asio::ip::tcp::socket connected) : socket(std::move(connected)) {}
  asio::ip::tcp::socket socket;

  static Task<RawPeer> dial(std::uint16_t port) {
    const auto executor = co_await asio::this_coro::executor;
    RawPeer peer{asio::ip::tcp::socket(executor)};
    const asio::ip::tcp::endpoint server(asio::ip::address_v4::loopback(), port);
    co_await peer.socket.async_connect(server, asio::use_awaitable);
    co_return peer;
  }
  Task<> write(std::string bytes) { co_await asio::async_write(socket, asio::buffer(bytes), asio::use_awaitable); }
  Task<std::string> read_header() {
    const auto end =
        co_await asio::async_read_until(socket, asio::dynamic_buffer(unread), "\r\n\r\n", asio::use_awaitable);
    const std::string header = unread.substr(0, end);
    unread.erase(0, end);
    co_return header;
  }
  /// All until the other side hangs up.
  Task<std::string> read_rest() {
    boost::system::error_code ended;
    co_await asio::async_read(socket, asio::dynamic_buffer(unread), asio::redirect_error(asio::use_awaitable, ended));
    co_return unread;
  }

  std::string unread;
};

inline constexpr std::string_view upgrade_request =
    "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A frame of a client whose mask is zero, so that the payload stands there as it is.
inline std::string frame(unsigned char first_byte, const std::string& payload) {
  std::string bytes{static_cast<char>(first_byte)};
  if (payload.size() < 126) {
    bytes += static_cast<char>(0x80 + payload.size());
  } else {
    bytes += '\xff';
    for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(payload.size() >> shift & 0xff);
  }
  return bytes + std::string(4, '\0') + payload;
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace headstart::net
