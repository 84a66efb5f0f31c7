// A client's work without computing: the update is the global model with one value changed. For benchmarks of all that
// is not training: the real client loop, codec, channel and server.
#pragma once

#include <cstring>

#include "client/worker.hpp"
#include "shared/base/error.hpp"

namespace headstart::bench {

/// May be shared by clients of one run whose calls come on one thread: nothing in it is a client's own.
class EchoWorker final : public client::Worker {
 public:
  [[nodiscard]] std::vector<std::string> kinds() const override {
    std::vector<std::string> kinds;
    for (const std::string_view kind : {plan::task::pretrain, plan::task::exchange, plan::task::train,
                                        plan::task::evaluate, plan::task::distill, plan::task::statistics}) {
      kinds.emplace_back(kind);
    }
    return kinds;
  }
  wire::Join join(const plan::Terms& terms) override {
    if (schema_.num_bytes() == 0) {
      terms_ = terms;
      schema_ = schema_of(terms.model);
    }
    wire::Join join;
    join.num_examples = 100;
    join.num_classes = static_cast<std::uint32_t>(terms.task.num_classes);
    join.shape = std::vector<std::uint32_t>(terms.task.shape.begin(), terms.task.shape.end());
    join.schema = schema_.digest();
    join.architecture = terms.model.architecture();
    return join;
  }
  learn::Schema global_schema() override { return schema_; }
  learn::Schema schema_of(const learn::ModelSpec& spec) override {
    return learn::make_model(spec, terms_.task, Seed(1))->schema();
  }
  [[nodiscard]] std::string describe(const client::Assignment& assignment) const override { return assignment.kind; }
  client::TaskResult perform(const client::Assignment& assignment, const client::TaskContext&) override {
    if (assignment.kind == plan::task::pretrain) return {.figures = plan::to_json_text(plan::Pretraining{})};
    if (assignment.kind == plan::task::exchange) {
      return {.state = wire::PackedState(learn::make_model(terms_.model, terms_.task, Seed(1))->state())};
    }
    if (assignment.kind == plan::task::evaluate) {
      return {.figures = plan::to_json_text(learn::Evaluation::of_none(terms_.task.num_classes))};
    }
    if (assignment.kind == plan::task::train) return {.state = changed(assignment.input(plan::input::model).state)};
    return {.state = assignment.inputs.front().state};
  }

 private:
  /// The model of the next round must be another one, or it would not be sent: a client keeps the one that it has.
  static wire::PackedState changed(const wire::PackedState& global) {
    wire::PackedState update = global;  // the same memory, which the next global model replaces
    const std::span<std::byte> last = update.bytes().last(sizeof(float));  // float32 is the smallest of its elements
    float value = 0;
    std::memcpy(&value, last.data(), sizeof(value));
    value += 1;
    std::memcpy(last.data(), &value, sizeof(value));
    return update;
  }

  plan::Terms terms_;
  learn::Schema schema_;
};

}  // namespace headstart::bench
