// What only WebSockets promise: openings that fail, peers that misbehave, connections that fall silent.
#include "shared/net/websocket.hpp"

#include <array>
#include <optional>
#include <set>
#include <stop_token>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include "shared/net/redial.hpp"
#include "tests/contract/channel_support.hpp"
#include "tests/contract/raw_peer.hpp"

namespace headstart::net {
namespace {

using asio::experimental::awaitable_operators::operator&&;
using tcp = asio::ip::tcp;
using std::chrono::milliseconds;

std::string header_of(unsigned char first_byte, std::uint64_t announced) {
  std::string bytes{static_cast<char>(first_byte), '\xff'};
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(announced >> shift & 0xff);
  return bytes + std::string(4, '\0');
}

struct Heard {
  Failure failure;
  std::string message;
  std::uint64_t bytes_received = 0;
};

constexpr std::size_t head_bytes = 4;

/// `place_bytes`: of the place to receive into; without one it is received as a whole.
Task<Heard> hear(Listener& listener, std::optional<std::size_t> place_bytes = {}) {
  auto accepting = accept_one(listener, {});
  auto channel = co_await std::move(accepting);
  Heard heard;
  try {
    if (place_bytes) {
      Bytes place(*place_bytes);
      const SplitMessage message = co_await channel->receive_into(head_bytes, place);
      heard.message = text_of(message.head) + text_of(message.body);
    } else {
      heard.message = text_of(co_await channel->receive());
    }
  } catch (const Error& error) {
    heard.failure = {true, error.code(), error.what()};
  }
  heard.bytes_received = channel->bytes_received();
  co_return heard;
}

Task<std::string> upgrade_and_write(std::uint16_t port, std::string bytes) {
  RawPeer peer = co_await RawPeer::dial(port);
  co_await peer.write(std::string(upgrade_request));
  const std::string header = co_await peer.read_header();
  CHECK(contains(header, "101 Switching Protocols"));
  CHECK_FALSE(contains(header, "Sec-WebSocket-Extensions"));
  co_await peer.write(std::move(bytes));
  std::array<char, 256> answer{};
  boost::system::error_code ended;
  const auto count =
      co_await peer.socket.async_read_some(asio::buffer(answer), asio::redirect_error(asio::use_awaitable, ended));
  co_return std::string(answer.data(), count);
}

/// A raw peer upgrades and writes `bytes`; what the server's receive() or receive_into() makes of it, and the server's
/// first answer.
Heard receive_from_raw_peer(std::string bytes, std::string* answer = nullptr,
                            std::optional<std::size_t> place_bytes = {}) {
  Heard heard;
  const auto task = [place_bytes](std::string sent, Heard& result, std::string* said) -> Task<> {
    Listener listener(co_await asio::this_coro::executor, "127.0.0.1", 0);
    auto both = hear(listener, place_bytes) && upgrade_and_write(listener.port(), std::move(sent));
    auto [received, answered] = co_await std::move(both);
    result = std::move(received);
    if (said != nullptr) *said = std::move(answered);
  };
  run(task(std::move(bytes), heard, answer));
  return heard;
}

TEST_CASE("binary messages of foreign peers are understood, in one frame or many, with pings between") {
  CHECK(receive_from_raw_peer(frame(0x82, "hello")).message == "hello");
  CHECK(receive_from_raw_peer(frame(0x02, "he") + frame(0x89, "ping") + frame(0x00, "ll") + frame(0x80, "o")).message ==
        "hello");
  const std::string half(max_message_bytes / 2, 'x');
  CHECK(receive_from_raw_peer(frame(0x02, half) + frame(0x80, half)).message == half + half);
}

TEST_CASE("a text message ends the connection as a protocol error") {
  std::string answer;
  const auto heard = receive_from_raw_peer(frame(0x81, "hello"), &answer);
  CHECK(heard.failure.code == Errc::protocol);
  CHECK(contains(heard.failure.message, "text message"));
  CHECK(contains(heard.failure.message, "127.0.0.1:"));
  CHECK(heard.bytes_received == 0);
  REQUIRE(answer.size() > 4);
  CHECK(answer[0] == '\x88');
  CHECK(contains(answer, "text message"));
}

TEST_CASE("a message above the limit ends the connection as a protocol error, announced or in pieces") {
  const auto limit = std::to_string(max_message_bytes);
  for (const std::uint64_t announced :
       {std::uint64_t{max_message_bytes} + 5000, std::uint64_t{1} << 40, ~std::uint64_t{0} >> 1}) {
    CAPTURE(announced);
    for (const unsigned char first_byte : std::array<unsigned char, 2>{0x82, 0x02}) {
      const auto heard = receive_from_raw_peer(header_of(first_byte, announced) + std::string(2000, 'x'));
      CHECK(heard.failure.code == Errc::protocol);
      CHECK(contains(heard.failure.message, limit));
    }
  }
  const auto whole = receive_from_raw_peer(frame(0x82, std::string(max_message_bytes + 1, 'x')));
  CHECK(whole.failure.code == Errc::protocol);
  CHECK(contains(whole.failure.message, limit));
  std::string pieces = frame(0x02, std::string(max_message_bytes - 1, 'x'));
  pieces += frame(0x00, "y") + frame(0x80, "z");
  CHECK(receive_from_raw_peer(pieces).failure.code == Errc::protocol);
}

TEST_CASE("a message that is received in its place may fill it, in pieces too, and not exceed it") {
  static constexpr std::size_t place_bytes = 70'000;  // frame() knows no 16-bit lengths
  const auto heard_of = [](std::string bytes) { return receive_from_raw_peer(std::move(bytes), nullptr, place_bytes); };
  const std::string full(head_bytes + place_bytes, 'x');
  CHECK((heard_of(frame(0x82, full)).message == full));
  CHECK((heard_of(frame(0x02, full) + frame(0x80, "")).message == full));
  CHECK(heard_of(frame(0x02, "ab") + frame(0x00, "cd") + frame(0x89, "ping") + frame(0x80, "e")).message == "abcde");
  CHECK(heard_of(frame(0x82, "ab")).message == "ab");
  for (const std::string& bytes :
       {frame(0x82, full + "y"), frame(0x02, full) + frame(0x80, "y"), frame(0x02, full) + frame(0x00, full),
        header_of(0x82, std::uint64_t{1} << 40) + std::string(2000, 'x')}) {
    const auto heard = heard_of(bytes);
    CHECK(heard.failure.code == Errc::protocol);
    CHECK(contains(heard.failure.message, std::to_string(full.size())));
  }
}

TEST_CASE("frames that break the WebSocket protocol are protocol errors") {
  const std::string unmasked = "\x82\x05hello";
  const std::string reserved_opcode = frame(0x83, "hello");
  const std::string reserved_bit = frame(0xc2, "hello");
  const std::string orphan = frame(0x80, "hello");
  for (const auto& bytes : {unmasked, reserved_opcode, reserved_bit, orphan}) {
    const auto heard = receive_from_raw_peer(bytes);
    CHECK(heard.failure.code == Errc::protocol);
    CHECK(contains(heard.failure.message, "WebSocket protocol"));
  }
}

TEST_CASE("a peer's reason for closing is a quotation of printable characters") {
  const auto heard = receive_from_raw_peer(frame(0x88,
                                                 "\x03\xe8"
                                                 "\x1b[2Jover\n\u009b\" forged"));
  CHECK(heard.failure.code == Errc::peer_closed);
  CHECK(contains(heard.failure.message,
                 "the peer has closed it: \"?[2Jover ?"
                 "?' forged\""));
}

TEST_CASE("a connection that breaks in the middle of a message is lost, not shortened") {
  const auto task = []() -> Task<> {
    Listener listener(co_await asio::this_coro::executor, "127.0.0.1", 0);
    const auto part = [](std::uint16_t port) -> Task<> {
      RawPeer peer = co_await RawPeer::dial(port);
      co_await peer.write(std::string(upgrade_request));
      co_await peer.read_header();
      co_await peer.write(header_of(0x82, 1000) + std::string(999, 'x'));
    };
    auto both = hear(listener) && part(listener.port());
    const Heard heard = co_await std::move(both);
    CHECK(heard.failure.code == Errc::network);
    CHECK(heard.bytes_received == 0);
  };
  run(task());
}

/// What handshake() says of a peer that writes `bytes`, and what that peer is answered until the server hangs up.
std::pair<Failure, std::string> refused_handshake(std::string bytes) {
  std::pair<Failure, std::string> outcome;
  const auto task = [](std::string sent, std::pair<Failure, std::string>& result) -> Task<> {
    Listener listener(co_await asio::this_coro::executor, "127.0.0.1", 0);
    const auto peer = [](std::uint16_t port, std::string request) -> Task<std::string> {
      RawPeer raw = co_await RawPeer::dial(port);
      co_await raw.write(std::move(request));
      co_return co_await raw.read_rest();
    };
    auto both = failure_of(accept_one(listener, {.handshake_timeout = milliseconds(150)})) &&
                peer(listener.port(), std::move(sent));
    auto [failure, answer] = co_await std::move(both);
    result = {std::move(failure), std::move(answer)};
  };
  run(task(std::move(bytes), outcome));
  return outcome;
}

TEST_CASE("a plain HTTP request is told where it came to") {
  for (const char* request : {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"}) {
    const auto [failure, answer] = refused_handshake(request);
    CHECK(failure.code == Errc::protocol);
    CHECK(contains(failure.message, "plain HTTP"));
    CHECK(contains(failure.message, "127.0.0.1:"));
    CHECK(contains(answer, "426 Upgrade Required"));
  }
}

TEST_CASE("what is no HTTP at all, or too much of it, is a protocol error") {
  CHECK(refused_handshake("\x16\x03\x01 looks like TLS\r\n\r\n").first.code == Errc::protocol);
  CHECK(refused_handshake("GET / HTTP/1.1\r\nX: " + std::string(100'000, 'x')).first.code == Errc::protocol);
}

TEST_CASE("an upgrade without its key is refused") {
  const auto [failure, answer] = refused_handshake(
      "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n");
  CHECK(failure.code == Errc::protocol);
  CHECK(contains(answer, "400"));
}

TEST_CASE("a peer that says nothing, or never finishes, is given up after the handshake's time") {
  for (const char* words : {"", "GET / HTTP/1.1\r\nHost:"}) {
    const auto [failure, answer] = refused_handshake(words);
    CHECK(failure.code == Errc::network);
    CHECK(contains(failure.message, "no answer within 150 ms"));
    CHECK(answer.empty());
  }
}

TEST_CASE("a slow peer does not keep others from being accepted") {
  const auto task = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    Listener listener(executor, "127.0.0.1", 0);
    const RawPeer silent = co_await RawPeer::dial(listener.port());
    const auto first = co_await listener.accept();
    CHECK(contains(first.peer(), "127.0.0.1:"));
    auto both = net::connect(executor, Url{"127.0.0.1", listener.port(), "/"}) && accept_one(listener, {});
    const auto [dialled, accepted] = co_await std::move(both);
    auto exchange = dialled->send(bytes_of("hi"), {}) && accepted->receive();
    const View greeting = co_await std::move(exchange);
    CHECK(text_of(greeting) == "hi");
  };
  run(task());
}

/// The error of dialling a port on which `answer` is all that a server ever says (nothing: it says nothing).
Failure dial_server_that_says(std::string answer) {
  Failure failure;
  const auto task = [](std::string said, Failure& result) -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    tcp::acceptor acceptor(executor, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    const auto serve = [](tcp::acceptor& server, std::string text) -> Task<> {
      tcp::socket accepted = co_await server.async_accept(asio::use_awaitable);
      RawPeer peer(std::move(accepted));
      co_await peer.read_header();
      co_await peer.write(std::move(text));
      co_await peer.read_rest();
    };
    const Url url{"127.0.0.1", acceptor.local_endpoint().port(), "/fl"};
    auto both = failure_of(net::connect(executor, url, {.handshake_timeout = milliseconds(150)})) &&
                serve(acceptor, std::move(said));
    result = co_await std::move(both);
  };
  run(task(std::move(answer), failure));
  return failure;
}

TEST_CASE("dialling tells what is there instead of a server") {
  const auto web = dial_server_that_says("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
  CHECK(web.code == Errc::protocol);
  CHECK(contains(web.message, "HTTP 404"));
  CHECK(contains(web.message, "/fl"));
  CHECK(dial_server_that_says("SSH-2.0-OpenSSH_9.2\r\n\r\n").has_failed);
  const auto silent = dial_server_that_says("");
  CHECK(silent.code == Errc::network);
  CHECK(contains(silent.message, "no answer within 150 ms"));
}

TEST_CASE("dialling where nobody listens names address and reason") {
  const auto task = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    Listener listener(executor, "127.0.0.1", 0);
    const Url url{"127.0.0.1", listener.port(), "/"};
    listener.close();
    const Failure failure = co_await failure_of(net::connect(executor, url));
    CHECK(failure.code == Errc::network);
    CHECK(contains(failure.message, to_string(url)));
    CHECK(contains(failure.message, "refused"));
    const Url nowhere{"no-such-host.invalid", 1, "/"};
    const Failure unknown = co_await failure_of(net::connect(executor, nowhere));
    CHECK(unknown.code == Errc::network);
    CHECK(contains(unknown.message, "no-such-host.invalid"));
  };
  run(task());
}

TEST_CASE("a port in use, and an address that is none, are told") {
  asio::io_context context(1);
  const Listener holder(context.get_executor(), "127.0.0.1", 0);
  const auto address = "127.0.0.1:" + std::to_string(holder.port());
  try {
    const Listener second(context.get_executor(), "127.0.0.1", holder.port());
    FAIL("two listeners on one port");
  } catch (const Error& error) {
    CHECK(error.code() == Errc::network);
    CHECK(contains(error.what(), address));
    CHECK(contains(error.what(), "in use"));
  }
  try {
    const Listener named(context.get_executor(), "localhorst", 0);
    FAIL("listening on a word");
  } catch (const Error& error) {
    CHECK(error.code() == Errc::usage);
    CHECK(contains(error.what(), "localhorst"));
  }
}

Task<> close_listener(Listener& listener) {
  listener.close();
  listener.close();
  co_return;
}

TEST_CASE("closing or destroying a listener ends its accept") {
  const auto task = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    Listener listener(executor, "127.0.0.1", 0);
    auto both = failure_of(listener.accept()) && close_listener(listener);
    const Failure closed = co_await std::move(both);
    CHECK(closed.code == Errc::interrupted);
    const Failure later = co_await failure_of(listener.accept());
    CHECK(later.code == Errc::interrupted);

    Listener replaced(executor, "127.0.0.1", 0);
    const auto replace = [](Listener& old, Listener fresh) -> Task<> {
      old = std::move(fresh);
      co_return;
    };
    auto again = failure_of(replaced.accept()) && replace(replaced, Listener(executor, "127.0.0.1", 0));
    const Failure dropped = co_await std::move(again);
    CHECK(dropped.code == Errc::interrupted);
    CHECK(replaced.port() != 0);
  };
  run(task());
}

/// Upgrades and says nothing more.
Task<RawPeer> silent(std::uint16_t port) {
  RawPeer peer = co_await RawPeer::dial(port);
  co_await peer.write(std::string(upgrade_request));
  co_await peer.read_header();
  co_return peer;
}

TEST_CASE("a peer that falls silent is lost") {
  const auto task = []() -> Task<> {
    Listener listener(co_await asio::this_coro::executor, "127.0.0.1", 0);
    auto both = accept_one(listener, {.idle_timeout = milliseconds(100)}) && silent(listener.port());
    const auto [channel, peer] = co_await std::move(both);
    const Failure failure = co_await failure_of(channel->receive());
    CHECK(failure.code == Errc::network);
    CHECK(contains(failure.message, "no sign of life for 100 ms"));
  };
  run(task());
}

TEST_CASE("for how long a peer may be silent can change while it is connected") {
  const auto task = []() -> Task<> {
    Listener listener(co_await asio::this_coro::executor, "127.0.0.1", 0);
    auto both = accept_one(listener, {.idle_timeout = std::chrono::hours(1)}) && silent(listener.port());
    const auto [channel, peer] = co_await std::move(both);
    channel->limit_silence(milliseconds(100));
    const Failure failure = co_await failure_of(channel->receive());
    CHECK(failure.code == Errc::network);
    CHECK(contains(failure.message, "no sign of life for 100 ms"));
  };
  run(task());
}

TEST_CASE("a dialler that is told to stop does not wait for the handshake") {
  const auto task = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    tcp::acceptor mute(executor, {asio::ip::make_address("127.0.0.1"), 0});
    const Url url{"127.0.0.1", mute.local_endpoint().port(), "/", false};
    std::stop_source stop;
    const auto stop_once_connected = [](tcp::acceptor& acceptor, std::stop_source& source) -> Task<tcp::socket> {
      auto socket = co_await acceptor.async_accept(asio::use_awaitable);
      source.request_stop();
      co_return socket;
    };
    const WebSocketOptions options{.handshake_timeout = std::chrono::hours(1), .stop = stop.get_token()};
    auto both = failure_of(net::connect(executor, url, options)) && stop_once_connected(mute, stop);
    const auto [failure, socket] = co_await std::move(both);
    CHECK(failure.code == Errc::network);
  };
  run(task());
}

TEST_CASE("a peer whose program is busy, not receiving for many idle timeouts, stays connected") {
  const auto task = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    static constexpr auto idle = milliseconds(100);
    auto connecting = connect_websockets({.idle_timeout = idle}, {.idle_timeout = idle});
    auto pair = co_await std::move(connecting);
    const auto busy = [](MessageChannel& channel) -> Task<> {
      asio::steady_timer training(co_await asio::this_coro::executor, 6 * idle);
      co_await training.async_wait(asio::use_awaitable);
      co_await channel.send(bytes_of("trained"), {});
      const View early = co_await channel.receive();
      CHECK(text_of(early) == "early");
    };
    co_await pair.far->send(bytes_of("early"), {});
    auto both = pair.far->receive() && busy(*pair.near);
    const View trained = co_await std::move(both);
    CHECK(text_of(trained) == "trained");
  };
  run(task());
}

TEST_CASE("close does not wait forever for a peer that does not answer") {
  const auto task = []() -> Task<> {
    Listener listener(co_await asio::this_coro::executor, "127.0.0.1", 0);
    const auto stay = [](std::uint16_t port) -> Task<std::string> {
      RawPeer peer = co_await RawPeer::dial(port);
      co_await peer.write(std::string(upgrade_request));
      co_await peer.read_header();
      co_return co_await peer.read_rest();
    };
    const auto leave = [](Listener& server) -> Task<> {
      const WebSocketOptions impatient{.goodbye_timeout = milliseconds(50)};
      auto channel = co_await accept_one(server, impatient);
      co_await channel->close("bye");
    };
    auto both = leave(listener) && stay(listener.port());
    const std::string heard = co_await std::move(both);
    CHECK(contains(heard, "bye"));
  };
  run(task());
}

TEST_CASE("pauses between attempts double up to a bound, each less a random part of its half") {
  const RedialOptions options{
      .patience = milliseconds(0), .first_pause = milliseconds(100), .longest_pause = milliseconds(1000)};
  const std::int64_t bounds[] = {100, 200, 400, 800, 1000, 1000, 1000};
  std::set<std::int64_t> shares;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    for (int attempt = 1; attempt <= 7; ++attempt) {
      const std::int64_t pause = pause_after(options, attempt, Seed(seed)).count();
      CHECK(pause <= bounds[attempt - 1]);
      CHECK(pause >= bounds[attempt - 1] / 2);
      if (attempt == 7) shares.insert(pause);
    }
  }
  CHECK(shares.size() > 25);  // clients do not come at the same time
  CHECK(pause_after(options, 1000, Seed(1)).count() <= 1000);
}

TEST_CASE("server addresses are read as people write them") {
  const auto full = parse_url("ws://silo-7.example.org:7700/fl/run1");
  CHECK(full.host == "silo-7.example.org");
  CHECK(full.port == 7700);
  CHECK(full.path == "/fl/run1");
  CHECK_FALSE(full.is_secure);
  CHECK(parse_url("wss://host:1").is_secure);
  CHECK(parse_url("ws://127.0.0.1:1").path == "/");
  const auto six = parse_url("ws://[::1]:65535/");
  CHECK(six.host == "::1");
  CHECK(six.port == 65535);
  for (const char* text : {"ws://silo-7.example.org:7700/fl/run1", "ws://[::1]:65535/", "wss://host:1/"}) {
    CHECK(to_string(parse_url(text)) == text);
  }
}

TEST_CASE("server addresses that are none say what was expected") {
  const std::pair<const char*, const char*> cases[] = {
      {"http://host:1", "starts with neither wss:// nor ws://"},
      {"127.0.0.1:7700", "starts with neither wss:// nor ws://"},
      {"", "starts with neither wss:// nor ws://"},
      {"wss://host", "port is missing"},
      {"ws://", "host is missing"},
      {"ws://:7700", "host is missing"},
      {"ws://host", "port is missing"},
      {"ws://[::1]/", "port is missing"},
      {"ws://host:0", "'0' is no port"},
      {"ws://host:65536", "'65536' is no port"},
      {"ws://host:77x", "'77x' is no port"},
      {"ws://host:-1", "'-1' is no port"},
      {"ws://host:/", "'' is no port"},
      {"ws://::1:7700", "brackets"},
      {"ws://[::1:7700", "bracket"},
      {"ws://user@host:1", "no host name"},
      {"ws://host:1/a b", "space"},
      {"ws://host:1/\r\nX: y", "control character"},
      {"ws://host:1/#part", "fragment"},
  };
  for (const auto& [text, why] : cases) {
    CAPTURE(text);
    try {
      parse_url(text);
      FAIL("taken for an address");
    } catch (const Error& error) {
      CHECK(error.code() == Errc::usage);
      CHECK(contains(error.what(), why));
      CHECK(contains(error.what(), "expected wss://HOST:PORT"));
    }
  }
}

}  // namespace
}  // namespace headstart::net
