// One TCP connection, in the clear or under TLS: the same stream to Beast either way.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>

#include "shared/net/task.hpp"

namespace headstart::net {

/// An AsyncStream of Asio. It stays where it is made: TLS refers to the socket beside it.
class Transport {
 public:
  using executor_type = asio::ip::tcp::socket::executor_type;
  using Tls = asio::ssl::stream<asio::ip::tcp::socket&>;

  explicit Transport(asio::ip::tcp::socket socket) : socket_(std::move(socket)) {}
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  executor_type get_executor() { return socket_.get_executor(); }
  asio::ip::tcp::socket& socket() { return socket_; }

  /// Called when Beast begins to end the connection under a closed WebSocket, which waits for the peer without bound.
  std::function<void()> on_teardown = [] {};

  /// From here on bytes go through TLS; its handshake is the caller's to do.
  Tls& secure(std::shared_ptr<asio::ssl::context> context) {
    context_ = std::move(context);
    return tls_.emplace(socket_, *context_);
  }

  /// Null in the clear.
  [[nodiscard]] const SSL* tls() const { return tls_ ? const_cast<Tls&>(*tls_).native_handle() : nullptr; }

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    if (tls_) return tls_->async_read_some(buffers, std::forward<Token>(token));
    return socket_.async_read_some(buffers, std::forward<Token>(token));
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    if (tls_) return tls_->async_write_some(buffers, std::forward<Token>(token));
    return socket_.async_write_some(buffers, std::forward<Token>(token));
  }

 private:
  asio::ip::tcp::socket socket_;
  std::shared_ptr<asio::ssl::context> context_;
  std::optional<Tls> tls_;
};

}  // namespace headstart::net
