#include "shared/net/http.hpp"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/net/deadline.hpp"
#include "shared/net/pending_peer.hpp"

namespace headstart::net {

namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Request = http::request<http::empty_body>;
using Response = http::response<http::string_body>;

constexpr std::uint32_t max_header_bytes = 8192;

/// A connection while it stands.
struct Connection {
  explicit Connection(asio::ip::tcp::socket accepted) : socket(std::move(accepted)), pause(socket.get_executor()) {}

  void close() {
    error_code ignored;
    socket.close(ignored);
  }

  asio::ip::tcp::socket socket;
  Timer pause;  ///< A stream waits by it for its next piece.
  bool is_pausing = false;
};

struct Service {
  HttpHandler handler;
  HttpLimits limits;
  std::size_t num_open = 0;  ///< Without streams.
  std::size_t num_streams = 0;
  bool is_over = false;
  std::vector<std::weak_ptr<Connection>> connections;
};

/// Nobody who reads slowly keeps a program that ends.
class EndOfService {
 public:
  explicit EndOfService(Service& service) : service_(service) {}
  ~EndOfService() {
    service_.is_over = true;
    for (const auto& weak : service_.connections) {
      const auto connection = weak.lock();
      if (!connection) continue;
      if (connection->is_pausing) {
        connection->pause.end();
      } else {
        connection->close();
      }
    }
  }
  EndOfService(const EndOfService&) = delete;
  EndOfService& operator=(const EndOfService&) = delete;

 private:
  Service& service_;
};

/// Counts a connection as a stream, in place of one with a short answer, while it lives.
class StreamPlace {
 public:
  explicit StreamPlace(std::shared_ptr<Service> service) : service_(std::move(service)) {
    --service_->num_open;
    ++service_->num_streams;
  }
  ~StreamPlace() {
    ++service_->num_open;
    --service_->num_streams;
  }
  StreamPlace(const StreamPlace&) = delete;
  StreamPlace& operator=(const StreamPlace&) = delete;

 private:
  std::shared_ptr<Service> service_;
};

std::string_view view_of(beast::string_view text) { return {text.data(), text.size()}; }

HttpAnswer answer_to(const Request& request, const Service& service) {
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    return {.status = 405, .body = "only GET is answered here\n", .headers = {{"Allow", "GET, HEAD"}}};
  }
  const std::string_view target = view_of(request.target());
  const std::size_t mark = std::min(target.find('?'), target.size());
  HttpRequest asked{.path = target.substr(0, mark), .query = target.substr(std::min(mark + 1, target.size()))};
  asked.host = view_of(request[http::field::host]);
  asked.authorization = view_of(request[http::field::authorization]);
  asked.cookie = view_of(request[http::field::cookie]);
  asked.last_event_id = view_of(request["Last-Event-ID"]);
  HttpAnswer answer = service.handler(asked);
  if (answer.stream && service.num_streams >= service.limits.streams) {
    return {.status = 503,
            .body = fmt::format("{} connections are open that watch or download, which is the limit\n",
                                service.limits.streams),
            .headers = {{"Retry-After", "10"}}};
  }
  return answer;
}

Response response_of(const Request& request, HttpAnswer& answer) {
  Response response{http::int_to_status(answer.status), request.version()};
  response.set(http::field::content_type, answer.content_type);
  response.set(http::field::cache_control, "no-store");
  for (const auto& [name, value] : answer.headers) response.set(name, value);
  response.keep_alive(false);
  if (!answer.stream) {
    response.content_length(answer.body.size());
  } else if (answer.stream_bytes) {
    response.content_length(*answer.stream_bytes);
  }
  if (request.method() == http::verb::head) {
    answer.stream.reset();
  } else {
    response.body() = std::move(answer.body);
  }
  return response;
}

/// Closes the connection of a stream whose reader is gone: it has nothing more to say.
void close_when_left(const std::shared_ptr<Connection>& connection) {
  connection->socket.async_wait(asio::ip::tcp::socket::wait_read, [weak = std::weak_ptr(connection)](error_code error) {
    const auto left = weak.lock();
    if (error || !left) return;
    left->pause.end();
    left->close();
  });
}

/// What is left to send when the header is.
struct Rest {
  std::shared_ptr<HttpStream> stream;  ///< Null: nothing.
  std::unique_ptr<StreamPlace> place;
};

/// Pieces until the stream or the connection ends.
Task<> send_stream(std::shared_ptr<Connection> connection, std::shared_ptr<Service> service,
                   std::shared_ptr<HttpStream> stream) {
  error_code error;
  close_when_left(connection);
  while (!error) {
    const bool is_last = service->is_over;
    const std::optional<std::string> piece = stream->next();
    if (!piece) co_return;
    if (!piece->empty()) {
      const std::chrono::milliseconds limit = is_last ? service->limits.parting : service->limits.piece;
      const Deadline deadline(connection->socket.get_executor(), limit, [connection] { connection->close(); });
      auto writing =
          asio::async_write(connection->socket, asio::buffer(*piece), asio::redirect_error(asio::use_awaitable, error));
      co_await std::move(writing);
      if (!is_last) continue;
    }
    if (is_last || !connection->socket.is_open()) co_return;
    connection->pause.expires_after(service->limits.pause);
    connection->is_pausing = true;
    co_await connection->pause.wait();
    connection->is_pausing = false;
  }
}

/// Sends the answer, of a stream the header.
Task<Rest> answer_request(std::shared_ptr<Connection> connection, std::shared_ptr<Service> service) {
  Rest rest;
  const Deadline deadline(connection->socket.get_executor(), service->limits.request,
                          [connection] { connection->close(); });
  error_code error;
  beast::flat_buffer buffer(max_header_bytes);
  http::request_parser<http::empty_body> parser;
  parser.header_limit(max_header_bytes);
  auto reading =
      http::async_read_header(connection->socket, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(reading);
  if (error) co_return rest;
  HttpAnswer answer = answer_to(parser.get(), *service);
  const Response response = response_of(parser.get(), answer);
  if (answer.stream) rest.place = std::make_unique<StreamPlace>(service);
  http::response_serializer<http::string_body> serializer(response);
  auto writing = http::async_write(connection->socket, serializer, asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(writing);
  if (!error) rest.stream = std::move(answer.stream);
  co_return rest;
}

Task<> serve_one(std::shared_ptr<Connection> connection, std::shared_ptr<Service> service) {
  auto answering = answer_request(connection, service);
  const Rest rest = co_await std::move(answering);
  if (rest.stream) {
    auto sending = send_stream(connection, service, rest.stream);
    co_await std::move(sending);
  }
  error_code ignored;
  connection->socket.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
}

}  // namespace

Task<> serve_http(asio::any_io_executor executor, Listener& listener, HttpHandler handler, HttpLimits limits) {
  const auto service = std::make_shared<Service>(std::move(handler), limits);
  const EndOfService close_at_end(*service);
  while (true) {
    auto accepting = listener.accept();
    PendingPeer pending = co_await std::move(accepting);
    if (service->num_open >= limits.connections) continue;
    ++service->num_open;
    const auto accepted = std::move(pending).release();
    const auto connection = std::make_shared<Connection>(std::move(accepted->socket));
    std::erase_if(service->connections, [](const auto& weak) { return weak.expired(); });
    service->connections.push_back(connection);
    auto serving = serve_one(connection, service);
    // One connection that fails, of memory even, costs itself: a run goes on beside it.
    asio::co_spawn(executor, std::move(serving), [service](const std::exception_ptr&) { --service->num_open; });
  }
}

}  // namespace headstart::net
