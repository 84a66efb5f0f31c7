#include "shared/net/websocket.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"
#include "shared/net/deadline.hpp"
#include "shared/net/dial.hpp"
#include "shared/net/inbox.hpp"
#include "shared/net/pending_peer.hpp"
#include "shared/net/receive_memory.hpp"
#include "shared/net/single_flight.hpp"
#include "shared/net/tls.hpp"
#include "shared/net/transport.hpp"
#include "shared/net/turn_away.hpp"

namespace headstart::net {

/// How Beast, which finds it by its argument, ends the connection under a closed WebSocket. The close frames have said
/// it under TLS; TLS's own goodbye would tell nothing more.
template <class Handler>
static void async_teardown(boost::beast::role_type role, Transport& transport, Handler&& handler) {
  transport.on_teardown();
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

constexpr int looks_per_idle_timeout = 16;
constexpr int looks_per_beat = 4;
constexpr std::uint32_t max_http_header_bytes = 8192;
constexpr std::size_t max_reason_bytes = 120;
/// Messages up to this size need no shared memory: they are few and never awaited for long.
constexpr std::size_t small_message_bytes = std::size_t{64} << 10;
constexpr std::size_t max_split_head_bytes = 512;

std::string seconds_of(Milliseconds span) {
  const auto count = span.count();
  return count % 1000 == 0 ? std::to_string(count / 1000) + " s" : std::to_string(count) + " ms";
}

/// Printable and short, whatever it was.
std::string plain_text(std::string_view text, std::size_t most = max_reason_bytes) {
  std::string plain;
  for (const char c : text.substr(0, most)) plain.push_back(c >= ' ' && c <= '~' ? c : '?');
  return plain;
}

/// A close frame's text must be UTF-8 and short, or the peer takes the goodbye for a violation.
websocket::close_reason close_reason_of(websocket::close_code code, const std::string& text) {
  websocket::close_reason reason(code);
  for (const char c : plain_text(text)) reason.reason.push_back(c);
  return reason;
}

/// Why the peer's TLS refused this side's certificate; empty where `error` is no such refusal.
std::string refusal_of(const error_code& error) {
  const std::string alert = certificate_alert_of(error);
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
        goodbye_(stream.get_executor()),
        memory_timer_(stream.get_executor()) {}

  /// Once, when the upgrade is done.
  void open();
  void abort() noexcept { end("it was aborted"); }
  void end(const std::string& why, Errc code = Errc::network) noexcept;
  /// The same; a peer to which nothing was said yet is told that there is no place.
  void turn_away(const std::string& why) noexcept;
  /// From here on the peer was told something.
  void begin_to_speak() noexcept { has_spoken_ = true; }
  /// Why it has ended on this side; empty as long as it has not.
  [[nodiscard]] const std::string& why_ended() const { return why_ended_; }
  void limit_messages(std::size_t bytes) noexcept { message_limit_ = bytes; }
  void limit_silence(Milliseconds span) noexcept;

  static Task<> send(std::shared_ptr<Connection> self, View head, View body);
  static Task<View> receive(std::shared_ptr<Connection> self);
  static Task<SplitMessage> receive_into(std::shared_ptr<Connection> self, std::size_t head_bytes,
                                         std::span<std::byte> place);
  static Task<bool> answers(std::shared_ptr<Connection> self, Milliseconds limit);
  static Task<> close(std::shared_ptr<Connection> self, websocket::close_reason reason);

  Stream stream;
  const std::string peer;
  std::string identity;  ///< What the peer's certificate proves.
  std::optional<SystemTime> identity_expires;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;

 private:
  static Task<> lend_memory(std::shared_ptr<Connection> self);
  /// One read of the message under way, of which `size` bytes are there, into `room`; the bytes that came. Ends the
  /// connection and throws where it is lost, or where the message breaks a rule: above `limit` bytes, or of text.
  template <class Room>
  static Task<std::size_t> read_some(std::shared_ptr<Connection> self, Room room, std::size_t size, std::size_t limit);
  /// Beast's operations wait for each other: a close for the read that is under way, and a read that meets a broken
  /// frame for the close. Closing the socket ends neither of two that do; cancelling each of them does.
  void cancel_operations();
  void schedule_look();
  void look();
  void beat();
  void ping();
  void note_sign_of_life();
  void end_probes();
  /// Goodbye was said, by whomever: the socket is closed soon, whatever the peer does.
  void begin_goodbye();
  void end_goodbye();
  /// Whether its certificate has been revoked since the handshake.
  [[nodiscard]] bool is_revoked() const;
  [[noreturn]] void fail_receive(error_code error);
  [[nodiscard]] std::string violation_at(bool is_first, std::size_t size, std::size_t limit) const;
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
  asio::steady_timer goodbye_;
  Timer memory_timer_;
  asio::cancellation_signal cancel_read_, cancel_write_, cancel_ping_, cancel_close_;
  std::vector<std::weak_ptr<asio::steady_timer>> probes_;  ///< Of answers(), each ended by a sign of life.
  std::uint64_t num_signs_of_life_ = 0;
  Inbox inbox_;
  std::size_t message_limit_ = max_message_bytes;
  std::string why_ended_;
  Errc end_code_ = Errc::network;
  int num_looks_ = 0;
  int silent_looks_ = 0;
  bool is_sending_ = false;
  bool is_receiving_ = false;
  bool is_held_back_ = false;  ///< Waits for memory to receive into.
  bool is_pinging_ = false;
  bool was_heard_ = false;
  bool is_closing_ = false;
  bool is_in_goodbye_ = false;
  bool has_peer_closed_ = false;
  bool has_spoken_ = false;
  bool has_ended_ = false;
};

/// For an operation of the stream that cancel_operations() must be able to end.
auto cancellable(asio::cancellation_signal& signal, error_code& error) {
  return asio::bind_cancellation_slot(signal.slot(), asio::redirect_error(asio::use_awaitable, error));
}

void Connection::open() {
  error_code ignored;
  stream.next_layer().socket().set_option(tcp::no_delay(true), ignored);
  // Deadlines and heartbeats are our own: Beast's idle timer also runs while nobody reads.
  stream.set_option(
      websocket::stream_base::timeout{websocket::stream_base::none(), websocket::stream_base::none(), false});
  stream.control_callback([this](websocket::frame_type type, beast::string_view) {
    was_heard_ = true;
    note_sign_of_life();
    if (type != websocket::frame_type::close) return;
    has_peer_closed_ = true;
    begin_goodbye();
  });
  stream.next_layer().on_teardown = [this] { begin_goodbye(); };
  stream.binary(true);
  stream.auto_fragment(false);
  // receive() checks the size itself: Beast would wait without bound for the offender to hang up.
  stream.read_message_max(0);
  schedule_look();
}

void Connection::end(const std::string& why, Errc code) noexcept {
  if (has_ended_) return;
  has_ended_ = true;
  end_code_ = code;
  try {
    why_ended_ = why;
    heartbeat_.cancel();
    goodbye_.cancel();
    memory_timer_.end();
    end_probes();
    // Not from here: what is cancelled goes on at once, in whatever calls this.
    if (is_closing_) asio::post(stream.get_executor(), [self = shared_from_this()] { self->cancel_operations(); });
  } catch (...) {  // NOLINT(bugprone-empty-catch): without memory for it the process is about to end
  }
  error_code ignored;
  stream.next_layer().socket().close(ignored);
  if (!is_receiving_) inbox_.begin();  // a lost client's connection may be kept for long
}

void Connection::turn_away(const std::string& why) noexcept {
  if (has_ended_) return;
  if (!has_spoken_) net::turn_away(stream.next_layer().socket(), options_.tls != nullptr);
  end(why);
}

void Connection::cancel_operations() {
  for (auto* signal : {&cancel_close_, &cancel_read_, &cancel_write_, &cancel_ping_}) {
    signal->emit(asio::cancellation_type::terminal);
  }
}

void Connection::begin_goodbye() {
  if (has_ended_ || is_in_goodbye_) return;
  is_in_goodbye_ = true;
  goodbye_.expires_after(options_.goodbye_timeout);
  goodbye_.async_wait([weak = weak_from_this()](error_code error) {
    const auto self = weak.lock();
    if (!error && self) self->end_goodbye();
  });
}

void Connection::end_goodbye() {
  if (is_closing_) return end("it was closed on this side, and the peer did not answer");
  if (has_peer_closed_) return end("the peer has closed it, and did not hang up", Errc::peer_closed);
  end("the peer broke the WebSocket protocol, and did not hang up when it was told", Errc::protocol);
}

void Connection::limit_silence(Milliseconds span) noexcept {
  if (has_ended_ || span == options_.idle_timeout) return;
  options_.idle_timeout = span;
  silent_looks_ = 0;
  try {
    schedule_look();
  } catch (const boost::system::system_error& error) {
    end(error.what());
  }
}

void Connection::schedule_look() {
  heartbeat_.expires_after(options_.idle_timeout / looks_per_idle_timeout);
  heartbeat_.async_wait([weak = weak_from_this()](error_code error) {
    const auto self = weak.lock();
    if (!error && self && !self->has_ended_) self->look();
  });
}

void Connection::note_sign_of_life() {
  ++num_signs_of_life_;
  end_probes();
}

void Connection::end_probes() {
  for (const auto& weak : probes_) {
    if (const auto probe = weak.lock()) probe->cancel();
  }
}

bool Connection::is_revoked() const {
  const SSL* native = stream.next_layer().tls();
  return native != nullptr && options_.tls && options_.tls->has_revoked(native);
}

void Connection::look() {
  // Looks are counted, not time: a process that was stopped for an hour hears its peer before it gives it up.
  // Who does not read cannot hear; back-pressure is no sign of death.
  silent_looks_ = is_receiving_ && !is_held_back_ && !was_heard_ ? silent_looks_ + 1 : 0;
  was_heard_ = false;
  // A sign that came right after a look was seen by the next one only.
  if (silent_looks_ == looks_per_idle_timeout - 1) {
    return end("no sign of life for " + seconds_of(options_.idle_timeout));
  }
  if (++num_looks_ % looks_per_beat == 0) beat();
  if (!has_ended_) schedule_look();
}

void Connection::beat() {
  if (is_revoked()) {
    spdlog::warn("{}: the certificate of '{}' has been revoked; the connection is ended", peer, identity);
    return end("its certificate has been revoked", Errc::rejected);
  }
  if (is_receiving_ && silent_looks_ >= looks_per_beat) inbox_.release_if_empty();
  ping();
}

void Connection::ping() {
  if (is_pinging_ || is_closing_ || is_in_goodbye_) return;
  is_pinging_ = true;
  stream.async_ping({},
                    asio::bind_cancellation_slot(cancel_ping_.slot(), [self = shared_from_this()](error_code error) {
                      self->is_pinging_ = false;
                      if (error && !self->is_closing_) self->end(error.message());
                    }));
}

Task<bool> Connection::answers(std::shared_ptr<Connection> self, Milliseconds limit) {
  if (self->has_ended_ || self->is_closing_) co_return false;
  // Who does not read cannot hear.
  if (!self->is_receiving_ || self->is_held_back_) co_return true;
  const std::uint64_t before = self->num_signs_of_life_;
  const auto timer = std::make_shared<asio::steady_timer>(self->stream.get_executor(), limit);
  std::erase_if(self->probes_, [](const auto& probe) { return probe.expired(); });
  self->probes_.push_back(timer);
  self->ping();
  error_code ignored;
  auto waiting = timer->async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  co_await std::move(waiting);
  co_return !self->has_ended_ && (self->is_held_back_ || self->num_signs_of_life_ != before);
}

Task<> Connection::send(std::shared_ptr<Connection> self, View head, View body) {
  check_message_size(head.size() + body.size());
  const SingleFlight turn(self->is_sending_, "send");
  if (self->has_ended_) throw self->ended(Errc::network);
  const std::array<asio::const_buffer, 2> message{asio::buffer(head.data(), head.size()),
                                                  asio::buffer(body.data(), body.size())};
  const Deadline deadline(self->stream.get_executor(), self->options_.write_timeout, [self] {
    self->end("it took nothing of a message for " + seconds_of(self->options_.write_timeout));
  });
  error_code error;
  auto writing = self->stream.async_write(message, cancellable(self->cancel_write_, error));
  co_await std::move(writing);
  if (error) {
    self->end(error.message());
    throw self->ended(Errc::network);
  }
  self->bytes_sent += head.size() + body.size();
  self->note_sign_of_life();
}

std::string Connection::violation_at(bool is_first, std::size_t size, std::size_t limit) const {
  if (is_first && stream.got_text()) return "sent a text message; only binary ones have a meaning here";
  // Until a frame's length is known, the hint is Inbox::first_read and says nothing about the message.
  const bool announces_more =
      !stream.is_message_done() && size + stream.read_size_hint(Inbox::first_read) > limit + Inbox::first_read;
  if (announces_more || size > limit) return "sent a message above " + std::to_string(limit) + " bytes";
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

template <class Room>
Task<std::size_t> Connection::read_some(std::shared_ptr<Connection> self, Room room, std::size_t size,
                                        std::size_t limit) {
  error_code error;
  auto reading = self->stream.async_read_some(room, cancellable(self->cancel_read_, error));
  const std::size_t count = co_await std::move(reading);
  if (error) {
    self->inbox_.begin();
    self->fail_receive(error);
  }
  self->was_heard_ = true;
  self->note_sign_of_life();
  if (const auto violation = self->violation_at(size == 0, size + count, limit); !violation.empty()) {
    self->inbox_.begin();
    const auto reason = close_reason_of(websocket::close_code::policy_error, "you " + violation);
    co_await close(self, reason);
    throw Error(Errc::protocol, self->peer + " " + violation);
  }
  co_return count;
}

Task<View> Connection::receive(std::shared_ptr<Connection> self) {
  const SingleFlight turn(self->is_receiving_, "receive");
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
    auto reading = read_some(self, asio::buffer(room.data(), room.size()), inbox.size(), self->message_limit_);
    inbox.commit(co_await std::move(reading));
  } while (!self->stream.is_message_done());
  self->bytes_received += inbox.size();
  co_return inbox.finish();
}

Task<SplitMessage> Connection::receive_into(std::shared_ptr<Connection> self, std::size_t head_bytes,
                                            std::span<std::byte> place) {
  const SingleFlight turn(self->is_receiving_, "receive");
  if (self->has_ended_) self->throw_end();
  if (head_bytes > max_split_head_bytes) throw Error(Errc::internal, "a head of a message that is too long");
  self->inbox_.begin();
  const auto small = self->inbox_.prepare(Inbox::first_read);
  const auto head = small.first(head_bytes);
  // Room behind the place: a message that is too long is seen, and one that ends with an empty frame can end.
  const auto beyond = small.subspan(head_bytes);
  const std::size_t limit = std::min(self->message_limit_, head_bytes + place.size());
  std::size_t size = 0;
  do {
    const std::size_t in_head = std::min(size, head_bytes);
    const auto left = place.subspan(size - in_head);
    const std::array<asio::mutable_buffer, 3> room{asio::buffer(head.data() + in_head, head_bytes - in_head),
                                                   asio::buffer(left.data(), left.size()),
                                                   asio::buffer(beyond.data(), beyond.size())};
    auto reading = read_some(self, room, size, limit);
    size += co_await std::move(reading);
  } while (!self->stream.is_message_done());
  self->bytes_received += size;
  const std::size_t in_head = std::min(size, head_bytes);
  co_return SplitMessage{head.first(in_head), place.first(size - in_head)};
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
    self->begin_goodbye();
    error_code error;
    auto closing = self->stream.async_close(reason, cancellable(self->cancel_close_, error));
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
  Task<SplitMessage> receive_into(std::size_t head_bytes, std::span<std::byte> place) override {
    return Connection::receive_into(connection_, head_bytes, place);
  }
  void limit_messages(std::size_t bytes) noexcept override { connection_->limit_messages(bytes); }
  void limit_silence(Milliseconds span) noexcept override { connection_->limit_silence(span); }
  Task<bool> answers(Milliseconds limit) override { return Connection::answers(connection_, limit); }
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

/// TLS before anything else is said. `host`: what a dialler has dialled.
Task<> secure(std::shared_ptr<Connection> connection, WebSocketOptions options, std::optional<std::string> host,
              error_code& error) {
  Transport::Tls& stream = connection->stream.next_layer().secure(options.tls->context());
  connection->begin_to_speak();
  if (!host) {
    if (options.requires_peer_certificate) expect_peer_certificate(stream.native_handle());
  } else if (options.expected_name.empty()) {
    expect_host(stream.native_handle(), *host);
  } else {
    expect_name(stream.native_handle(), options.expected_name);
  }
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
  if (const auto failure = verification_failure(native); !failure.empty()) return failure;
  if (const auto refusal = refusal_of(error); !refusal.empty()) return "it refused this side: " + refusal;
  return error.message();
}

/// One side refused the other's certificate; otherwise the wire failed, and another attempt may succeed.
bool is_refusal(const Connection& connection, error_code error) {
  return !verification_failure(connection.stream.next_layer().tls()).empty() || !refusal_of(error).empty();
}

/// The same to a dialler, who wants to know what stands there.
std::string tls_failure_at_dialler(const Connection& connection, error_code error) {
  std::string words = tls_failure(connection, error);
  if (is_refusal(connection, error)) return words;
  if (is_no_place_alert(error)) return "the server takes no more connections (" + words + ")";
  if (speaks_no_tls(error)) return "what answers there speaks no TLS (" + words + "); a server in the clear is ws://";
  const bool has_hung_up = error == asio::ssl::error::stream_truncated || error == asio::error::eof ||
                           error == asio::error::connection_reset;
  if (has_hung_up) {
    words +=
        "; it hung up in the middle of TLS's handshake, as a server does that takes no more connections, and one in "
        "the clear "
        "(ws://)";
  }
  return words;
}

bool is_of_http(error_code error) {
  return error.category() == http::make_error_code(http::error::bad_method).category();
}

bool has_hung_up_in_http(error_code error) {
  return error == http::error::end_of_stream || error == http::error::partial_message;
}

/// What a web server, a proxy, or a Headstart server that does not upgrade has answered.
Error declined(const Url& url, const websocket::response_type& response) {
  const auto header = [&response](http::field field) {
    const auto value = response[field];
    return plain_text(std::string_view(value.data(), value.size()));
  };
  const std::string status = "HTTP " + std::to_string(response.result_int()) + " " +
                             plain_text(std::string_view(response.reason().data(), response.reason().size()));
  const std::string server = header(http::field::server);
  if (server == http_server_name) {
    const std::string line = plain_text(std::string_view(response.body()).substr(0, response.body().find('\n')));
    return {Errc::network, to_string(url) + ": " + line + " (" + status + ")"};
  }
  const std::string who = server.empty() ? "" : " by '" + server + "'";
  const auto code = response.result();
  if (code == http::status::bad_gateway || code == http::status::service_unavailable ||
      code == http::status::gateway_timeout) {
    return {Errc::network,
            to_string(url) + ": a proxy in front of it answered " + status + who + "; it reaches no Headstart server"};
  }
  const std::string type = header(http::field::content_type);
  return {Errc::protocol, to_string(url) + " is no Headstart server: it answered " + status + who +
                              (type.empty() ? "" : ", '" + type + "',") + " to the WebSocket upgrade"};
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
  std::vector<tcp::endpoint> addresses;
  for (const auto& entry : endpoints) addresses.push_back(entry.endpoint());
  const bool has_several = addresses.size() > 1;
  auto& socket = connection->stream.next_layer().socket();
  auto connecting = connect_to_any(socket, std::move(addresses), options.handshake_timeout, is_over);
  const std::string unreached = co_await std::move(connecting);
  if (is_over() && (!has_several || options.stop.stop_requested())) fail("cannot connect to ");
  if (!unreached.empty()) throw Error(Errc::network, "cannot connect to " + to_string(url) + ": " + unreached);

  if (url.is_secure) {
    std::optional<std::string> host = url.host;
    auto securing = secure(connection, options, std::move(host), error);
    co_await std::move(securing);
    if (is_over()) fail("no TLS at ");
    if (error) {
      const std::string message = "no TLS at " + to_string(url) + ": " + tls_failure_at_dialler(*connection, error);
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
  if (error == websocket::error::upgrade_declined) throw declined(url, response);
  if (const auto refusal = refusal_of(error); !refusal.empty()) {
    throw TlsRefusal(to_string(url) + " refuses this client's certificate: " + refusal);
  }
  if (is_over()) fail("no WebSocket at ");
  if (error) {
    std::string words = error.message();
    if (has_hung_up_in_http(error) || error == asio::error::connection_reset) {
      words += "; it hung up in the middle of the opening, as a server does that takes no more connections";
    } else if (is_of_http(error)) {
      words += "; what answers there speaks no HTTP";
    }
    if (!url.is_secure) words += ". A server with TLS is wss://";
    throw Error(Errc::network, "no WebSocket at " + to_string(url) + ": " + words);
  }
  connection->open();
  co_return std::make_unique<WebSocketChannel>(std::move(connection));
}

/// Tells a browser, a health check, or who mistook ws:// for wss://, that it came to the wrong place, as far as it
/// listens. `stream`: under TLS where it is there.
template <class Stream>
Task<> answer_in_words(Stream& stream, tcp::socket& socket, std::string answer) {
  error_code ignored;
  auto writing = asio::async_write(stream, asio::buffer(answer), asio::redirect_error(asio::use_awaitable, ignored));
  co_await std::move(writing);
  socket.shutdown(tcp::socket::shutdown_send, ignored);
}

/// Bytes with which TLS begins.
bool is_client_hello(const beast::flat_buffer& buffer) {
  return buffer.size() > 0 && *static_cast<const unsigned char*>(buffer.data().data()) == 0x16;
}

Task<std::unique_ptr<MessageChannel>> upgrade(std::shared_ptr<Connection> connection, WebSocketOptions options,
                                              HandshakeSteps steps) {
  std::optional<Deadline> deadline;
  const auto limit = std::min(options.stranger_timeout, options.handshake_timeout);
  const auto begin_step = [&] {
    deadline.emplace(connection->stream.get_executor(), limit,
                     [connection, limit] { connection->end("no answer within " + seconds_of(limit)); });
  };
  begin_step();
  const std::string& peer = connection->peer;
  auto& transport = connection->stream.next_layer();
  error_code error;
  // A peer that says nothing costs no TLS.
  auto listening =
      transport.socket().async_wait(tcp::socket::wait_read, asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(listening);
  if (!error && connection->why_ended().empty()) steps.on_first_bytes();
  if (options.tls && !error) {
    auto securing = secure(connection, options, std::nullopt, error);
    co_await std::move(securing);
    if (error && connection->why_ended().empty()) {
      if (speaks_no_tls(error)) {
        auto answering = answer_in_words(transport.socket(), transport.socket(),
                                         plain_answer("400 Bad Request", "this server speaks TLS: dial wss://"));
        co_await std::move(answering);
      }
      throw Error(Errc::rejected, peer + " was refused by TLS: " + tls_failure(*connection, error));
    }
    if (!error) steps.on_certificate(connection->identity);
    begin_step();
  }
  beast::flat_buffer buffer(max_http_header_bytes);
  http::request_parser<http::empty_body> parser;
  parser.header_limit(max_http_header_bytes);
  if (!error) {
    auto reading = http::async_read_header(transport, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
    co_await std::move(reading);
  }
  const std::string& why_ended = connection->why_ended();
  if (is_of_http(error) && !has_hung_up_in_http(error) && why_ended.empty()) {
    connection->begin_to_speak();
    if (!options.tls && is_client_hello(buffer)) {
      auto answering = answer_in_words(transport, transport.socket(),
                                       plain_answer("400 Bad Request", "this server speaks no TLS: dial ws://"));
      co_await std::move(answering);
      throw Error(Errc::protocol, peer + " speaks TLS, and this server does not: its clients dial ws://");
    }
    throw Error(Errc::protocol, peer + " sent no HTTP request: " + error.message());
  }
  const auto lost = [&] {
    return Error(Errc::network,
                 peer + " did not finish its handshake: " + (why_ended.empty() ? error.message() : why_ended));
  };
  if (error || !why_ended.empty()) throw lost();
  connection->begin_to_speak();
  if (!websocket::is_upgrade(parser.get()) || buffer.size() > 0) {
    auto answering = answer_in_words(
        transport, transport.socket(),
        plain_answer("426 Upgrade Required", "This is a Headstart server: it speaks WebSocket with headstart-client.",
                     "Connection: close, upgrade\r\nUpgrade: websocket"));
    co_await std::move(answering);
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

Task<std::unique_ptr<MessageChannel>> handshake(PendingPeer pending, WebSocketOptions options, HandshakeSteps steps) {
  const auto state = std::move(pending).release();
  auto connection = std::make_shared<Connection>(std::move(state->socket), options, state->peer);
  state->end = [weak = std::weak_ptr(connection)](const std::string& reason) {
    if (const auto alive = weak.lock()) alive->turn_away(reason);
  };
  return upgrade(std::move(connection), std::move(options), std::move(steps));
}

Task<std::unique_ptr<MessageChannel>> connect(asio::any_io_executor executor, const Url& url) {
  return connect(std::move(executor), url, WebSocketOptions());
}

Task<std::unique_ptr<MessageChannel>> handshake(PendingPeer pending, WebSocketOptions options) {
  return handshake(std::move(pending), std::move(options), HandshakeSteps());
}

Task<std::unique_ptr<MessageChannel>> handshake(PendingPeer pending) {
  return handshake(std::move(pending), WebSocketOptions());
}

}  // namespace headstart::net
