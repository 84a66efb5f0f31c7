#include "shared/net/stop_signals.hpp"

#include <atomic>
#include <thread>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "shared/base/log.hpp"

namespace headstart::net {

namespace asio = boost::asio;
using boost::system::error_code;

struct StopSignals::State {
  State(const std::vector<int>& numbers, std::function<void()> on_first, StopOptions how)
      : signals(io), timer(io), stop(std::move(on_first)), options(std::move(how)) {
    for (const int number : numbers) signals.add(number);
    wait();
    thread = std::thread([this] { io.run(); });
  }
  ~State() {
    asio::post(io, [this] {
      signals.cancel();
      timer.cancel();
    });
    thread.join();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void wait() {
    signals.async_wait([this](error_code error, int) {
      if (error) return;
      if (is_stopping) return leave("told to stop for the second time: ending at once");
      is_stopping = true;
      stop();
      wait();
      timer.expires_after(options.grace);
      timer.async_wait([this](error_code cancelled) {
        if (!cancelled) leave("told to stop, and something does not let go: ending without it");
      });
    });
  }
  /// On any thread, when the program has ended its work. Where it was told to stop, the signals are taken until the
  /// process is gone: neither a second one nor its last steps may end it in another way.
  static void release(std::unique_ptr<State> state) {
    if (!state->is_stopping) return;
    state->has_ended_work = true;
    state->thread.detach();
    (void)state.release();
  }

  void leave(const char* why) const {
    // In the program's last steps the log may be gone.
    if (!has_ended_work) {
      spdlog::warn("{}", why);
      spdlog::default_logger()->flush();
    }
    options.leave();
  }

  asio::io_context io{1};
  asio::signal_set signals;
  asio::steady_timer timer;
  std::function<void()> stop;
  StopOptions options;
  std::atomic<bool> is_stopping = false;
  std::atomic<bool> has_ended_work = false;
  std::thread thread;
};

StopSignals::StopSignals(const std::vector<int>& signals, std::function<void()> stop, StopOptions options)
    : state_(std::make_unique<State>(signals, std::move(stop), std::move(options))) {}

StopSignals::~StopSignals() { State::release(std::move(state_)); }

}  // namespace headstart::net
