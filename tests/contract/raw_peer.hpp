// A TCP peer without manners.
#pragma once

#include <cstdint>
#include <string>
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

}  // namespace headstart::net
