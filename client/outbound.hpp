// The silo's last gate: what of a task's result leaves it.
#pragma once

#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "client/assignment.hpp"
#include "shared/wire/messages.hpp"

namespace headstart::client {

/// A result as it leaves the silo. Only Outbound makes one: nothing else in the client can send figures or a state.
class ReleasedResult {
 public:
  [[nodiscard]] const std::string& figures() const { return figures_; }
  [[nodiscard]] const std::optional<wire::PackedState>& state() const { return state_; }

 private:
  friend class Outbound;
  ReleasedResult(std::string figures, std::optional<wire::PackedState> state)
      : figures_(std::move(figures)), state_(std::move(state)) {}

  std::string figures_;
  std::optional<wire::PackedState> state_;
};

/// Chosen by the silo, whatever the server asks for. Thread-safe: holds no state but its steps.
class Outbound {
 public:
  /// Changes a result before it leaves (clips it, adds noise, encodes it), or throws Error(usage) where it must not
  /// leave. On a compute thread.
  using Step = std::function<TaskResult(const Assignment&, TaskResult)>;

  /// Everything leaves as it is.
  Outbound() = default;
  explicit Outbound(std::vector<Step> steps) : steps_(std::move(steps)) {}

  /// Applies the steps in their order.
  [[nodiscard]] ReleasedResult release(const Assignment& assignment, TaskResult result) const;
  /// All that the server is told of a failure: its kind. What exactly happened stays in the silo's log.
  [[nodiscard]] static wire::Failure release(const std::exception& failure);

 private:
  std::vector<Step> steps_;
};

}  // namespace headstart::client
