#include <utility>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"
#include "shared/net/pending_peer.hpp"
#include "shared/net/turn_away.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::net {
namespace {

using boost::system::error_code;
using tcp = asio::ip::tcp;

constexpr std::chrono::milliseconds accept_pause = std::chrono::milliseconds(200);

std::string name_of(const tcp::endpoint& endpoint) {
  const auto address = endpoint.address();
  return (address.is_v6() ? "[" + address.to_string() + "]" : address.to_string()) + ":" +
         std::to_string(endpoint.port());
}

std::string peer_of(const tcp::socket& socket) {
  error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  return error ? "a peer that is gone" : name_of(endpoint);
}

tcp::acceptor listen_on(const asio::any_io_executor& executor, const std::string& address, std::uint16_t port) {
  error_code error;
  const auto ip = asio::ip::make_address(address, error);
  if (error) {
    throw Error(Errc::usage, "listen address '" + address + "' is no IP address; expected for example 127.0.0.1");
  }
  const tcp::endpoint endpoint(ip, port);
  tcp::acceptor acceptor(executor);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(tcp::acceptor::max_listen_connections, error);
  if (error) {
    throw Error(Errc::network, "cannot listen on " + name_of(endpoint) + ": " + error.message() +
                                   "; stop the program that holds it, or choose another address or port");
  }
  return acceptor;
}

}  // namespace

PendingPeer::PendingPeer(std::shared_ptr<State> state) : state_(std::move(state)) {}
PendingPeer::PendingPeer(PendingPeer&&) noexcept = default;
PendingPeer& PendingPeer::operator=(PendingPeer&&) noexcept = default;
PendingPeer::~PendingPeer() = default;
std::string PendingPeer::peer() const { return state_->peer; }
std::shared_ptr<PendingPeer::State> PendingPeer::release() && { return std::move(state_); }
std::function<void(const std::string& reason)> PendingPeer::ender(bool speaks_tls) const {
  return [state = state_, speaks_tls](const std::string& reason) {
    if (state->end) return state->end(reason);
    turn_away(state->socket, speaks_tls);
  };
}

struct Listener::State {
  tcp::acceptor acceptor;
  asio::steady_timer pause;
  std::uint16_t port;

  static Task<PendingPeer> accept(std::shared_ptr<State> self);
};

Task<PendingPeer> Listener::State::accept(std::shared_ptr<State> self) {
  for (;;) {
    if (!self->acceptor.is_open()) throw Error(Errc::interrupted, "the listener was closed");
    error_code error;
    auto accepting = self->acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
    tcp::socket socket = co_await std::move(accepting);
    if (!error) {
      auto peer = peer_of(socket);
      co_return PendingPeer(std::make_shared<PendingPeer::State>(std::move(socket), std::move(peer), nullptr));
    }
    if (!self->acceptor.is_open() || error == asio::error::connection_aborted) continue;
    // Out of descriptors or memory: the connections that there are will end and make room.
    spdlog::warn("cannot accept a connection: {}", error.message());
    self->pause.expires_after(accept_pause);
    auto pausing = self->pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
    co_await std::move(pausing);
  }
}

Listener::Listener(asio::any_io_executor executor, const std::string& address, std::uint16_t port) {
  auto acceptor = listen_on(executor, address, port);
  const auto actual = acceptor.local_endpoint().port();
  state_ = std::make_shared<State>(std::move(acceptor), asio::steady_timer(executor), actual);
}

Listener::Listener(Listener&&) noexcept = default;
Listener& Listener::operator=(Listener&& other) noexcept {
  if (this != &other) {
    close();
    state_ = std::move(other.state_);
  }
  return *this;
}
Listener::~Listener() { close(); }

std::uint16_t Listener::port() const noexcept { return state_->port; }

Task<PendingPeer> Listener::accept() { return State::accept(state_); }

void Listener::close() noexcept {
  if (!state_) return;
  error_code ignored;
  state_->acceptor.close(ignored);
  state_->pause.expires_at(asio::steady_timer::time_point::min());
}

}  // namespace headstart::net
