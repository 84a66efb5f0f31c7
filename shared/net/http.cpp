#include "shared/net/http.hpp"

#include <memory>
#include <utility>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

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

struct Service {
  HttpHandler handler;
  HttpLimits limits;
  std::size_t num_open = 0;
  std::vector<std::weak_ptr<asio::ip::tcp::socket>> sockets;
};

/// Nobody who reads slowly keeps a program that ends.
class EndOfService {
 public:
  explicit EndOfService(Service& service) : service_(service) {}
  ~EndOfService() {
    for (const auto& weak : service_.sockets) {
      error_code ignored;
      if (const auto socket = weak.lock()) socket->close(ignored);
    }
  }
  EndOfService(const EndOfService&) = delete;
  EndOfService& operator=(const EndOfService&) = delete;

 private:
  Service& service_;
};

Response respond(const Request& request, const HttpHandler& handler) {
  HttpAnswer answer;
  const bool is_head = request.method() == http::verb::head;
  if (request.method() == http::verb::get || is_head) {
    const std::string_view target(request.target().data(), request.target().size());
    answer = handler(target.substr(0, target.find('?')));
  } else {
    answer = {405, "text/plain; charset=utf-8", "only GET is answered here\n"};
  }
  Response response{http::int_to_status(answer.status), request.version()};
  response.set(http::field::content_type, answer.content_type);
  response.set(http::field::cache_control, "no-store");
  if (answer.status == 405) response.set(http::field::allow, "GET, HEAD");
  response.keep_alive(false);
  response.content_length(answer.body.size());
  if (!is_head) response.body() = std::move(answer.body);
  return response;
}

Task<> serve_one(std::shared_ptr<asio::ip::tcp::socket> socket, std::shared_ptr<Service> service) {
  const Deadline deadline(socket->get_executor(), service->limits.request, [socket] {
    error_code ignored;
    socket->close(ignored);
  });
  error_code error;
  beast::flat_buffer buffer(max_header_bytes);
  http::request_parser<http::empty_body> parser;
  parser.header_limit(max_header_bytes);
  auto reading = http::async_read_header(*socket, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(reading);
  if (error) co_return;
  const Response response = respond(parser.get(), service->handler);
  http::response_serializer<http::string_body> serializer(response);
  auto writing = http::async_write(*socket, serializer, asio::redirect_error(asio::use_awaitable, error));
  co_await std::move(writing);
  socket->shutdown(asio::ip::tcp::socket::shutdown_both, error);
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
    const auto socket = std::make_shared<asio::ip::tcp::socket>(std::move(accepted->socket));
    std::erase_if(service->sockets, [](const auto& weak) { return weak.expired(); });
    service->sockets.push_back(socket);
    auto serving = serve_one(socket, service);
    asio::co_spawn(executor, std::move(serving), [service](const std::exception_ptr& failure) {
      --service->num_open;
      if (failure) std::rethrow_exception(failure);
    });
  }
}

}  // namespace headstart::net
