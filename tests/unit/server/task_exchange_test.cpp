#include "server/sessions/task_exchange.hpp"

#include <string>
#include <variant>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace headstart::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr wire::TaskId task = 7;

/// What `message` means for a task of three inputs and a result of 100 bytes, in a word or in words.
std::string meaning_of(const wire::ClientMessage& message, TaskExchange exchange = {task, 3, 100}) {
  const TaskExchange::Action action = exchange.on(message);
  if (std::holds_alternative<TaskExchange::Ignore>(action)) return "ignore";
  if (const auto* sent = std::get_if<TaskExchange::Send>(&action)) {
    return fmt::format("send {}", fmt::join(sent->inputs, " "));
  }
  if (const auto* done = std::get_if<TaskExchange::Take>(&action)) return fmt::format("take {}", done->figures);
  if (const auto* failed = std::get_if<TaskExchange::Fail>(&action)) {
    return fmt::format("fail {}", wire::word_of(failed->failure));
  }
  return std::get<TaskExchange::Violation>(action).what;
}

TEST_CASE("what a client says while it has a task") {
  CHECK(meaning_of(wire::Fetch{task, {{2, 0}}}) == "send 2 0");
  CHECK(meaning_of(wire::Result{task, "{}", 100}) == "take {}");
  CHECK(meaning_of(wire::TaskFailed{task, wire::Failure::memory}) == "fail memory");
}

TEST_CASE("answers to earlier tasks crossed the message that they do not count, and are ignored") {
  CHECK(meaning_of(wire::Result{task - 1, "{}", 5}) == "ignore");
  CHECK(meaning_of(wire::Fetch{task - 1, {{9}}}) == "ignore");
  CHECK(meaning_of(wire::TaskFailed{1, wire::Failure::data}) == "ignore");
}

TEST_CASE("what breaks the protocol, and how it is named") {
  CHECK(meaning_of(wire::Result{task + 1, "{}", 100}) == "answered out of turn");
  CHECK(meaning_of(wire::Join{}) == "answered out of turn");
  CHECK(meaning_of(wire::ProgressReport{task, 1, 2}) == "answered out of turn");  // these are seen before they wait
  CHECK(meaning_of(wire::Result{task, "{}", 99}) == "offers a result of 99 bytes; the agreed schema has 100");
  CHECK(meaning_of(wire::Result{task, "{}", 0}) == "offers a result of 0 bytes; the agreed schema has 100");
  CHECK(meaning_of(wire::Fetch{task, {{0, 3}}}) == "fetches input 3 of a task that has 3");
  TaskExchange exchange(task, 3, 100);
  (void)exchange.on(wire::Fetch{task, {{0}}});
  CHECK(meaning_of(wire::Fetch{task, {{1}}}, exchange) == "fetches inputs a second time");
  CHECK(meaning_of(wire::Result{task, "{}", 100}, exchange) == "take {}");
}

TEST_CASE("a client is late when nothing moved for so long, or when the phase is over, whichever comes first") {
  const TimePoint begin{};
  const Patience patience{.task = seconds(10)};
  Lateness lateness(patience, begin + seconds(25), begin, 5);
  CHECK(lateness.next_look() == begin + milliseconds(1250));
  CHECK_FALSE(lateness.on_tick(begin + seconds(9), 5));
  CHECK(lateness.next_look() == begin + seconds(10));
  CHECK_FALSE(lateness.on_tick(begin + seconds(10), 6));  // something moved meanwhile
  CHECK_FALSE(lateness.on_tick(begin + seconds(20) - milliseconds(1), 6));
  CHECK(lateness.next_look() == begin + seconds(20));
  CHECK(lateness.on_tick(begin + seconds(20), 6) == "late: no progress for 10 s");
  Lateness moving(patience, begin + seconds(25), begin, 0);
  CHECK_FALSE(moving.on_tick(begin + seconds(24), 1));
  CHECK(moving.next_look() == begin + seconds(25));
  CHECK(moving.on_tick(begin + seconds(25), 2) == "late: its time for this phase is over");
}

TEST_CASE("whoever falls silent is late within an eighth of the time more, looked at no sooner than was asked") {
  const Patience patience{.task = std::chrono::seconds(8)};
  const TimePoint begin{};
  // Moves until a moment of its own, and never again.
  for (int silent_from = 0; silent_from < 8000; silent_from += 370) {
    CAPTURE(silent_from);
    Lateness lateness(patience, begin + std::chrono::hours(1), begin, 0);
    std::optional<std::string> reason;
    TimePoint now = begin;
    while (!reason) {
      now = lateness.next_look();
      const auto moved = std::chrono::duration_cast<std::chrono::milliseconds>(now - begin).count();
      reason = lateness.on_tick(now, static_cast<std::uint64_t>(std::min<std::int64_t>(moved, silent_from)));
    }
    const TimePoint silent = begin + std::chrono::milliseconds(silent_from);
    CHECK(now >= silent + patience.task);
    CHECK(now <= silent + patience.task + std::chrono::seconds(1));
  }
}

}  // namespace
}  // namespace headstart::server
