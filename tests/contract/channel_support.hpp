// What the contract tests of channels share: pairs of connected channels, running coroutines, telling failures.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <doctest/doctest.h>

#include "shared/base/error.hpp"
#include "shared/net/loopback.hpp"
#include "shared/net/message_channel.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::net {

using Bytes = std::vector<std::byte>;
using View = std::span<const std::byte>;
using Channel = std::unique_ptr<MessageChannel>;

inline View bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }
inline std::string text_of(View bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// Runs one coroutine to its end and rethrows what it throws. Returns only when nothing at all is left to do on the
/// context: an operation or timer that a channel leaves behind hangs the test.
inline void run(Task<> task) {
  asio::io_context context(1);
  std::exception_ptr failure;
  asio::co_spawn(context, std::move(task), [&failure](std::exception_ptr error) { failure = error; });
  context.run();
  if (failure) std::rethrow_exception(failure);
}

struct Failure {
  bool has_failed = false;
  Errc code = Errc::internal;
  std::string message;
  bool is_of_tls = false;
};

/// The Error that `task` ends with.
template <class T>
Task<Failure> failure_of(Task<T> task) {
  try {
    co_await std::move(task);
  } catch (const Error& error) {
    co_return Failure{true, error.code(), error.what(), dynamic_cast<const TlsRefusal*>(&error) != nullptr};
  }
  co_return Failure{};
}

struct ChannelPair {
  Channel near;
  Channel far;
};

struct Loopback {
  static Task<ChannelPair> connect() {
    const auto executor = co_await asio::this_coro::executor;
    auto pair = make_loopback(executor, executor, "test");
    co_return ChannelPair{std::move(pair.first), std::move(pair.second)};
  }
};

inline Task<Channel> accept_one(Listener& listener, WebSocketOptions options) {
  auto pending = co_await listener.accept();
  auto upgrading = handshake(std::move(pending), options);
  co_return co_await std::move(upgrading);
}

inline Task<ChannelPair> connect_websockets(WebSocketOptions near, WebSocketOptions far) {
  using asio::experimental::awaitable_operators::operator&&;
  const auto executor = co_await asio::this_coro::executor;
  Listener listener(executor, "127.0.0.1", 0);
  const Url url{"127.0.0.1", listener.port(), "/", near.tls != nullptr};
  auto both = net::connect(executor, url, near) && accept_one(listener, far);
  auto [dialled, accepted] = co_await std::move(both);
  co_return ChannelPair{std::move(dialled), std::move(accepted)};
}

/// `near` is the client's end: it masks what it sends.
struct WebSocketClient {
  static Task<ChannelPair> connect() { return connect_websockets({}, {}); }
};

/// `near` is the server's end.
struct WebSocketServer {
  static Task<ChannelPair> connect() {
    auto connecting = connect_websockets({}, {});
    auto pair = co_await std::move(connecting);
    co_return ChannelPair{std::move(pair.far), std::move(pair.near)};
  }
};

/// The same under mutual TLS; `near` is the client's end.
struct TlsClient {
  static Task<ChannelPair> connect();
};

/// `near` is the server's end.
struct TlsServer {
  static Task<ChannelPair> connect();
};

}  // namespace headstart::net

TYPE_TO_STRING(headstart::net::TlsClient);
TYPE_TO_STRING(headstart::net::TlsServer);
TYPE_TO_STRING(headstart::net::Loopback);
TYPE_TO_STRING(headstart::net::WebSocketClient);
TYPE_TO_STRING(headstart::net::WebSocketServer);
