// Timers and the time that they go by.
#include "shared/net/time.hpp"

#include <thread>

#include <boost/asio/thread_pool.hpp>

#include "shared/net/deadline.hpp"
#include "shared/net/offload.hpp"
#include "shared/net/signal.hpp"
#include "tests/contract/channel_support.hpp"
#include "tests/support/manual_loop.hpp"
#include "tests/support/throws.hpp"

namespace headstart::net {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using test::ManualLoop;

void spawn(ManualLoop& loop, Task<> task) {
  asio::co_spawn(loop.io, std::move(task), [](const std::exception_ptr& failure) { CHECK_FALSE(failure); });
}

/// Says `name` when `span` has passed.
Task<> say_after(TimePoint::duration span, char name, std::string& said) {
  Timer timer(co_await asio::this_coro::executor, span);
  co_await timer.wait();
  said += name;
}

TEST_CASE("real time: a timer expires, and a wait is ended before its time") {
  const auto body = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    std::string said;
    co_await say_after(milliseconds(1), 'a', said);
    Timer timer(executor, hours(24));
    asio::post(executor, [&timer] { timer.cancel(); });
    co_await timer.wait();
    asio::post(executor, [&timer] { timer.end(); });
    co_await timer.wait();
    CHECK(timer.has_ended());
    co_await timer.wait();
    timer.expires_after(milliseconds(1));
    CHECK_FALSE(timer.has_ended());
    co_await timer.wait();
    CHECK(said == "a");
  };
  run(body());
}

TEST_CASE("manual time: deadlines come in their order, each at its time; of one instant in the order of setting") {
  ManualLoop loop;
  std::string said;
  spawn(loop, say_after(hours(2), 'd', said));
  spawn(loop, say_after(seconds(1), 'b', said));
  spawn(loop, say_after(seconds(1), 'c', said));
  spawn(loop, say_after(seconds(0), 'a', said));
  loop.run();
  CHECK(said == "abcd");
  CHECK(loop.passed() == hours(2));
  CHECK(loop.time.clock()() == loop.time.now());
}

TEST_CASE("manual time: what is ready comes before any deadline, and what it sets counts from then") {
  ManualLoop loop;
  std::string said;
  const auto chatter = [&]() -> Task<> {
    for (int i = 0; i < 1000; ++i) {
      auto posting = asio::post(loop.executor(), asio::use_awaitable);
      co_await std::move(posting);
    }
    said += 'a';
    co_await say_after(milliseconds(1), 'c', said);
  };
  spawn(loop, say_after(milliseconds(1), 'b', said));
  spawn(loop, chatter());
  loop.run();
  CHECK(said == "abc");
  CHECK(loop.passed() == milliseconds(1));
}

TEST_CASE("manual time: a timer that is cancelled, set anew or destroyed does not move the time to its old deadline") {
  ManualLoop loop;
  Timer cancelled(loop.executor(), hours(1));
  cancelled.cancel();
  Timer anew(loop.executor(), hours(2));
  anew.expires_after(seconds(3));
  { const Timer destroyed(loop.executor(), hours(3)); }
  const Timer unlimited(loop.executor(), TimePoint::duration::max());
  int num_calls = 0;
  anew.on_end([&num_calls] { ++num_calls; });
  {
    const Deadline disarmed(loop.executor(), hours(4), [&num_calls] { num_calls += 100; });
  }
  std::optional<Deadline> deadline(std::in_place, loop.executor(), seconds(5), [&num_calls] { ++num_calls; });
  const auto body = [&]() -> Task<> {
    Timer timer(loop.executor(), seconds(5));
    co_await timer.wait();
    CHECK(deadline->has_expired());
  };
  spawn(loop, body());
  loop.run();
  CHECK(num_calls == 2);
  CHECK(loop.passed() == seconds(5));
}

TEST_CASE("manual time: work that is under way never loses against a timer") {
  ManualLoop loop;
  asio::thread_pool pool(1);
  std::string said;
  const auto work = [&]() -> Task<> {
    co_await offload(pool, [] {
      for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    });
    said += 'a';
    co_await offload(pool, [] {});
    said += 'b';
  };
  spawn(loop, say_after(std::chrono::nanoseconds(1), 'c', said));
  spawn(loop, work());
  loop.run();
  pool.join();
  CHECK(said == "abc");
}

TEST_CASE("manual time: work that rests lets time go on, for so long or until it is stopped") {
  ManualLoop loop;
  asio::thread_pool pool(3);
  std::string said;
  std::stop_source stop;
  const auto rest = [&](TimePoint::duration span, char name) -> Task<> {
    auto resting = offload(pool, [&loop, span, token = stop.get_token()] { loop.time.rest(token, span); });
    co_await std::move(resting);
    said += name;
  };
  spawn(loop, rest(seconds(2), 'b'));
  spawn(loop, rest(hours(9), 'd'));
  spawn(loop, rest(TimePoint::duration::max(), 'd'));
  spawn(loop, say_after(seconds(1), 'a', said));
  const auto end = [&]() -> Task<> {
    co_await say_after(seconds(3), 'c', said);
    stop.request_stop();
  };
  spawn(loop, end());
  loop.run();
  CHECK(said == "abcdd");
  CHECK(loop.passed() == seconds(3));
  loop.io.restart();
  spawn(loop, rest(hours(9), 'e'));  // stopped before it begins
  loop.run();
  pool.join();
  CHECK(said == "abcdde");
  CHECK(loop.passed() == seconds(3));
}

TEST_CASE("manual time: a loop in which all wait for each other ends with an error") {
  ManualLoop loop;
  Signal never(loop.executor());
  const auto body = [&]() -> Task<> { co_await never.wait(); };
  spawn(loop, body());
  CHECK(test::code_of([&] { loop.run(); }) == Errc::internal);
}

}  // namespace
}  // namespace headstart::net
