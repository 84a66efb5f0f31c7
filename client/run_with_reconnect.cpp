#include "client/run_with_reconnect.hpp"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/net/time.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::client {

namespace {

constexpr std::chrono::milliseconds pause_between_runs = std::chrono::seconds(2);
constexpr std::chrono::milliseconds longest_pause_outside = std::chrono::seconds(5);

bool may_pass(const Error& error, bool is_in_run) {
  return error.code() == Errc::network || error.code() == Errc::peer_closed || error.code() == Errc::protocol ||
         dynamic_cast<const NotYet*>(&error) != nullptr ||
         (is_in_run && dynamic_cast<const net::TlsRefusal*>(&error) != nullptr);
}

/// `connected_at` is set once there is a connection.
net::Task<std::string> dial_and_run(net::asio::any_io_executor executor, const Dial& dial, const ClientContext& context,
                                    ClientState& state, std::optional<TimePoint>& connected_at) {
  auto dialling = dial();
  auto channel = co_await std::move(dialling);
  connected_at = context.clock();
  if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped");
  auto running = run_client(executor, std::move(channel), context, state);
  co_return co_await std::move(running);
}

}  // namespace

net::Task<std::string> run_with_reconnect(net::asio::any_io_executor executor, Dial dial, ClientContext context,
                                          net::RedialOptions redial) {
  ClientState state(executor, *context.pool, context.clock);
  net::Timer pause_timer(executor);
  const std::stop_callback on_stop(context.stop, [&pause_timer] { pause_timer.end(); });
  const Seed seed = Seed(0).child(context.name);
  std::optional<TimePoint> failing_since;
  for (int attempt = 1;; ++attempt) {
    std::optional<TimePoint> connected_at;
    const std::uint64_t num_done = state.num_tasks_done;
    std::optional<Error> failure;
    try {
      auto running = dial_and_run(executor, dial, context, state, connected_at);
      std::string closing_words = co_await std::move(running);
      if (state.num_tasks_done == 0 && state.num_tasks_failed > 0) {
        throw Error(Errc::run_failed,
                    fmt::format("{}; but all {} tasks of this client failed, and nothing of it is in the "
                                "run's model: the log above says why",
                                closing_words, state.num_tasks_failed));
      }
      co_return closing_words;
    } catch (const Error& error) {
      if (!may_pass(error, !state.terms.empty()) || context.stop.stop_requested()) {
        state.runner.drop();
        throw;
      }
      failure = error;
    }
    const TimePoint now = context.clock();
    const bool has_lasted = connected_at && now - *connected_at >= std::max(redial.patience, redial.longest_pause);
    if (!failing_since || state.num_tasks_done > num_done || has_lasted) {
      failing_since = now;
      attempt = 1;
    }
    const bool is_outside = state.terms.empty();
    const TimePoint end = *failing_since + (is_outside ? redial.patience : redial.patience_once_in);
    if (now >= end) {
      state.runner.drop();
      throw Error(*failure);
    }
    // A full door or run has room for a moment only, and patience is short outside.
    net::RedialOptions pace = redial;
    if (is_outside) pace.longest_pause = std::min(pace.longest_pause, longest_pause_outside);
    // The last attempt is at the end of the patience, not before it.
    const std::chrono::milliseconds pause =
        std::min(net::pause_after(pace, attempt, seed), std::chrono::ceil<std::chrono::milliseconds>(end - now));
    context.observer->on_retry(failure->what(), pause);
    pause_timer.expires_after(pause);
    auto waiting = pause_timer.wait();
    co_await std::move(waiting);
    if (context.stop.stop_requested()) {
      state.runner.drop();
      throw Error(Errc::interrupted, "stopped while waiting for the server");
    }
  }
}

net::Task<std::string> run_forever(net::asio::any_io_executor executor, Dial dial, ClientContext context,
                                   net::RedialOptions redial) {
  net::Timer pause_timer(executor);
  const std::stop_callback on_stop(context.stop, [&pause_timer] { pause_timer.end(); });
  for (;;) {
    std::string words;
    try {
      auto running = run_with_reconnect(executor, dial, context, redial);
      words = co_await std::move(running);
    } catch (const Error& error) {
      if (error.code() == Errc::interrupted || error.code() == Errc::internal || context.stop.stop_requested()) throw;
      words = error.what();
    }
    context.observer->on_retry(words + "; standing by for the next run", pause_between_runs);
    pause_timer.expires_after(pause_between_runs);
    auto waiting = pause_timer.wait();
    co_await std::move(waiting);
    if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped while standing by");
  }
}

}  // namespace headstart::client
