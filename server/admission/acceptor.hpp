// Where connections come in: as many at a time as the limits allow, whoever sends them.
#pragma once

#include <functional>
#include <memory>

#include "server/admission/connection_limits.hpp"
#include "server/operations/audit_log.hpp"
#include "server/operations/run_status.hpp"
#include "shared/base/log_sampler.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::server {

/// What the acceptor counts, for metrics.
struct AcceptorRecord {
  AcceptorRecord(std::size_t limit, const Clock& clock) : connections(limit, clock) {}

  ConnectionLimiter connections;
  LogSampler refusals;   ///< Connections beyond the limits.
  LogSamplers failures;  ///< Of handshakes, by address.

  [[nodiscard]] AcceptorStatus status() const {
    return {connections.num_inside(), refusals.count_so_far(), failures.num_in_all()};
  }
};

/// Takes a connection that has finished its handshakes; ends when the conversation does. `on_established` is to be
/// called when the client has a place in the run: it makes room for no other connection from then on.
using Admit =
    std::function<net::Task<>(std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_established)>;

/// Accepts on `listener` until it is closed, and hands each connection that finishes its handshakes to `admit`. What
/// one connection does costs only itself; one beyond the limits is told so and closed at once. When the loop ends, so
/// do all handshakes that are under way. All other arguments outlive the task.
net::Task<> accept_loop(net::asio::any_io_executor executor, net::Listener& listener, net::WebSocketOptions options,
                        std::shared_ptr<AcceptorRecord> record, Admit admit, AuditLog& audit);

}  // namespace headstart::server
