// What a client computes, behind an interface that knows no network: the real work on local data, or a stand-in.
#pragma once

#include <string>
#include <vector>

#include "client/assignment.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/plan/terms.hpp"
#include "shared/wire/messages.hpp"

namespace headstart::client {

/// Calls come one at a time, on a compute thread, join() first. Errors of the work itself are thrown as Error and
/// reported to the server as a failed task.
class Worker {
 public:
  virtual ~Worker() = default;

  /// The kinds of task that it can do.
  [[nodiscard]] virtual std::vector<std::string> kinds() const = 0;

  /// Takes up the terms; returns what the client brings. Throws Error(data) where its data or model do not fit them.
  virtual wire::Join join(const plan::Terms& terms) = 0;

  /// What it noticed in its data when it took up the terms, for the silo's people: a sentence each.
  [[nodiscard]] virtual std::vector<std::string> remarks() const { return {}; }

  /// Schema of the federated model, and of another one by its spec. Throws Error(usage) for a model it cannot build.
  virtual learn::Schema global_schema() = 0;
  virtual learn::Schema schema_of(const learn::ModelSpec& spec) = 0;

  /// A few words on the task for people; empty where it is short and there is nothing to say.
  [[nodiscard]] virtual std::string describe(const Assignment& assignment) const = 0;
  /// Does the task, which is one of kinds().
  virtual TaskResult perform(const Assignment& assignment, const TaskContext& context) = 0;
};

}  // namespace headstart::client
