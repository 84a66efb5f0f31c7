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

HttpAnswer greet(const HttpRequest& request) {
  if (request.path == "/hello") return {.body = "good day"};
  return {.status = 404, .body = "nothing here"};
}

/// Says its pieces and ends.
class Pieces final : public HttpStream {
 public:
  explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  std::optional<std::string> next() override {
    if (next_ == pieces_.size()) return std::nullopt;
    return pieces_[next_++];
  }

 private:
  std::vector<std::string> pieces_;
  std::size_t next_ = 0;
};

/// Has more and more to say.
class Endless final : public HttpStream {
 public:
  std::optional<std::string> next() override { return std::string(std::size_t{1} << 20, 'x'); }
};

/// Has nothing to say until `is_over`.
class Waiting final : public HttpStream {
 public:
  explicit Waiting(const bool& is_over) : is_over_(is_over) {}
  std::optional<std::string> next() override { return is_over_ ? "the end" : ""; }

 private:
  const bool& is_over_;
};

/// Runs `talk(port)` against a server that answers by `handler`. `is_over`: set before the listener is closed.
template <class Talk>
void with_server(HttpLimits limits, Talk talk, HttpHandler handler = greet, bool* is_over = nullptr) {
  asio::io_context context(1);
  Listener listener(context.get_executor(), "127.0.0.1", 0);
  auto serving = serve_http(context.get_executor(), listener, std::move(handler), limits);
  asio::co_spawn(context, std::move(serving), [](const std::exception_ptr&) {});
  std::exception_ptr failure;
  auto talking = talk(listener.port());
  asio::co_spawn(context, std::move(talking), [&](std::exception_ptr ended) {
    failure = std::move(ended);
    if (is_over != nullptr) *is_over = true;
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

/// All that `peer` is sent, into `text`.
Task<> listen_to(std::shared_ptr<RawPeer> peer, std::string& text) {
  auto listening = peer->read_rest();
  text = co_await std::move(listening);
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

TEST_CASE("http: a handler is told the query and the headers that a page needs") {
  const HttpHandler repeat = [](const HttpRequest& request) -> HttpAnswer {
    std::string body;
    for (const std::string_view part :
         {request.path, request.query, request.host, request.authorization, request.cookie, request.last_event_id}) {
      body += std::string(part) + "|";
    }
    return {.body = std::move(body), .headers = {{"X-More", "yes"}}};
  };
  const auto talk = [](std::uint16_t port) -> Task<> {
    const std::string full =
        "GET /a/b?x=1&y=2?3 HTTP/1.1\r\nHost: here:80\r\nAuthorization: Bearer word\r\nCookie: a=b; c=d\r\n"
        "Last-Event-ID: 7-8\r\n\r\n";
    const std::string told = co_await answer_to(port, full);
    CHECK(told.ends_with("\r\n\r\n/a/b|x=1&y=2?3|here:80|Bearer word|a=b; c=d|7-8|"));
    CHECK(contains(told, "X-More: yes\r\n"));
    const std::string bare = "GET / HTTP/1.0\r\n\r\n";
    const std::string nothing = co_await answer_to(port, bare);
    CHECK(nothing.ends_with("\r\n\r\n/||||||"));
  };
  with_server({}, talk, repeat);
}

TEST_CASE("http: a stream is sent piece by piece, with its length where it is known, and HEAD has none of it") {
  const HttpHandler stream = [](const HttpRequest& request) {
    HttpAnswer answer;
    answer.stream = std::make_shared<Pieces>(std::vector<std::string>{"one ", "", "two"});
    if (request.path == "/long") answer.stream_bytes = 7;
    return answer;
  };
  const auto talk = [](std::uint16_t port) -> Task<> {
    const std::string get = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
    const std::string whole = co_await answer_to(port, get);
    CHECK(whole.ends_with("\r\n\r\none two"));
    CHECK_FALSE(contains(whole, "Content-Length"));
    const std::string get_long = "GET /long HTTP/1.1\r\nHost: x\r\n\r\n";
    const std::string known = co_await answer_to(port, get_long);
    CHECK(contains(known, "Content-Length: 7\r\n"));
    const std::string head = "HEAD /long HTTP/1.1\r\nHost: x\r\n\r\n";
    const std::string headers = co_await answer_to(port, head);
    CHECK(contains(headers, "Content-Length: 7\r\n"));
    CHECK(headers.ends_with("\r\n\r\n"));
  };
  with_server({.pause = milliseconds(1)}, talk, stream);
}

TEST_CASE("http: streams beyond their limit are refused, take no place of short answers, and hear the end") {
  bool is_over = false;
  const HttpHandler handler = [&is_over](const HttpRequest& request) {
    HttpAnswer answer = greet(request);
    if (request.path == "/events") answer = {.stream = std::make_shared<Waiting>(is_over)};
    return answer;
  };
  std::string last;
  const auto talk = [&last](std::uint16_t port) -> Task<> {
    const std::string watch = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
    const auto viewer = std::make_shared<RawPeer>(co_await RawPeer::dial(port));
    co_await viewer->write(watch);
    const std::string header = co_await viewer->read_header();
    CHECK(contains(header, "200 OK"));
    const std::string too_many = co_await answer_to(port, watch);
    CHECK(contains(too_many, "503 Service Unavailable"));
    const std::string get = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    const std::string beside = co_await answer_to(port, get);
    CHECK(contains(beside, "200 OK"));
    const auto executor = co_await asio::this_coro::executor;
    auto listening = listen_to(viewer, last);
    asio::co_spawn(executor, std::move(listening), [](const std::exception_ptr&) {});
  };
  with_server({.connections = 1, .streams = 1, .pause = std::chrono::hours(1)}, talk, handler, &is_over);
  CHECK(last == "the end");
}

TEST_CASE("http: a viewer that hangs up gives its place back, and one that does not read is hung up on") {
  bool is_over = false;
  const HttpHandler handler = [&is_over](const HttpRequest& request) {
    HttpAnswer answer;
    if (request.path == "/endless") {
      answer.stream = std::make_shared<Endless>();
    } else {
      answer.stream = std::make_shared<Waiting>(is_over);
    }
    return answer;
  };
  const auto talk = [](std::uint16_t port) -> Task<> {
    const std::string watch = "GET /waiting HTTP/1.1\r\nHost: x\r\n\r\n";
    const std::string endless = "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n";
    {
      RawPeer viewer = co_await RawPeer::dial(port);
      co_await viewer.write(watch);
      const std::string header = co_await viewer.read_header();
      CHECK(contains(header, "200 OK"));
    }
    // Until the server has seen that it is gone, its place is taken.
    std::string answer;
    RawPeer idle = co_await RawPeer::dial(port);
    co_await idle.write(endless);
    answer = co_await idle.read_header();
    while (contains(answer, "503")) {
      idle = co_await RawPeer::dial(port);
      co_await idle.write(endless);
      answer = co_await idle.read_header();
    }
    CHECK(contains(answer, "200 OK"));
    // It reads nothing: its place is free again once a piece has taken too long.
    const std::string get = "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n";
    do {
      RawPeer next = co_await RawPeer::dial(port);
      co_await next.write(get);
      answer = co_await next.read_header();
    } while (contains(answer, "503"));
    CHECK(contains(answer, "200 OK"));
  };
  with_server({.streams = 1, .piece = milliseconds(300), .pause = std::chrono::hours(1)}, talk, handler);
}

}  // namespace
}  // namespace headstart::net
