// What a dialler finds: addresses that swallow packets, the wrong kind of server, a full door, a flipped bit.
#include <csignal>
#include <future>

#include <boost/asio/redirect_error.hpp>

#include "shared/net/dial.hpp"
#include "shared/net/stop_signals.hpp"
#include "shared/net/tls.hpp"
#include "tests/contract/channel_support.hpp"
#include "tests/contract/raw_peer.hpp"
#include "tests/support/certificates.hpp"

namespace headstart::net {
namespace {

using asio::experimental::awaitable_operators::operator&&;
using tcp = asio::ip::tcp;
using std::chrono::milliseconds;

test::TestAuthority& authority() {
  static test::TestAuthority shared;
  return shared;
}

WebSocketOptions with_tls(Tls::Side side) {
  WebSocketOptions options;
  options.tls =
      std::make_shared<Tls>(side == Tls::Side::server ? authority().server() : authority().client("silo-1"), side);
  return options;
}

tcp::endpoint at(const char* address, std::uint16_t port) { return {asio::ip::make_address(address), port}; }

/// Takes no connection and refuses none: its queue is full.
class Swallower {
 public:
  explicit Swallower(const asio::any_io_executor& executor, const char* address) : acceptor_(executor) {
    acceptor_.open(tcp::v4());
    acceptor_.bind(at(address, 0));
    acceptor_.listen(0);
    for (int i = 0; i < 4; ++i) {
      fillers_.emplace_back(executor);
      fillers_.back().open(tcp::v4());
      fillers_.back().non_blocking(true);
      // Asio's own call would wait for an answer.
      const auto full = acceptor_.local_endpoint();
      (void)::connect(fillers_.back().native_handle(), full.data(), static_cast<socklen_t>(full.size()));
    }
  }
  [[nodiscard]] std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

 private:
  tcp::acceptor acceptor_;
  std::vector<tcp::socket> fillers_;
};

TEST_CASE("dialling: of several addresses each has its share of the time, and those that failed are named") {
  const auto task = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    const Swallower swallower(executor, "127.0.0.2");
    tcp::acceptor good(executor, at("127.0.0.3", 0));
    const auto never = [] { return false; };
    tcp::socket socket(executor);
    const std::vector<tcp::endpoint> with_good = {at("127.0.0.2", swallower.port()), good.local_endpoint()};
    auto reaching = connect_to_any(socket, with_good, milliseconds(200), never);
    const std::string reached = co_await std::move(reaching);
    CHECK(reached.empty());
    CHECK(socket.remote_endpoint() == good.local_endpoint());

    const tcp::endpoint closed = good.local_endpoint();
    good.close();
    const std::vector<tcp::endpoint> none = {at("127.0.0.2", swallower.port()), closed};
    auto failing = connect_to_any(socket, none, milliseconds(200), never);
    const std::string tried = co_await std::move(failing);
    CHECK(tried == "tried 127.0.0.2 (no answer within its share of 100 ms), 127.0.0.3 (Connection refused)");
    auto alone = connect_to_any(socket, {closed}, milliseconds(200), never);
    const std::string reason = co_await std::move(alone);
    CHECK(reason == "Connection refused");
  };
  run(task());
}

/// What dialling says of a Headstart server, and what that says of the dialler.
std::pair<Failure, Failure> dial_server(bool dials_tls, bool serves_tls) {
  std::pair<Failure, Failure> said;
  const auto task = [&]() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    Listener listener(executor, "127.0.0.1", 0);
    const Url url{"127.0.0.1", listener.port(), "/", dials_tls};
    const auto near = dials_tls ? with_tls(Tls::Side::client) : WebSocketOptions{};
    const auto far = serves_tls ? with_tls(Tls::Side::server) : WebSocketOptions{};
    auto both = failure_of(net::connect(executor, url, near)) && failure_of(accept_one(listener, far));
    auto [dialler, server] = co_await std::move(both);
    said = {dialler, server};
  };
  run(task());
  return said;
}

TEST_CASE("dialling ws:// to a server with TLS, and wss:// to one without, is said for what it is") {
  const auto [plain, tls_server] = dial_server(false, true);
  CHECK(plain.code == Errc::network);
  CHECK(contains(plain.message, "this server speaks TLS: dial wss://"));
  CHECK(contains(tls_server.message, "http request"));
  const auto [secure, plain_server] = dial_server(true, false);
  CHECK(secure.code == Errc::network);
  CHECK_FALSE(secure.is_of_tls);
  CHECK(contains(secure.message, "what answers there speaks no TLS"));
  CHECK(contains(secure.message, "ws://"));
  CHECK(contains(plain_server.message, "speaks TLS, and this server does not: its clients dial ws://"));
}

/// The same of a server that answers with `answer` whatever it hears.
Failure dial_answer(std::string answer) {
  Failure failure;
  const auto task = [&]() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    tcp::acceptor acceptor(executor, at("127.0.0.1", 0));
    const auto serve = [&answer](tcp::acceptor& server) -> Task<> {
      RawPeer peer(co_await server.async_accept(asio::use_awaitable));
      co_await peer.read_header();
      co_await peer.write(answer);
    };
    const Url url{"127.0.0.1", acceptor.local_endpoint().port(), "/"};
    auto both = failure_of(net::connect(executor, url)) && serve(acceptor);
    failure = co_await std::move(both);
  };
  run(task());
  return failure;
}

TEST_CASE("dialling: a proxy's 502, a web page, and what is no HTTP are said for what they are") {
  const Failure proxy = dial_answer(
      "HTTP/1.1 502 Bad Gateway\r\nServer: nginx/1.22\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n"
      "<html></html>");
  CHECK(proxy.code == Errc::network);
  CHECK(contains(proxy.message, "a proxy in front of it answered HTTP 502 Bad Gateway by 'nginx/1.22'"));
  const Failure page =
      dial_answer("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>");
  CHECK(page.code == Errc::protocol);
  CHECK(
      contains(page.message, "is no Headstart server: it answered HTTP 200 OK, 'text/html', to the WebSocket upgrade"));
  const Failure alert = dial_answer(std::string("\x15\x03\x03\x00\x02\x02\x46", 7));
  CHECK(alert.code == Errc::network);
  CHECK(contains(alert.message, "A server with TLS is wss://"));
  CHECK(contains(dial_answer("SSH-2.0-OpenSSH_9.2\r\n\r\n").message, "what answers there speaks no HTTP"));
  CHECK(contains(dial_answer("").message, "as a server does that takes no more connections"));
}

TEST_CASE("dialling: a full door says so, before and while it listens") {
  for (const bool has_tls : {false, true}) {
    for (const bool is_heard : {false, true}) {
      CAPTURE(has_tls);
      CAPTURE(is_heard);
      const auto task = [has_tls, is_heard]() -> Task<> {
        const auto executor = co_await asio::this_coro::executor;
        Listener listener(executor, "127.0.0.1", 0);
        const Url url{"127.0.0.1", listener.port(), "/", has_tls};
        const auto near = has_tls ? with_tls(Tls::Side::client) : WebSocketOptions{};
        const auto far = has_tls ? with_tls(Tls::Side::server) : WebSocketOptions{};
        const auto turn_away = [&far, has_tls, is_heard](Listener& server) -> Task<> {
          PendingPeer pending = co_await server.accept();
          const auto end = pending.ender(has_tls);
          if (!is_heard) {
            end("no place");
            co_return;
          }
          const HandshakeSteps steps{.on_first_bytes = [&end] { end("no place"); }};
          const Failure failure = co_await failure_of(handshake(std::move(pending), far, steps));
          CHECK(contains(failure.message, "no place"));
        };
        auto both = failure_of(net::connect(executor, url, near)) && turn_away(listener);
        const Failure failure = co_await std::move(both);
        CHECK(failure.code == Errc::network);
        CHECK(contains(failure.message, "the server takes no more connections"));
      };
      run(task());
    }
  }
}

/// Passes bytes on from `from` to `to`; the last bit of the read number `flipped` arrives as another one.
Task<> relay(tcp::socket& from, tcp::socket& to, int flipped) {
  std::array<char, 16384> bytes{};
  boost::system::error_code ended;
  for (int number = 0; !ended; ++number) {
    const auto count =
        co_await from.async_read_some(asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, ended));
    if (ended) break;
    if (number == flipped) bytes[count - 1] ^= 1;
    co_await asio::async_write(to, asio::buffer(bytes, count), asio::redirect_error(asio::use_awaitable, ended));
  }
  to.shutdown(tcp::socket::shutdown_send, ended);
}

TEST_CASE("a bit that is flipped on a first connection is the wire's fault: no refusal of the certificate") {
  for (const bool is_of_client : {true, false}) {
    CAPTURE(is_of_client);
    const auto task = [is_of_client]() -> Task<> {
      const auto executor = co_await asio::this_coro::executor;
      Listener listener(executor, "127.0.0.1", 0);
      tcp::acceptor middle(executor, at("127.0.0.1", 0));
      const auto dial_and_listen = [](std::uint16_t port) -> Task<> {
        const Url url{"127.0.0.1", port, "/", true};
        const auto options = with_tls(Tls::Side::client);
        auto dialling = net::connect(co_await asio::this_coro::executor, url, options);
        const auto channel = co_await std::move(dialling);
        co_await channel->receive();
      };
      const auto pass_on = [is_of_client](tcp::acceptor& door, std::uint16_t port) -> Task<> {
        tcp::socket near = co_await door.async_accept(asio::use_awaitable);
        tcp::socket far(co_await asio::this_coro::executor);
        co_await far.async_connect(at("127.0.0.1", port), asio::use_awaitable);
        auto both = relay(near, far, is_of_client ? 1 : -1) && relay(far, near, is_of_client ? -1 : 0);
        co_await std::move(both);
      };
      auto all = pass_on(middle, listener.port()) && failure_of(dial_and_listen(middle.local_endpoint().port())) &&
                 failure_of(accept_one(listener, with_tls(Tls::Side::server)));
      const auto [dialler, server] = co_await std::move(all);
      CHECK(dialler.has_failed);
      CHECK(dialler.code == Errc::network);
      CHECK_FALSE(dialler.is_of_tls);
      CHECK(server.has_failed);
    };
    run(task());
  }
}

TEST_CASE("signals: the first one asks to stop, the second one leaves at once, and so does the end of the grace") {
  for (const bool is_twice : {true, false}) {
    std::promise<void> asked;
    std::promise<void> left;
    const auto grace = is_twice ? milliseconds(std::chrono::hours(1)) : milliseconds(10);
    const StopSignals signals({SIGUSR1}, [&asked] { asked.set_value(); },
                              {.grace = grace, .leave = [&left, is_left = false]() mutable {
                                 if (!std::exchange(is_left, true)) left.set_value();
                               }});
    std::raise(SIGUSR1);
    asked.get_future().wait();
    if (is_twice) std::raise(SIGUSR1);
    left.get_future().wait();
  }
}

}  // namespace
}  // namespace headstart::net
