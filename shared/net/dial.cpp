#include "shared/net/dial.hpp"

#include <optional>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "shared/net/deadline.hpp"

namespace headstart::net {

using boost::system::error_code;
using tcp = asio::ip::tcp;

Task<std::string> connect_to_any(tcp::socket& socket, std::vector<tcp::endpoint> endpoints,
                                 std::chrono::milliseconds limit, std::function<bool()> is_over) {
  if (endpoints.empty()) co_return "it has no address";
  const auto share = limit / static_cast<std::int64_t>(endpoints.size());
  std::string tried;
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    const bool is_last = i + 1 == endpoints.size();
    error_code error;
    socket.close(error);
    std::optional<Deadline> deadline;
    if (!is_last) {
      deadline.emplace(socket.get_executor(), share, [&socket] {
        error_code ignored;
        socket.close(ignored);
      });
    }
    auto connecting = socket.async_connect(endpoints[i], asio::redirect_error(asio::use_awaitable, error));
    co_await std::move(connecting);
    const bool was_given_up = deadline && deadline->has_expired();
    if (!error && !was_given_up && !is_over()) co_return std::string();
    std::string reason = error ? error.message() : "the connection was ended";
    if (is_over()) {
      reason = "no answer";
    } else if (was_given_up) {
      reason = "no answer within its share of " + std::to_string(share.count()) + " ms";
    }
    if (endpoints.size() == 1) co_return reason;
    tried += (tried.empty() ? "tried " : ", ") + endpoints[i].address().to_string() + " (" + reason + ")";
    if (is_over()) break;
  }
  co_return tried;
}

}  // namespace headstart::net
