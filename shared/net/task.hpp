// Net: bytes between processes. This room knows Asio and Beast, and nothing of tensors or federated learning.
#pragma once

#include <boost/asio/awaitable.hpp>

namespace headstart::net {

namespace asio = boost::asio;

/// A coroutine on an Asio executor. Fails by throwing headstart::Error.
template <class T = void>
using Task = asio::awaitable<T>;

}  // namespace headstart::net
