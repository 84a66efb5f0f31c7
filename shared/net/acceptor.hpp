// Where connections come in: as many at a time as the limits allow, whoever sends them.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "shared/base/log_sampler.hpp"
#include "shared/net/connection_limits.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::net {

/// What the acceptor counts, for metrics.
struct AcceptorRecord {
  AcceptorRecord(std::size_t limit, const Clock& clock) : connections(limit, clock) {}

  ConnectionLimiter connections;
  LogSampler refusals;   ///< Connections beyond the limits.
  LogSamplers failures;  ///< Of handshakes, by address.
};

/// Takes a connection that has finished its handshakes; ends when the conversation does. `on_established` is to be
/// called when the peer has a place among those that were let in: it makes room for no other connection from then on.
using Admit = std::function<Task<>(std::unique_ptr<MessageChannel> channel, std::function<void()> on_established)>;

/// Is told of a handshake that failed, by whom and why. Must not throw.
using OnHandshakeFailure = std::function<void(const std::string& peer, const std::string& reason)>;

/// Accepts on `listener` until it is closed, and hands each connection that finishes its handshakes to `admit`. What
/// one connection does costs only itself; one beyond the limits is told so and closed at once. When the loop ends, so
/// do all handshakes that are under way. `listener` outlives the task; the functions live as long as a connection that
/// it took. A handshake that fails is logged and reported to `on_failure`, of an address where many fail only some.
Task<> accept_loop(asio::any_io_executor executor, Listener& listener, WebSocketOptions options,
                   std::shared_ptr<AcceptorRecord> record, Admit admit, OnHandshakeFailure on_failure);

}  // namespace headstart::net
