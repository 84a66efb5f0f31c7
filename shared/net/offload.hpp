// The one way from a coroutine to the compute pool and back.
#pragma once

#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/execution/outstanding_work.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "shared/net/time.hpp"

namespace headstart::net {

namespace detail {

struct Nothing {};

template <class Result>
class Outcome {
 public:
  template <class F>
  void take_from(F& function) noexcept {
    try {
      if constexpr (std::is_void_v<Result>) {
        function();
      } else {
        value_.emplace(function());
      }
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  Result hand_out() {
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    if constexpr (!std::is_void_v<Result>) return std::move(*value_);
  }

 private:
  std::exception_ptr error_;
  std::optional<std::conditional_t<std::is_void_v<Result>, Nothing, Result>> value_;
};

}  // namespace detail

/// Runs `function` on `pool` and resumes on the caller's executor with its result or exception.
/// Name the awaitable first, as with every lambda that captures more than references and numbers: g++ 12 destroys it
/// twice where it stands in the full expression of a co_await, however the argument is taken.
///   auto training = offload(pool, [model] { ... });
///   auto result = co_await std::move(training);
/// The caller's executor is kept alive with work meanwhile; cancelling the caller waits for `function` to return.
/// Manual time does not go on meanwhile.
/// `pool` must be joined before the caller's execution context is destroyed.
template <class F>
Task<std::invoke_result_t<F&>> offload(asio::thread_pool& pool, F function) {
  using Result = std::invoke_result_t<F&>;
  static_assert(!std::is_reference_v<Result>, "return a value: what a reference names may be gone by then");
  const WorkUnderWay under_way(co_await asio::this_coro::executor);
  // co_spawn would be shorter, but delivers cancellation on another of the pool's threads while `function` runs.
  detail::Outcome<Result> outcome;
  auto start = [&pool, &function, &outcome](auto handler) {
    auto caller = asio::prefer(asio::get_associated_executor(handler), asio::execution::outstanding_work.tracked);
    asio::post(pool, [&function, &outcome, caller, resume = std::move(handler)]() mutable {
      outcome.take_from(function);
      asio::post(caller, std::move(resume));
    });
  };
  auto done = asio::async_initiate<const asio::use_awaitable_t<>, void()>(std::move(start), asio::use_awaitable);
  co_await std::move(done);
  co_return outcome.hand_out();
}

}  // namespace headstart::net
