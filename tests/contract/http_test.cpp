// The answers of the admin port's server, and what it does with peers that are slow, large or many.
#include "shared/net/http.hpp"

#include <optional>
#include <vector>

#include "tests/contract/channel_support.hpp"
#include "tests/contract/raw_peer.hpp"

namespace headstart::net {
namespace {

using asio::experimental::awaitable_operators::operator&&;
using std::chrono::milliseconds;

HttpAnswer greet(std::string_view path) {
  if (path == "/hello") return {.body = "good day"};
  return {.status = 404, .body = "nothing here"};
}

/// Runs `talk(port)` against a server that answers greet().
template <class Talk>
void with_server(HttpLimits limits, Talk talk) {
  asio::io_context context(1);
  Listener listener(context.get_executor(), "127.0.0.1", 0);
  auto serving = serve_http(context.get_executor(), listener, greet, limits);
  asio::co_spawn(context, std::move(serving), [](const std::exception_ptr&) {});
  std::exception_ptr failure;
  auto talking = talk(listener.port());
  asio::co_spawn(context, std::move(talking), [&](std::exception_ptr ended) {
    failure = std::move(ended);
    listener.close();
  });
  context.run();
  if (failure) std::rethrow_exception(failure);
}

Task<std::string> answer_to(std::uint16_t port, std::string request) {
  RawPeer peer = co_await RawPeer::dial(port);
  co_await peer.write(std::move(request));
  co_return co_await peer.read_rest();
}

TEST_CASE("http: GET by path without its query, HEAD without a body, other methods refused, then it hangs up") {
  const auto talk = [](std::uint16_t port) -> Task<> {
    const std::string get = "GET /hello?x=1 HTTP/1.1\r\nHost: x\r\n\r\n";
    const std::string got = co_await answer_to(port, get);
    CHECK(got.starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(contains(got, "Content-Length: 8\r\n"));
    CHECK(contains(got, "Connection: close\r\n"));
    CHECK(got.ends_with("\r\n\r\ngood day"));
    const std::string head = "HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    const std::string headers = co_await answer_to(port, head);
    CHECK(contains(headers, "Content-Length: 8\r\n"));
    CHECK(headers.ends_with("\r\n\r\n"));
    const std::string other = "GET /else HTTP/1.1\r\nHost: x\r\n\r\n";
    const std::string missing = co_await answer_to(port, other);
    CHECK(missing.starts_with("HTTP/1.1 404 Not Found\r\n"));
    const std::string post = "POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    const std::string refused = co_await answer_to(port, post);
    CHECK(refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
  };
  with_server({}, talk);
}

TEST_CASE("http: what is no HTTP, and a header above its bound, end the connection and nothing else") {
  const auto talk = [](std::uint16_t port) -> Task<> {
    const std::string noise(64, '\x01');
    const std::string to_noise = co_await answer_to(port, noise + "\r\n\r\n");
    CHECK(to_noise.empty());
    const std::string large = "GET /hello HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\n\r\n";
    const std::string to_large = co_await answer_to(port, large);
    CHECK(to_large.empty());
    const std::string get = "GET /hello HTTP/1.0\r\n\r\n";
    const std::string still = co_await answer_to(port, get);
    CHECK(contains(still, "200 OK"));
  };
  with_server({}, talk);
}

TEST_CASE("http: one that says nothing is hung up on, and no more are kept than the limit") {
  const auto talk = [](std::uint16_t port) -> Task<> {
    RawPeer silent = co_await RawPeer::dial(port);
    const std::string get = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    const std::string while_full = co_await answer_to(port, get);
    CHECK(while_full.empty());
    const std::string nothing = co_await silent.read_rest();
    CHECK(nothing.empty());
    const std::string after = co_await answer_to(port, get);
    CHECK(contains(after, "200 OK"));
  };
  with_server({.request = milliseconds(300), .connections = 1}, talk);
}

}  // namespace
}  // namespace headstart::net
