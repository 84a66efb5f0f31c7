#include "shared/net/offload.hpp"

#include <array>
#include <atomic>
#include <latch>
#include <stdexcept>
#include <thread>

#include "tests/contract/channel_support.hpp"

namespace headstart::net {
namespace {

using asio::experimental::awaitable_operators::operator&&;

TEST_CASE("offload runs on the pool and resumes where it came from") {
  asio::thread_pool pool(1);
  const auto task = [](asio::thread_pool& workers) -> Task<> {
    const auto here = std::this_thread::get_id();
    const auto there = co_await offload(workers, [] { return std::this_thread::get_id(); });
    CHECK(there != here);
    CHECK(std::this_thread::get_id() == here);
  };
  run(task(pool));
}

struct Unmovable {
  explicit Unmovable(int v) : value(v) {}
  Unmovable(Unmovable&&) = default;
  Unmovable& operator=(Unmovable&&) = delete;
  int value;
};

TEST_CASE(
    "offload hands over results that cannot be copied or made from nothing, and functions that cannot be copied") {
  asio::thread_pool pool(1);
  const auto task = [](asio::thread_pool& workers) -> Task<> {
    auto input = std::make_unique<int>(20);
    auto work = [held = std::move(input)]() mutable {
      ++*held;
      return std::move(held);
    };
    auto summing = offload(workers, std::move(work));
    const auto sum = co_await std::move(summing);
    CHECK(*sum == 21);
    const auto odd = co_await offload(workers, [] { return Unmovable(7); });
    CHECK(odd.value == 7);
  };
  run(task(pool));
}

struct Counted {
  explicit Counted(std::atomic<int>& counter) : alive(&counter) { ++*alive; }
  Counted(const Counted& other) : alive(other.alive) { ++*alive; }
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --*alive; }
  std::atomic<int>* alive;
};

TEST_CASE("what a function captures is destroyed exactly as often as it was made") {
  asio::thread_pool pool(1);
  std::atomic<int> alive = 0;
  const auto task = [](asio::thread_pool& workers, std::atomic<int>& counter) -> Task<> {
    auto counting = offload(workers, [captured = Counted(counter)] { return captured.alive->load(); });
    const int while_running = co_await std::move(counting);
    CHECK(while_running >= 1);
  };
  run(task(pool, alive));
  CHECK(alive == 0);
}

TEST_CASE("offload passes exceptions on") {
  asio::thread_pool pool(1);
  const auto task = [](asio::thread_pool& workers) -> Task<> {
    const auto fail = [] { throw Error(Errc::data, "row 7"); };
    const Failure failure = co_await failure_of(offload(workers, fail));
    CHECK(failure.code == Errc::data);
    CHECK(failure.message == "row 7");
    std::string caught;
    try {
      co_await offload(workers, []() -> int { throw std::out_of_range("seven"); });
    } catch (const std::out_of_range& error) {
      caught = error.what();
    }
    CHECK(caught == "seven");
  };
  run(task(pool));
}

TEST_CASE("the caller's thread is free meanwhile: two offloaded functions wait for each other") {
  asio::thread_pool pool(2);
  const auto task = [](asio::thread_pool& workers) -> Task<> {
    std::latch meeting(2);
    const auto meet = [&meeting] { meeting.arrive_and_wait(); };
    auto both = offload(workers, meet) && offload(workers, meet);
    co_await std::move(both);
    CHECK(meeting.try_wait());
  };
  run(task(pool));
}

TEST_CASE("many offloads keep their results apart") {
  asio::thread_pool pool(2);
  const auto task = [](asio::thread_pool& workers) -> Task<> {
    long sum = 0;
    for (long i = 0; i < 2000; ++i) sum += co_await offload(workers, [i] { return i; });
    CHECK(sum == 1999L * 1000);
  };
  run(task(pool));
}

TEST_CASE("a void function runs once") {
  asio::thread_pool pool(1);
  int runs = 0;
  const auto task = [](asio::thread_pool& workers, int& count) -> Task<> {
    auto work = [&count] { ++count; };
    co_await offload(workers, work);
  };
  run(task(pool, runs));
  CHECK(runs == 1);
}

}  // namespace
}  // namespace headstart::net
