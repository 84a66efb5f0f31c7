// Many tasks at once, one result.
#pragma once

#include <exception>
#include <memory>
#include <vector>

#include <boost/asio/co_spawn.hpp>

#include "shared/net/signal.hpp"

namespace headstart::net {

/// Runs all tasks on `executor` at the same time and resumes when the last has ended. Throws the first exception that
/// any of them ended with, after all have ended. What the tasks refer to must outlive the call.
inline Task<> gather(asio::any_io_executor executor, std::vector<Task<>> tasks) {
  struct State {
    explicit State(const asio::any_io_executor& on) : changed(on) {}
    std::size_t running = 0;
    std::exception_ptr failure;
    Signal changed;
  };
  const auto state = std::make_shared<State>(executor);
  state->running = tasks.size();
  for (Task<>& task : tasks) {
    const auto on_end = [state](const std::exception_ptr& failure) {
      if (failure && !state->failure) state->failure = failure;
      --state->running;
      state->changed.notify();
    };
    asio::co_spawn(executor, std::move(task), on_end);
  }
  while (state->running > 0) co_await state->changed.wait();
  if (state->failure) std::rethrow_exception(state->failure);
}

}  // namespace headstart::net
