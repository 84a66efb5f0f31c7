// Answers to GET requests, for probes, a metrics collector and a page; no TLS, no bodies, one request a connection.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/net/task.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::net {

/// Of a request. Valid during the call that it is given to; what is not there is empty.
struct HttpRequest {
  std::string_view path;   ///< Without the query.
  std::string_view query;  ///< Without its question mark.
  std::string_view host, authorization, cookie, last_event_id;
};

/// A body that is made piece by piece, while the connection stands. Called on the listener's executor.
class HttpStream {
 public:
  virtual ~HttpStream() = default;
  /// What follows; called again when that is written. Empty: nothing for now. Nothing: the body is whole.
  virtual std::optional<std::string> next() = 0;
};

struct HttpAnswer {
  unsigned status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};  ///< Further ones.
  std::shared_ptr<HttpStream> stream = {};                        ///< In place of `body`.
  std::optional<std::uint64_t> stream_bytes = {};                 ///< How long that is, where it is known.
};

/// Called on the listener's executor.
using HttpHandler = std::function<HttpAnswer(const HttpRequest& request)>;

struct HttpLimits {
  std::chrono::milliseconds request = std::chrono::seconds(5);       ///< From the connection to its last byte.
  std::size_t connections = 16;                                      ///< At a time; more are closed at once.
  std::size_t streams = 16;                                          ///< Beside those; more are answered with 503.
  std::chrono::milliseconds piece = std::chrono::seconds(30);        ///< For one piece of a stream to be written.
  std::chrono::milliseconds pause = std::chrono::milliseconds(500);  ///< Until a stream with nothing is asked again.
  std::chrono::milliseconds parting = std::chrono::seconds(1);       ///< For the last piece, once the service ends.
};

/// Answers until `listener` is closed: GET and HEAD by `handler`, other methods with 405, what is no HTTP or has a
/// header above 8 KiB by hanging up. Of a stream one piece is in memory. When the listener is closed, a stream that
/// waits for its next piece is asked once more; all other connections are closed. All arguments but `listener`, which
/// outlives the task, are kept by it.
Task<> serve_http(asio::any_io_executor executor, Listener& listener, HttpHandler handler, HttpLimits limits = {});

}  // namespace headstart::net
