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
  wire::Join join(const plan::Terms& terms) override {
    if (schema_.num_bytes() == 0) {
      terms_ = terms;
      schema_ = schema_of(terms.model);
    }
    wire::Join join;
    join.num_examples = 100;
    join.num_classes = static_cast<std::uint32_t>(terms.task.num_classes);
    join.channels = static_cast<std::uint32_t>(terms.task.channels);
    join.height = static_cast<std::uint32_t>(terms.task.height);
    join.width = static_cast<std::uint32_t>(terms.task.width);
    join.schema = schema_.digest();
    join.architecture = terms.model.architecture();
    return join;
  }
  learn::Schema global_schema() override { return schema_; }
  learn::Schema schema_of(const learn::ModelSpec& spec) override {
    return learn::make_model(spec, terms_.task, Seed(1))->schema();
  }
  wire::PretrainDone pretrain(const client::TaskContext&) override { return {}; }
  wire::PackedState pretrained(const client::TaskContext&) override {
    return wire::PackedState(learn::make_model(terms_.model, terms_.task, Seed(1))->state());
  }
  /// The model of the next round must be another one, or it would not be sent: a client keeps the one that it has.
  wire::PackedState train(const wire::PackedState& global, std::uint32_t, const client::TaskContext&) override {
    wire::PackedState update = global;  // the same memory, which the next global model replaces
    const std::span<std::byte> last = update.bytes().last(sizeof(float));  // float32 is the smallest of its elements
    float value = 0;
    std::memcpy(&value, last.data(), sizeof(value));
    value += 1;
    std::memcpy(last.data(), &value, sizeof(value));
    return update;
  }
  learn::Evaluation evaluate(const wire::PackedState&, const std::optional<learn::ModelSpec>&,
                             const client::TaskContext&) override {
    learn::Evaluation none;
    none.correct.resize(static_cast<std::size_t>(terms_.task.num_classes));
    none.total = none.correct;
    none.predicted = none.correct;
    return none;
  }
  wire::PackedState logits(const wire::PackedState&, const client::TaskContext&) override { return refuse(); }
  wire::PackedState distill(const client::Consolidation& task, const client::TaskContext&) override {
    return task.student;
  }
  wire::PackedState reestimate_statistics(const wire::PackedState& model, const client::TaskContext&) override {
    return model;
  }

 private:
  static wire::PackedState refuse() { throw Error(Errc::run_failed, "the echo client has no data"); }
  plan::Terms terms_;
  learn::Schema schema_;
};

}  // namespace headstart::bench
