// What a client's messages mean while it has a task, decided without a connection, a timer or a thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "server/sessions/patience.hpp"
#include "shared/base/clock.hpp"
#include "shared/wire/messages.hpp"

namespace headstart::server {

/// One task from the moment it is sent to its result.
class TaskExchange {
 public:
  /// `result_bytes`: of the state that is to come; 0: none.
  TaskExchange(wire::TaskId task, std::size_t num_inputs, std::uint64_t result_bytes)
      : task_(task), num_inputs_(num_inputs), result_bytes_(result_bytes) {}

  /// The client was told that an earlier task does not count; its answer crossed that message.
  struct Ignore {};
  /// Send these inputs, by place.
  struct Send {
    std::vector<std::uint16_t> inputs;
  };
  /// The task is done; a state of result_bytes waits to be granted, where there is one.
  struct Take {
    std::string figures;
  };
  /// The client could not do it, and stays.
  struct Fail {
    wire::Failure failure;
  };
  /// The client broke the protocol: how, in words.
  struct Violation {
    std::string what;
  };
  using Action = std::variant<Ignore, Send, Take, Fail, Violation>;

  /// What to do about a message. After Take, Fail or Violation nothing more is expected.
  Action on(const wire::ClientMessage& message);

 private:
  [[nodiscard]] Action on_fetch(const wire::Fetch& fetch);

  wire::TaskId task_;
  std::size_t num_inputs_;
  std::uint64_t result_bytes_;
  bool has_fetched_ = false;
};

/// When a client is late: nothing moved for patience.task, which is noticed within an eighth of that, or the phase is
/// over.
class Lateness {
 public:
  /// `traffic`: bytes of messages so far, both ways; heartbeats do not count.
  Lateness(const Patience& patience, TimePoint phase_end, TimePoint now, std::uint64_t traffic)
      : patience_(patience), phase_end_(phase_end), moved_at_(now), looked_at_(now), seen_(traffic) {}

  /// When to look again.
  [[nodiscard]] TimePoint next_look() const {
    return std::min({moved_at_ + patience_.task, looked_at_ + TimePoint::duration(patience_.task) / 8, phase_end_});
  }
  /// The reason, where it is late.
  std::optional<std::string> on_tick(TimePoint now, std::uint64_t traffic);

 private:
  Patience patience_;
  TimePoint phase_end_;
  TimePoint moved_at_;  ///< Seen to have.
  TimePoint looked_at_;
  std::uint64_t seen_;
};

}  // namespace headstart::server
