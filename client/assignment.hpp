// A task as a client works on it, and what comes of it.
#pragma once

#include <algorithm>
#include <optional>
#include <ranges>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/clock.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/core/progress.hpp"
#include "shared/plan/tasks.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::client {

/// How a task under way reports and is stopped. Called and read on the computing thread.
struct TaskContext {
  learn::ProgressCallback progress;
  std::stop_token stop;
  TimePoint received_at{};
  Clock clock = {};  ///< That received_at was read from.

  /// Since the task was received; 0 where there is no clock.
  [[nodiscard]] double seconds() const { return clock ? seconds_between(received_at, clock()) : 0; }
};

/// A state that a task works on.
struct Input {
  std::string name;   ///< Its part in the task (plan::input).
  std::string owner;  ///< The client that trained it; empty: the server made it.
  plan::Form form;
  std::string digest;
  wire::PackedState state;
};

struct Assignment {
  std::string kind;      ///< plan::task.
  std::string settings;  ///< JSON, as the kind declares it.
  std::vector<Input> inputs;

  /// The one of that name. Throws Error(protocol) where there is none, or more than one.
  [[nodiscard]] const Input& input(std::string_view name) const {
    const auto found = inputs_named(name);
    if (found.size() != 1) {
      throw Error(Errc::protocol, "a task '" + kind + "' with " + std::to_string(found.size()) + " inputs '" +
                                      std::string(name) + "'; one is expected");
    }
    return *found.front();
  }
  [[nodiscard]] std::vector<const Input*> inputs_named(std::string_view name) const {
    std::vector<const Input*> found;
    for (const Input& input : inputs) {
      if (input.name == name) found.push_back(&input);
    }
    return found;
  }
  /// Equal for equal tasks.
  [[nodiscard]] std::string key() const {
    std::string key = kind + "\n" + settings;
    for (const Input& input : inputs) {
      key += "\n" + input.name + "\n" + input.owner + "\n" + plan::to_json_text(input.form) + "\n" + input.digest;
    }
    return key;
  }
};

struct TaskResult {
  std::string figures = {};                     ///< JSON, as the kind declares it; empty: none.
  std::optional<wire::PackedState> state = {};  ///< Where the kind returns one.
};

}  // namespace headstart::client
