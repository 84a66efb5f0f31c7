// Message channels over WebSockets, dialled or accepted. Beast's headers stay in websocket.cpp (and http.cpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include <boost/asio/any_io_executor.hpp>

#include "shared/base/error.hpp"
#include "shared/net/message_channel.hpp"
#include "shared/net/task.hpp"
#include "shared/net/url.hpp"

namespace headstart::net {

class ReceiveMemory;
class Tls;

struct WebSocketOptions {
  /// From the first packet to the upgraded connection, name resolution included; of a host with several addresses each
  /// has its share.
  std::chrono::milliseconds handshake_timeout = std::chrono::seconds(10);
  /// At the accepting side no longer than this for TLS, and then for the upgrade: till then a peer is a stranger.
  std::chrono::milliseconds stranger_timeout = std::chrono::seconds(5);
  /// A peer in whose receive() we wait and from whom nothing was heard for so long is lost, at most a sixteenth of it
  /// sooner and no later. Each side sends a ping four times in that span, also while its program is busy, so only a
  /// dead process, host or wire stays silent. As often it looks whether the other's certificate has been revoked
  /// meanwhile.
  std::chrono::milliseconds idle_timeout = std::chrono::seconds(30);
  /// A peer that takes so long for one message of ours is lost, however alive it is otherwise.
  std::chrono::milliseconds write_timeout = std::chrono::minutes(10);
  /// From the first goodbye, of either side, to the closed socket.
  std::chrono::milliseconds goodbye_timeout = std::chrono::seconds(3);
  /// A dialler needs it for wss://; a server that has it accepts nothing without TLS.
  std::shared_ptr<Tls> tls = nullptr;
  /// Of a dialler under TLS: the name that the other side's certificate must be made out to, as a DNS name, whatever
  /// host or address is dialled. Empty: the URL's host.
  std::string expected_name = {};
  /// Of an accepting side under TLS: only the certificate of a peer holds, which may be dialled as well as dial; that
  /// of a client is refused.
  bool requires_peer_certificate = false;
  /// What all connections that are given the same one share, for messages above 64 KiB; null: each has its own.
  std::shared_ptr<ReceiveMemory> memory = nullptr;
  /// Ends the dialling at once; requested on the channel's executor.
  std::stop_token stop = {};
};

/// One side's TLS does not take the other's certificate. Unlike a refusal by the program behind it, it may pass: a
/// revocation list that has run out is renewed, a certificate replaced.
class TlsRefusal : public Error {
 public:
  explicit TlsRefusal(const std::string& message) : Error(Errc::rejected, message) {}
};

/// Dials a server. `executor` runs one thing at a time (one io thread, or a strand) and is the channel's executor;
/// co_await this on it. Throws Error(network) with address and reason, Error(protocol) where something else answers,
/// TlsRefusal.
Task<std::unique_ptr<MessageChannel>> connect(asio::any_io_executor executor, const Url& url, WebSocketOptions options);
/// With the options' defaults. Not a default argument: g++ 12 destroys one twice in the arguments of a co_awaited call.
Task<std::unique_ptr<MessageChannel>> connect(asio::any_io_executor executor, const Url& url);

/// A connection that was accepted and has not yet said what it wants.
class PendingPeer {
 public:
  struct State;
  explicit PendingPeer(std::shared_ptr<State> state);
  PendingPeer(PendingPeer&&) noexcept;
  PendingPeer& operator=(PendingPeer&&) noexcept;
  ~PendingPeer();

  /// "127.0.0.1:50312"
  [[nodiscard]] std::string peer() const;
  /// For whoever serves it.
  [[nodiscard]] std::shared_ptr<State> release() &&;

  /// Ends the connection, whatever has become of it meanwhile, with a reason for the log. On the listener's executor.
  /// Where nothing was said to the peer yet, it is told that there is no place, by TLS or in the clear.
  [[nodiscard]] std::function<void(const std::string& reason)> ender(bool speaks_tls) const;

 private:
  std::shared_ptr<State> state_;
};

/// Listens on one address. All calls on `executor`, which is also that of the accepted channels.
class Listener {
 public:
  /// `port` 0: any free one. Throws Error(network) naming address and port, e.g. when they are in use,
  /// Error(usage) where `address` is no IP address.
  Listener(asio::any_io_executor executor, const std::string& address, std::uint16_t port);
  Listener(Listener&&) noexcept;
  Listener& operator=(Listener&&) noexcept;
  ~Listener();

  [[nodiscard]] std::uint16_t port() const noexcept;

  /// The next connection. Survives what a peer can cause; throws Error(interrupted) after close().
  Task<PendingPeer> accept();

  /// Accepts no more; may be called twice. A pending accept() throws.
  void close() noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// How far a peer has come in its handshake, for whoever rations places. Each is called at most once, in this order.
struct HandshakeSteps {
  std::function<void()> on_first_bytes = [] {};
  /// Its certificate holds, and proves this name. Never in the clear.
  std::function<void(const std::string& identity)> on_certificate = [](const std::string&) {};
};

/// The server's side of the upgrade: a step of its own, so that a slow peer keeps nobody waiting.
/// Throws Error(network) for a peer that is lost or too slow, Error(protocol) for one that speaks no WebSocket,
/// Error(rejected) for one that TLS refuses.
Task<std::unique_ptr<MessageChannel>> handshake(PendingPeer pending, WebSocketOptions options, HandshakeSteps steps);
Task<std::unique_ptr<MessageChannel>> handshake(PendingPeer pending, WebSocketOptions options);
/// With the options' defaults.
Task<std::unique_ptr<MessageChannel>> handshake(PendingPeer pending);

}  // namespace headstart::net
