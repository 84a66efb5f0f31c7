// How the local worker does one kind of task. One file and one row of local_tasks() each.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "client/assignment.hpp"
#include "client/silo.hpp"
#include "shared/learn/train/local_objective.hpp"

namespace headstart::client {

/// Lives from one join to the next, and may keep what the next task of its kind can use again. Calls as for Worker.
class TaskHandler {
 public:
  virtual ~TaskHandler() = default;
  /// See Worker::describe().
  [[nodiscard]] virtual std::string describe(const Assignment& /*assignment*/) const { return {}; }
  /// Throws Error(protocol) where settings or inputs are not those of the kind.
  virtual TaskResult perform(Silo& silo, const Assignment& assignment, const TaskContext& context) = 0;
};

struct TaskRow {
  std::string_view kind;
  std::unique_ptr<TaskHandler> (*make)();
};

/// What this program's clients can do.
std::span<const TaskRow> local_tasks();

/// Samples in a batch of work without gradients. The statistics of a model depend on it.
inline constexpr std::int64_t evaluation_batch_size = 256;

std::unique_ptr<TaskHandler> make_pretrain();
std::unique_ptr<TaskHandler> make_exchange();
std::unique_ptr<TaskHandler> make_train();
/// With these local objectives in place of the program's.
std::unique_ptr<TaskHandler> make_train_with(std::span<const learn::LocalObjectiveRow> objectives);
std::unique_ptr<TaskHandler> make_evaluate();
std::unique_ptr<TaskHandler> make_logits();
std::unique_ptr<TaskHandler> make_distill();
std::unique_ptr<TaskHandler> make_statistics();
std::unique_ptr<TaskHandler> make_head_sum();
std::unique_ptr<TaskHandler> make_densities();
std::unique_ptr<TaskHandler> make_answers();
std::unique_ptr<TaskHandler> make_describe();

}  // namespace headstart::client
