#include "shared/net/redial.hpp"

#include <algorithm>
#include <optional>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "shared/base/error.hpp"

namespace headstart::net {

using std::chrono::milliseconds;

milliseconds pause_after(const RedialOptions& options, int attempt, Seed seed) {
  milliseconds pause = options.first_pause;
  for (int doubled = 1; doubled < attempt && pause < options.longest_pause; ++doubled) pause *= 2;
  pause = std::min(pause, options.longest_pause);
  const std::uint64_t draw = seed.child(static_cast<std::uint64_t>(attempt)).value();
  const double share = static_cast<double>(draw >> 11) * 0x1p-53;  // 0..1
  return milliseconds(static_cast<std::int64_t>(static_cast<double>(pause.count()) * (1 - share / 2)));
}

Task<std::unique_ptr<MessageChannel>> connect_patiently(asio::any_io_executor executor, Url url,
                                                        WebSocketOptions options, RedialOptions redial, Seed seed,
                                                        Clock clock,
                                                        std::function<void(const std::string&, milliseconds)> tell) {
  asio::steady_timer timer(executor);
  std::optional<TimePoint> failing_since;
  for (int attempt = 1;; ++attempt) {
    std::optional<Error> failure;
    try {
      auto connecting = connect(executor, url, options);
      co_return co_await std::move(connecting);
    } catch (const Error& error) {
      if (error.code() != Errc::network) throw;
      failure = error;
    }
    const TimePoint now = clock();
    if (!failing_since) failing_since = now;
    const milliseconds pause = pause_after(redial, attempt, seed);
    if (now + pause > *failing_since + redial.patience) throw Error(*failure);
    tell(failure->what(), pause);
    timer.expires_after(pause);
    boost::system::error_code cancelled;
    auto waiting = timer.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    co_await std::move(waiting);
  }
}

}  // namespace headstart::net
