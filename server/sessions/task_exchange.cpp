#include "server/sessions/task_exchange.hpp"

#include <fmt/format.h>

namespace headstart::server {

TaskExchange::Action TaskExchange::on(const wire::ClientMessage& message) {
  const auto task = std::visit(
      [](const auto& m) -> std::optional<wire::TaskId> {
        if constexpr (requires { m.task; }) return m.task;
        return std::nullopt;
      },
      message);
  if (task && *task < task_) return Ignore{};
  if (task != task_) return Violation{"answered out of turn"};
  if (const auto* failed = std::get_if<wire::TaskFailed>(&message)) return Fail{failed->failure};
  if (const auto* fetch = std::get_if<wire::Fetch>(&message)) return on_fetch(*fetch);
  const auto* result = std::get_if<wire::Result>(&message);
  if (result == nullptr) return Violation{"answered out of turn"};
  if (result->num_bytes != result_bytes_) {
    return Violation{
        fmt::format("offers a result of {} bytes; the agreed schema has {}", result->num_bytes, result_bytes_)};
  }
  return Take{result->figures.value};
}

TaskExchange::Action TaskExchange::on_fetch(const wire::Fetch& fetch) {
  if (has_fetched_) return Violation{"fetches inputs a second time"};
  has_fetched_ = true;
  for (const std::uint16_t place : fetch.inputs.values) {
    if (place >= num_inputs_) {
      return Violation{fmt::format("fetches input {} of a task that has {}", place, num_inputs_)};
    }
  }
  return Send{fetch.inputs.values};
}

std::optional<std::string> Lateness::on_tick(TimePoint now, std::uint64_t traffic) {
  if (traffic != seen_) {
    seen_ = traffic;
    moved_at_ = now;
  }
  looked_at_ = now;
  if (now >= phase_end_) return "late: its time for this phase is over";
  if (now < moved_at_ + patience_.task) return std::nullopt;
  return fmt::format("late: no progress for {} s", std::chrono::duration<double>(patience_.task).count());
}

}  // namespace headstart::server
