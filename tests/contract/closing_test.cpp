// A connection ends in time, whatever its peer does and in whatever pieces: nothing may be left waiting on the context.
#include <array>
#include <random>
#include <variant>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>

#include "shared/net/tls.hpp"
#include "tests/contract/channel_support.hpp"
#include "tests/contract/raw_peer.hpp"
#include "tests/support/certificates.hpp"

namespace headstart::net {
namespace {

using asio::experimental::awaitable_operators::operator&&;
using tcp = asio::ip::tcp;
using std::chrono::milliseconds;

const std::string message = frame(0x82, std::string(60, 'm'));
const std::string broken = frame(0x83, "an opcode that is none");
/// A message that is refused, four more, and a broken frame.
const std::string refused_and_broken = message + message + message + message + message + broken;
const std::string goodbye = frame(0x88, std::string("\x03\xe8", 2) + "bye");

test::TestAuthority& authority() {
  static test::TestAuthority shared;
  return shared;
}

WebSocketOptions server_options(bool has_tls) {
  WebSocketOptions options{.goodbye_timeout = milliseconds(50)};
  if (has_tls) options.tls = std::make_shared<Tls>(authority().server(), Tls::Side::server);
  return options;
}

/// Upgrades, writes `segments` one by one, and reads until the other side hangs up, which it never does itself.
template <class Stream>
Task<std::string> upgrade_and_write(Stream& stream, std::vector<std::string> segments) {
  const std::string request(upgrade_request);
  co_await asio::async_write(stream, asio::buffer(request), asio::use_awaitable);
  std::string heard;
  const auto end =
      co_await asio::async_read_until(stream, asio::dynamic_buffer(heard), "\r\n\r\n", asio::use_awaitable);
  heard.erase(0, end);
  boost::system::error_code ended;
  for (const std::string& segment : segments) {
    co_await asio::async_write(stream, asio::buffer(segment), asio::redirect_error(asio::use_awaitable, ended));
    asio::steady_timer turn(co_await asio::this_coro::executor, milliseconds(0));
    co_await turn.async_wait(asio::use_awaitable);
  }
  co_await asio::async_read(stream, asio::dynamic_buffer(heard), asio::redirect_error(asio::use_awaitable, ended));
  co_return heard;
}

Task<std::string> raw_peer(std::uint16_t port, bool has_tls, std::vector<std::string> segments) {
  RawPeer peer = co_await RawPeer::dial(port);
  peer.socket.set_option(tcp::no_delay(true));
  if (!has_tls) co_return co_await upgrade_and_write(peer.socket, std::move(segments));
  Tls tls(authority().client("silo-raw"), Tls::Side::client);
  const auto context = tls.context();
  asio::ssl::stream<tcp::socket> stream(std::move(peer.socket), *context);
  co_await stream.async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
  co_return co_await upgrade_and_write(stream, std::move(segments));
}

Task<Failure> read_on(MessageChannel& channel) {
  try {
    while (true) (void)co_await channel.receive();
  } catch (const Error& error) {
    co_return Failure{true, error.code(), error.what()};
  }
}

/// As a conversation whose peer is refused: it reads on while it says goodbye.
Task<Failure> refuse_after_first(Listener& listener, WebSocketOptions options) {
  auto channel = co_await accept_one(listener, options);
  (void)co_await channel->receive();
  std::string words = "refused";
  auto both = channel->close(std::move(words)) && read_on(*channel);
  co_return co_await std::move(both);
}

Task<Failure> read_only(Listener& listener, WebSocketOptions options) {
  auto channel = co_await accept_one(listener, options);
  co_return co_await read_on(*channel);
}

/// What becomes of a server that does `serve` with a peer that writes `segments` and stays. Returns when nothing at all
/// is left of the connection.
Failure meet(const std::function<Task<Failure>(Listener&, WebSocketOptions)>& serve, bool has_tls,
             std::vector<std::string> segments) {
  Failure failure;
  const auto task = [&]() -> Task<> {
    Listener listener(co_await asio::this_coro::executor, "127.0.0.1", 0);
    auto both = serve(listener, server_options(has_tls)) && raw_peer(listener.port(), has_tls, std::move(segments));
    failure = std::get<0>(co_await std::move(both));
  };
  run(task());
  return failure;
}

TEST_CASE("closing: a peer that is refused and breaks the protocol in the same segment does not hold the connection") {
  for (const bool has_tls : {false, true}) {
    CAPTURE(has_tls);
    CHECK(meet(refuse_after_first, has_tls, {refused_and_broken}).has_failed);
  }
}

TEST_CASE("closing: nor in any other segments, or with a goodbye, a ping or half a frame behind them") {
  std::mt19937 draw(15);
  const std::string pings = frame(0x89, "ping") + frame(0x89, "again");
  const std::vector<std::string> endings = {
      broken, goodbye, pings, pings + broken, goodbye + broken, broken.substr(0, 3), pings + goodbye};
  for (int i = 0; i < 28; ++i) {
    const std::string bytes = message + message + message + endings[static_cast<std::size_t>(i) % endings.size()];
    std::vector<std::string> segments;
    for (std::size_t begin = 0; begin < bytes.size();) {
      const std::size_t count = 1 + draw() % (i % 2 == 0 ? bytes.size() : 40);
      segments.push_back(bytes.substr(begin, count));
      begin += count;
    }
    CAPTURE(i);
    CHECK(meet(refuse_after_first, i % 4 == 3, std::move(segments)).has_failed);
  }
}

TEST_CASE("closing: a peer that says goodbye or breaks the protocol, and does not hang up, is not waited for") {
  for (const bool has_tls : {false, true}) {
    CAPTURE(has_tls);
    const Failure left = meet(read_only, has_tls, {message + goodbye});
    CHECK(left.code == Errc::peer_closed);
    const Failure offender = meet(read_only, has_tls, {message + broken});
    CHECK(offender.code == Errc::protocol);
  }
}

TEST_CASE("closing: a peer that takes nothing ends a write in time, and holds no goodbye") {
  for (const bool has_tls : {false, true}) {
    CAPTURE(has_tls);
    const auto task = [has_tls]() -> Task<> {
      const auto executor = co_await asio::this_coro::executor;
      Listener listener(executor, "127.0.0.1", 0);
      // Upgrades, and never reads again.
      const auto silent = [has_tls](std::uint16_t port, asio::steady_timer& until) -> Task<> {
        RawPeer peer = co_await RawPeer::dial(port);
        boost::system::error_code cancelled;
        const std::string request(upgrade_request);
        if (!has_tls) {
          co_await asio::async_write(peer.socket, asio::buffer(request), asio::use_awaitable);
          co_await until.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
          co_return;
        }
        Tls tls(authority().client("silo-mute"), Tls::Side::client);
        const auto context = tls.context();
        asio::ssl::stream<tcp::socket> stream(std::move(peer.socket), *context);
        co_await stream.async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
        co_await asio::async_write(stream, asio::buffer(request), asio::use_awaitable);
        co_await until.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
      };
      const auto flood = [has_tls](Listener& server, asio::steady_timer& until) -> Task<> {
        auto options = server_options(has_tls);
        options.write_timeout = milliseconds(100);
        auto channel = co_await accept_one(server, options);
        const Bytes chunk(max_message_bytes / 2);
        Failure failure;
        while (!failure.has_failed) failure = co_await failure_of(channel->send(chunk, {}));
        CHECK(failure.code == Errc::network);
        CHECK(contains(failure.message, "took nothing of a message for 100 ms"));
        std::string words = "bye";
        co_await channel->close(std::move(words));
        until.cancel();
      };
      asio::steady_timer until(executor, asio::steady_timer::time_point::max());
      auto both = flood(listener, until) && silent(listener.port(), until);
      co_await std::move(both);
    };
    run(task());
  }
}

TEST_CASE("closing: a silent peer is lost within the time it may be silent: it is pinged three times, not five") {
  std::string heard;
  const auto task = [&]() -> Task<> {
    Listener listener(co_await asio::this_coro::executor, "127.0.0.1", 0);
    auto options = server_options(false);
    options.idle_timeout = milliseconds(160);
    auto both = read_only(listener, options) && raw_peer(listener.port(), false, {});
    auto [failure, said] = co_await std::move(both);
    CHECK(contains(failure.message, "no sign of life for 160 ms"));
    heard = said;
  };
  run(task());
  const std::string ping("\x89\x00", 2);
  CHECK(heard == ping + ping + ping);
}

TEST_CASE("a peer answers a ping, or it does not: alive while its program is busy, dead where nobody reads") {
  const auto task = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    auto connecting = connect_websockets({}, {});
    auto pair = co_await std::move(connecting);
    const auto probe = [](MessageChannel& near, MessageChannel& far) -> Task<> {
      const bool is_alive = co_await near.answers(std::chrono::hours(1));
      CHECK(is_alive);
      near.abort();
      far.abort();
      const bool is_alive_after = co_await near.answers(std::chrono::hours(1));
      CHECK_FALSE(is_alive_after);
    };
    auto all = read_on(*pair.near) && (read_on(*pair.far) && probe(*pair.near, *pair.far));
    co_await std::move(all);

    Listener listener(executor, "127.0.0.1", 0);
    const auto deaf = [](std::uint16_t port) -> Task<RawPeer> {
      RawPeer peer = co_await RawPeer::dial(port);
      co_await peer.write(std::string(upgrade_request));
      co_await peer.read_header();
      co_return peer;
    };
    auto both = accept_one(listener, {}) && deaf(listener.port());
    auto [channel, peer] = co_await std::move(both);
    const auto probe_deaf = [](MessageChannel& near) -> Task<> {
      const bool is_alive = co_await near.answers(milliseconds(50));
      CHECK_FALSE(is_alive);
      near.abort();
    };
    auto last = read_on(*channel) && probe_deaf(*channel);
    co_await std::move(last);
  };
  run(task());
}

}  // namespace
}  // namespace headstart::net
