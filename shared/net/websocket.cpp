#include "shared/net/websocket.hpp"

#include <array>
#include <optional>
#include <utility>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"
#include "shared/net/deadline.hpp"
#include "shared/net/inbox.hpp"
#include "shared/net/pending_peer.hpp"
#include "shared/net/receive_memory.hpp"
#include "shared/net/tls.hpp"
#include "shared/net/transport.hpp"
#include "shared/net/turn.hpp"

namespace headstart::net {

/// How Beast, which finds it by its argument, ends the connection under a closed WebSocket. The close frames have said
/// it under TLS; TLS's own goodbye would tell nothing more.
template <class Handler>
static void async_teardown(boost::beast::role_type role, Transport& transport, Handler&& handler) {
  boost::beast::websocket::async_teardown(role, transport.socket(), std::forward<Handler>(handler));
}

/// How Beast ends it at once.
static void beast_close_socket(Transport& transport) {
  boost::system::error_code ignored;
  transport.socket().close(ignored);
}

namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using Milliseconds = std::chrono::milliseconds;
using View = std::span<const std::byte>;

constexpr Milliseconds goodbye_timeout = std::chrono::seconds(3);
constexpr int beats_per_idle_timeout = 4;
constexpr std::uint32_t max_http_header_bytes = 8192;
constexpr std::size_t max_reason_bytes = 120;
/// Messages up to this size need no shared memory: they are few and never awaited for long.
constexpr std::size_t small_message_bytes = std::size_t{64} << 10;

std::string seconds_of(Milliseconds span) {
  const auto count = span.count();
  return count % 1000 == 0 ? std::to_string(count / 1000) + " s" : std::to_string(count) + " ms";
}

/// A close frame's text must be UTF-8 and short, or the peer takes the goodbye for an offence.
websocket::close_reason close_reason_of(websocket::close_code code, const std::string& text) {
  websocket::close_reason reason(code);
  for (const char c : text.substr(0, max_reason_bytes)) reason.reason.push_back(c >= ' ' && c <= '~' ? c : '?');
  return reason;
}

/// Why the peer's TLS refused this side; empty where `error` is no alert.
std::string refusal_of(const error_code& error) {
  const std::string alert = alert_of(error);
  // OpenSSL has one alert for both.
  if (alert != "certificate expired") return alert;
  return alert + " (this side's certificate, or the revocation list of the side that refuses it)";
}

/// One connection. Every pending operation and coroutine shares its ownership: Beast forbids to destroy a stream that
/// has operations pending, while the channel may be destroyed at any time.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Stream = websocket::stream<Transport, false>;

  Connection(tcp::socket socket, WebSocketOptions options, std::string name)
      : stream(std::move(socket)),
        peer(std::move(name)),
        options_(options),
        heartbeat_(stream.get_executor()),
        memory_timer_(stream.get_executor()) {}

  /// Once, when the upgrade is done.
  void open();
  void abort() noexcept { end("it was aborted"); }
  void end(const std::string& why, Errc code = Errc::network) noexcept;
  /// Why it has ended on this side; empty as long as it has not.
  [[nodiscard]] const std::string& why_ended() const { return why_ended_; }
  void limit_messages(std::size_t bytes) noexcept { message_limit_ = bytes; }
  void limit_silence(Milliseconds span) noexcept;

  static Task<> send(std::shared_ptr<Connection> self, View head, View body);
  static Task<View> receive(std::shared_ptr<Connection> self);
  static Task<> close(std::shared_ptr<Connection> self, websocket::close_reason reason);

  Stream stream;
  const std::string peer;
  std::string identity;  ///< What the peer's certificate proves.
  std::optional<SystemTime> identity_expires;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;

 private:
  static Task<> lend_memory(std::shared_ptr<Connection> self);
  void schedule_beat();
  void beat();
  /// Whether its certificate has been revoked since the handshake.
  [[nodiscard]] bool is_revoked() const;
  [[noreturn]] void fail_receive(error_code error);
  [[nodiscard]] std::string offence_at(bool is_first) const;
  [[nodiscard]] Error ended(Errc code) const {
    return {code, "the connection to " + peer + " has ended: " + why_ended_};
  }
  /// What ended it. Of all that ends a connection here, TLS alone rejects.
  [[noreturn]] void throw_end() const {
    if (end_code_ == Errc::rejected) throw TlsRefusal(ended(end_code_).what());
    throw ended(end_code_);
  }

  WebSocketOptions options_;
  asio::steady_timer heartbeat_;
  asio::steady_timer memory_timer_;
  Inbox inbox_;
  std::size_t message_limit_ = max_message_bytes;
  std::string why_ended_;
  Errc end_code_ = Errc::network;
  int silent_beats_ = 0;
  bool is_sending_ = false;
  bool is_receiving_ = false;
  bool is_held_back_ = false;  ///< Waits for memory to receive into.
  bool is_pinging_ = false;
  bool was_heard_ = false;
  bool is_closing_ = false;
  bool has_ended_ = false;
};

void Connection::open() {
  error_code ignored;
  stream.next_layer().socket().set_option(tcp::no_delay(true), ignored);
  // Deadlines and heartbeats are our own: Beast's idle timer also runs while nobody reads.
  stream.set_option(
      websocket::stream_base::timeout{websocket::stream_base::none(), websocket::stream_base::none(), false});
  stream.control_callback([this](websocket::frame_type, beast::string_view) { was_heard_ = true; });
  stream.binary(true);
  stream.auto_fragment(false);
  // receive() checks the size itself: Beast would wait without bound for the offender to hang up.
  stream.read_message_max(0);
  schedule_beat();
}

void Connection::end(const std::string& why, Errc code) noexcept {
  if (has_ended_) return;
  has_ended_ = true;
  end_code_ = code;
  try {
    why_ended_ = why;
    heartbeat_.cancel();
    memory_timer_.expires_at(asio::steady_timer::time_point::min());
  } catch (...) {  // NOLINT(bugprone-empty-catch): nothing of this is needed to end
  }
  error_code ignored;
  stream.next_layer().socket().close(ignored);
  if (!is_receiving_) inbox_.begin();  // a lost client's connection may be kept for long
}

void Connection::limit_silence(Milliseconds span) noexcept {
  if (has_ended_ || span == options_.idle_timeout) return;
  options_.idle_timeout = span;
  silent_beats_ = 0;
  try {
    schedule_beat();
  } catch (const boost::system::system_error& error) {
    end(error.what());
  }
}

void Connection::schedule_beat() {
  heartbeat_.expires_after(options_.idle_timeout / beats_per_idle_timeout);
  heartbeat_.async_wait([weak = weak_from_this()](error_code error) {
    const auto self = weak.lock();
    if (!error && self && !self->has_ended_) self->beat();
  });
}

bool Connection::is_revoked() const {
  const SSL* native = stream.next_layer().tls();
  return native != nullptr && options_.tls && options_.tls->has_revoked(native);
}

void Connection::beat() {
  if (is_revoked()) {
    spdlog::warn("{}: the certificate of '{}' has been revoked; the connection is ended", peer, identity);
    return end("its certificate has been revoked", Errc::rejected);
  }
  // Who does not read cannot hear; back-pressure is no sign of death.
  silent_beats_ = is_receiving_ && !is_held_back_ && !was_heard_ ? silent_beats_ + 1 : 0;
  if (silent_beats_ > beats_per_idle_timeout) {
    return end("no sign of life for " + seconds_of(options_.idle_timeout));
  }
  if (is_receiving_ && !was_heard_) inbox_.release_if_empty();
  was_heard_ = false;
  if (!is_pinging_ && !is_closing_) {
    is_pinging_ = true;
    stream.async_ping({}, [self = shared_from_this()](error_code error) {
      self->is_pinging_ = false;
      if (error && !self->is_closing_) self->end(error.message());
    });
  }
  schedule_beat();
}

Task<> Connection::send(std::shared_ptr<Connection> self, View head, View body) {
  check_message_size(head.size() + body.size());
  const Turn turn(self->is_sending_, "send");
  if (self->has_ended_) throw self->ended(Errc::network);
  const std::array<asio::const_buffer, 2> message{asio::buffer(head.data(), head.size()),
                                                  asio::buffer(body.data(), body.size())};
  error_code error;
  auto writing = self->stream.async_write(message, asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(writing);
  if (error) {
    self->end(error.message());
    throw self->ended(Errc::network);
  }
  self->bytes_sent += head.size() + body.size();
}

std::string Connection::offence_at(bool is_first) const {
  if (is_first && stream.got_text()) return "sent a text message; only binary ones have a meaning here";
  // Until a frame's length is known, the hint is Inbox::first_read and says nothing about the message.
  const bool announces_more = !stream.is_message_done() && inbox_.size() + stream.read_size_hint(Inbox::first_read) >
                                                               message_limit_ + Inbox::first_read;
  if (announces_more || inbox_.size() > message_limit_) {
    return "sent a message above " + std::to_string(message_limit_) + " bytes";
  }
  return {};
}

void Connection::fail_receive(error_code error) {
  if (error == websocket::error::closed) {
    const auto& text = stream.reason().reason;
    const std::string reason(text.data(), text.size());
    end("the peer has closed it" + (reason.empty() ? "" : ": " + quotation(reason)), Errc::peer_closed);
  } else if (error == websocket::condition::protocol_violation) {
    end("the peer broke the WebSocket protocol: " + error.message(), Errc::protocol);
  } else if (const auto refusal = refusal_of(error); !refusal.empty()) {
    // Under TLS 1.3 the dialler learns only now what the other side thinks of its certificate.
    end("the peer refused this side's certificate: " + refusal, Errc::rejected);
  } else if (is_closing_ && !has_ended_) {
    throw Error(Errc::peer_closed, "the connection to " + peer + " is being closed on this side");
  }
  end(error.message());
  throw_end();
}

Task<View> Connection::receive(std::shared_ptr<Connection> self) {
  const Turn turn(self->is_receiving_, "receive");
  if (self->has_ended_) self->throw_end();
  Inbox& inbox = self->inbox_;
  inbox.begin();
  do {
    const std::size_t hint = self->stream.read_size_hint(Inbox::first_read);
    if (self->options_.memory && !inbox.has_block() && inbox.size() + hint > small_message_bytes) {
      auto lending = lend_memory(self);
      co_await std::move(lending);
    }
    const auto room = inbox.prepare(hint);
    const bool is_first = inbox.size() == 0;
    error_code error;
    auto reading = self->stream.async_read_some(asio::buffer(room.data(), room.size()),
                                                asio::redirect_error(asio::use_awaitable, error));
    inbox.commit(co_await std::move(reading));
    if (error) {
      inbox.begin();
      self->fail_receive(error);
    }
    self->was_heard_ = true;
    if (const auto offence = self->offence_at(is_first); !offence.empty()) {
      inbox.begin();
      const auto reason = close_reason_of(websocket::close_code::policy_error, "you " + offence);
      co_await close(self, reason);
      throw Error(Errc::protocol, self->peer + " " + offence);
    }
  } while (!self->stream.is_message_done());
  self->bytes_received += inbox.size();
  co_return inbox.finish();
}

Task<> Connection::lend_memory(std::shared_ptr<Connection> self) {
  self->is_held_back_ = true;
  const auto evict = [weak = self->weak_from_this()] {
    const auto alive = weak.lock();
    if (!alive) return;
    alive->end("it was slow with a message whose memory others waited for, for " +
               seconds_of(alive->options_.idle_timeout));
  };
  auto taking = self->options_.memory->take(self->memory_timer_, evict);
  auto block = co_await std::move(taking);
  self->is_held_back_ = false;
  if (self->has_ended_) self->throw_end();
  self->inbox_.lend(std::move(block));
}

Task<> Connection::close(std::shared_ptr<Connection> self, websocket::close_reason reason) {
  if (self->has_ended_ || self->is_closing_) co_return;
  self->is_closing_ = true;
  try {
    const Deadline deadline(self->stream.get_executor(), goodbye_timeout,
                            [self] { self->end("no answer to goodbye"); });
    error_code error;
    auto closing = self->stream.async_close(reason, asio::redirect_error(asio::use_awaitable, error));
    co_await std::move(closing);
    if (!error) self->end("it was closed on this side", Errc::peer_closed);
  } catch (...) {  // NOLINT(bugprone-empty-catch): cancelled; end() below does what is left
  }
  self->end("it was closed on this side, and the peer did not answer");
}

class WebSocketChannel final : public MessageChannel {
 public:
  explicit WebSocketChannel(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}
  ~WebSocketChannel() override { connection_->abort(); }

  Task<> send(View head, View body) override { return Connection::send(connection_, head, body); }
  Task<View> receive() override { return Connection::receive(connection_); }
  void limit_messages(std::size_t bytes) noexcept override { connection_->limit_messages(bytes); }
  void limit_silence(Milliseconds span) noexcept override { connection_->limit_silence(span); }
  Task<> close(std::string reason) override {
    return Connection::close(connection_, close_reason_of(websocket::close_code::normal, reason));
  }
  void abort() noexcept override { connection_->abort(); }
  [[nodiscard]] std::uint64_t bytes_sent() const noexcept override { return connection_->bytes_sent; }
  [[nodiscard]] std::uint64_t bytes_received() const noexcept override { return connection_->bytes_received; }
  [[nodiscard]] std::string peer() const override { return connection_->peer; }
  [[nodiscard]] std::string identity() const override { return connection_->identity; }
  [[nodiscard]] std::optional<SystemTime> identity_expires() const override { return connection_->identity_expires; }

 private:
  std::shared_ptr<Connection> connection_;
};

/// Why a step of the opening failed: the deadline's fault is not the socket's.
std::string reason_of(const Deadline& deadline, error_code error, Milliseconds limit) {
  return deadline.has_expired() ? "no answer within " + seconds_of(limit) : error.message();
}

/// TLS before anything else is said. `host`: the name the peer's certificate must bear, of a dialler.
Task<> secure(std::shared_ptr<Connection> connection, std::shared_ptr<Tls> tls, std::optional<std::string> host,
              error_code& error) {
  Transport::Tls& stream = connection->stream.next_layer().secure(tls->context());
  if (host) expect_host(stream.native_handle(), *host);
  const auto side = host ? asio::ssl::stream_base::client : asio::ssl::stream_base::server;
  auto shaking = stream.async_handshake(side, asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(shaking);
  if (error) co_return;
  connection->identity = peer_name(stream.native_handle());
  connection->identity_expires = peer_expiry(stream.native_handle());
  if (connection->identity.empty()) {
    throw Error(Errc::rejected, connection->peer + ": its certificate names nobody (no common name)");
  }
}

/// Why it failed, by this side's verification, the peer's alert, or the library.
std::string tls_failure(const Connection& connection, error_code error) {
  const SSL* native = connection.stream.next_layer().tls();
  if (const auto failure = verification_failure(native); !failure.empty())
    return "its certificate does not hold: " + failure;
  if (const auto refusal = refusal_of(error); !refusal.empty()) return "it refused this side: " + refusal;
  return error.message();
}

/// One side refused the other; otherwise the wire failed, and another attempt may succeed.
bool is_refusal(const Connection& connection, error_code error) {
  return !verification_failure(connection.stream.next_layer().tls()).empty() || !alert_of(error).empty();
}

Task<std::unique_ptr<MessageChannel>> dial(asio::any_io_executor executor, Url url, WebSocketOptions options) {
  auto connection = std::make_shared<Connection>(tcp::socket(executor), options, host_and_port(url));
  auto resolver = std::make_shared<tcp::resolver>(executor);
  const auto give_up = [connection, resolver] {
    resolver->cancel();
    connection->abort();
  };
  const Deadline deadline(executor, options.handshake_timeout, give_up);
  const std::stop_callback on_stop(options.stop, give_up);
  error_code error;
  // A step that was done just before it was cancelled reports no error.
  const auto is_over = [&] { return deadline.has_expired() || options.stop.stop_requested(); };
  const auto fail = [&url, &deadline, &error, &options](const char* what) {
    throw Error(
        Errc::network,
        what + to_string(url) + ": " +
            (options.stop.stop_requested() ? "told to stop" : reason_of(deadline, error, options.handshake_timeout)));
  };
  auto resolving =
      resolver->async_resolve(url.host, std::to_string(url.port), asio::redirect_error(asio::use_awaitable, error));
  const auto endpoints = co_await std::move(resolving);
  if (error || is_over()) fail("cannot find the host of ");
  auto& socket = connection->stream.next_layer().socket();
  auto connecting = asio::async_connect(socket, endpoints, asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(connecting);
  if (error || is_over()) fail("cannot connect to ");

  if (url.is_secure) {
    std::optional<std::string> host = url.host;
    auto securing = secure(connection, options.tls, std::move(host), error);
    co_await std::move(securing);
    if (is_over()) fail("no TLS at ");
    if (error) {
      const std::string message = "no TLS at " + to_string(url) + ": " + tls_failure(*connection, error);
      if (is_refusal(*connection, error)) throw TlsRefusal(message);
      throw Error(Errc::network, message);
    }
  }

  // The client masks, and so copies, what it sends: a whole message at once.
  connection->stream.write_buffer_bytes(max_message_bytes);
  websocket::response_type response;
  auto upgrading = connection->stream.async_handshake(response, host_and_port(url), url.path,
                                                      asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(upgrading);
  if (error == websocket::error::upgrade_declined) {
    throw Error(Errc::protocol, to_string(url) + " is no Headstart server: it answered HTTP " +
                                    std::to_string(response.result_int()) + " to the WebSocket upgrade");
  }
  if (const auto refusal = refusal_of(error); !refusal.empty()) {
    throw TlsRefusal(to_string(url) + " refuses this client's certificate: " + refusal);
  }
  if (error || is_over()) fail("no WebSocket at ");
  connection->open();
  co_return std::make_unique<WebSocketChannel>(std::move(connection));
}

/// Tells a browser or a health check that it came to the wrong place, as far as it listens.
Task<> decline(std::shared_ptr<Connection> connection) {
  http::response<http::string_body> response(http::status::upgrade_required, 11);
  response.set(http::field::connection, "close, upgrade");
  response.set(http::field::upgrade, "websocket");
  response.set(http::field::content_type, "text/plain");
  response.body() = "This is a Headstart server: it speaks WebSocket with headstart-client.\n";
  response.prepare_payload();
  error_code ignored;
  auto& transport = connection->stream.next_layer();
  auto writing = http::async_write(transport, response, asio::redirect_error(asio::use_awaitable, ignored));
  co_await std::move(writing);
  transport.socket().shutdown(tcp::socket::shutdown_send, ignored);
}

Task<std::unique_ptr<MessageChannel>> upgrade(std::shared_ptr<Connection> connection, WebSocketOptions options) {
  const Deadline deadline(
      connection->stream.get_executor(), options.handshake_timeout,
      [connection, limit = options.handshake_timeout] { connection->end("no answer within " + seconds_of(limit)); });
  const std::string& peer = connection->peer;
  error_code error;
  if (options.tls) {
    auto securing = secure(connection, options.tls, std::nullopt, error);
    co_await std::move(securing);
    if (error && connection->why_ended().empty()) {
      throw Error(Errc::rejected, peer + " was refused by TLS: " + tls_failure(*connection, error));
    }
  }
  auto& transport = connection->stream.next_layer();
  beast::flat_buffer buffer(max_http_header_bytes);
  http::request_parser<http::empty_body> parser;
  parser.header_limit(max_http_header_bytes);
  if (!error) {
    auto reading = http::async_read_header(transport, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
    co_await std::move(reading);
  }
  const bool has_hung_up = error == http::error::end_of_stream || error == http::error::partial_message;
  const std::string& why_ended = connection->why_ended();
  const bool is_no_http = error.category() == http::make_error_code(http::error::bad_method).category();
  if (is_no_http && !has_hung_up && why_ended.empty()) {
    throw Error(Errc::protocol, peer + " sent no HTTP request: " + error.message());
  }
  const auto lost = [&] {
    return Error(Errc::network,
                 peer + " did not finish its handshake: " + (why_ended.empty() ? error.message() : why_ended));
  };
  if (error || !why_ended.empty()) throw lost();
  if (!websocket::is_upgrade(parser.get()) || buffer.size() > 0) {
    co_await decline(connection);
    throw Error(Errc::protocol, peer + " sent a plain HTTP request, not a WebSocket upgrade");
  }
  auto accepting = connection->stream.async_accept(parser.get(), asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(accepting);
  if (error == websocket::condition::handshake_failed) {
    throw Error(Errc::protocol, peer + " sent a WebSocket upgrade that does not hold: " + error.message());
  }
  if (error || !why_ended.empty()) throw lost();
  connection->open();
  co_return std::make_unique<WebSocketChannel>(std::move(connection));
}

}  // namespace

Task<std::unique_ptr<MessageChannel>> connect(asio::any_io_executor executor, const Url& url,
                                              WebSocketOptions options) {
  if (url.is_secure && !options.tls) {
    throw Error(Errc::usage, to_string(url) + " speaks TLS: tls.authority, tls.certificate and tls.key are needed");
  }
  return dial(std::move(executor), url, std::move(options));
}

Task<std::unique_ptr<MessageChannel>> handshake(PendingPeer pending, WebSocketOptions options) {
  const auto state = std::move(pending).release();
  auto connection = std::make_shared<Connection>(std::move(state->socket), options, state->peer);
  state->end = [weak = std::weak_ptr(connection)](const std::string& reason) {
    if (const auto alive = weak.lock()) alive->end(reason);
  };
  return upgrade(std::move(connection), std::move(options));
}

}  // namespace headstart::net
