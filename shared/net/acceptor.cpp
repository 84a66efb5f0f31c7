#include "shared/net/acceptor.hpp"

#include <algorithm>
#include <optional>

#include <boost/asio/co_spawn.hpp>
#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"

namespace headstart::net {

namespace {

/// A connection's place, as long as it lives.
class Place {
 public:
  Place(std::shared_ptr<AcceptorRecord> record, ConnectionLimiter::ConnectionId connection)
      : record_(std::move(record)), connection_(connection) {}
  ~Place() { record_->connections.leave(connection_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  void advance(ConnectionLimiter::Progress progress) { record_->connections.advance(connection_, progress); }
  void recognise(const std::string& name) { record_->connections.recognise(connection_, name); }
  [[nodiscard]] AcceptorRecord& record() { return *record_; }

 private:
  std::shared_ptr<AcceptorRecord> record_;
  ConnectionLimiter::ConnectionId connection_;
};

/// Those who are not through yet would keep a program that ends for as long as they may take.
class EvictAtEnd {
 public:
  explicit EvictAtEnd(AcceptorRecord& record) : record_(record) {}
  ~EvictAtEnd() {
    record_.connections.evict_before(ConnectionLimiter::Progress::upgraded, "the server takes no more connections");
  }
  EvictAtEnd(const EvictAtEnd&) = delete;
  EvictAtEnd& operator=(const EvictAtEnd&) = delete;

 private:
  AcceptorRecord& record_;
};

Task<> serve(PendingPeer pending, WebSocketOptions options, Admit admit, OnHandshakeFailure on_failure,
             std::shared_ptr<Place> place /*held until it has joined or gone*/) {
  const std::string peer = pending.peer();
  std::unique_ptr<MessageChannel> channel;
  try {
    const HandshakeSteps steps{.on_first_bytes = [place] { place->advance(ConnectionLimiter::Progress::speaking); },
                               .on_certificate = [place](const std::string& name) { place->recognise(name); }};
    auto shaking = handshake(std::move(pending), options, steps);
    channel = co_await std::move(shaking);
  } catch (const Error& error) {
    if (!place->record().failures.count(address_of(peer))) co_return;
    spdlog::warn("{}", error.what());
    on_failure(peer, error.what());
    co_return;
  }
  place->advance(ConnectionLimiter::Progress::upgraded);
  // The place is left when admission is through; who keeps the function must not keep it.
  const auto on_established = [weak = std::weak_ptr(place)] {
    if (const auto still = weak.lock()) still->advance(ConnectionLimiter::Progress::established);
  };
  auto admitting = admit(std::move(channel), on_established);
  co_await std::move(admitting);
}

}  // namespace

Task<> accept_loop(asio::any_io_executor executor, Listener& listener, WebSocketOptions options,
                   std::shared_ptr<AcceptorRecord> record, Admit admit, OnHandshakeFailure on_failure) {
  const bool speaks_tls = options.tls != nullptr;
  const EvictAtEnd evict_at_end(*record);
  while (true) {
    auto accepting = listener.accept();
    PendingPeer pending = co_await std::move(accepting);
    const std::string peer = pending.peer();
    const auto end = pending.ender(speaks_tls);
    const auto entered = record->connections.enter(address_of(peer), end);
    if (const auto* reason = std::get_if<std::string>(&entered)) {
      end(*reason);
      if (LogSampler& refusals = record->refusals; refusals.count()) {
        spdlog::warn("{}: refused, {}{}", peer, *reason,
                     refusals.is_sampled() ? fmt::format("; {} so far", refusals.count_so_far()) : "");
      }
      continue;
    }
    auto place = std::make_shared<Place>(record, std::get<ConnectionLimiter::ConnectionId>(entered));
    auto serving = serve(std::move(pending), options, admit, on_failure, std::move(place));
    asio::co_spawn(executor, std::move(serving), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
  }
}

}  // namespace headstart::net
