// Short answers to GET requests, for probes and for a metrics collector; no TLS, no bodies, one request a connection.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "shared/net/task.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::net {

struct HttpAnswer {
  unsigned status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

/// Called with a request's path, on the listener's executor.
using HttpHandler = std::function<HttpAnswer(std::string_view path)>;

struct HttpLimits {
  std::chrono::milliseconds request = std::chrono::seconds(5);  ///< From the connection to its last byte.
  std::size_t connections = 16;                                 ///< At a time; more are closed at once.
};

/// Answers until `listener` is closed: GET and HEAD by `handler`, other methods with 405, what is no HTTP or has a
/// header above 8 KiB by hanging up. All arguments but `listener`, which outlives the task, are kept by it.
Task<> serve_http(asio::any_io_executor executor, Listener& listener, HttpHandler handler, HttpLimits limits = {});

}  // namespace headstart::net
