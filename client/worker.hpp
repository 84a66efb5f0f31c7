// What a client computes, behind an interface that knows no network: the real work on local data, or a stand-in.
#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "shared/base/clock.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "shared/learn/train/train.hpp"
#include "shared/learn/tune/setting_search.hpp"
#include "shared/plan/terms.hpp"
#include "shared/wire/messages.hpp"
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

struct Teacher {
  std::string client;
  learn::ModelSpec spec;
  wire::PackedState state;
};

/// A consolidation on the client's own data.
struct Consolidation {
  wire::PackedState student;  ///< As it begins.
  wire::PackedState weights;  ///< float64 [teachers, classes].
  std::vector<Teacher> teachers;
  std::string inputs;  ///< Names student, weights and teachers: equal for equal ones.
  learn::KdSetting setting;
};

/// Calls come one at a time, on a compute thread, join() first. Errors of the work itself are thrown as Error and
/// reported to the server as a failed task.
class Worker {
 public:
  virtual ~Worker() = default;

  /// Takes up the terms; returns what the client brings. Throws Error(data) where its data or model do not fit them.
  virtual wire::Join join(const plan::Terms& terms) = 0;

  /// What it noticed in its data when it took up the terms, for the silo's people: a sentence each.
  [[nodiscard]] virtual std::vector<std::string> remarks() const { return {}; }

  /// Schema of the federated model, and of another one by its spec. Throws Error(usage) for a model it cannot build.
  virtual learn::Schema global_schema() = 0;
  virtual learn::Schema schema_of(const learn::ModelSpec& spec) = 0;

  virtual wire::PretrainDone pretrain(const TaskContext& context) = 0;
  /// The pre-trained model, of the client's own architecture; a process that has none (it was started again) trains it.
  virtual wire::PackedState pretrained(const TaskContext& context) = 0;
  virtual wire::PackedState train(const wire::PackedState& global, std::uint32_t round, const TaskContext& context) = 0;
  /// On the held-out samples. `candidate`: the spec where `model` is not the federated one.
  virtual learn::Evaluation evaluate(const wire::PackedState& model, const std::optional<learn::ModelSpec>& candidate,
                                     const TaskContext& context) = 0;
  /// Logits [num_samples, num_classes] of the pre-trained model on `samples`, float32 [num_samples, channels, ...].
  virtual wire::PackedState logits(const wire::PackedState& samples, const TaskContext& context) = 0;
  /// Distils the teachers into the student on the client's own training samples.
  virtual wire::PackedState distill(const Consolidation& task, const TaskContext& context) = 0;
  /// BatchNorm statistics of `model` over the client's training samples.
  virtual wire::PackedState reestimate_statistics(const wire::PackedState& model, const TaskContext& context) = 0;
};

}  // namespace headstart::client
