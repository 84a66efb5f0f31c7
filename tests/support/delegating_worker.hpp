// A worker that does what another does; tests override what they change.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "client/worker.hpp"

namespace headstart::test {

class DelegatingWorker : public client::Worker {
 public:
  explicit DelegatingWorker(std::unique_ptr<client::Worker> inner) : inner_(std::move(inner)) {}

  wire::Join join(const plan::Terms& terms) override { return inner_->join(terms); }
  learn::Schema global_schema() override { return inner_->global_schema(); }
  learn::Schema schema_of(const learn::ModelSpec& spec) override { return inner_->schema_of(spec); }
  wire::PretrainDone pretrain(const client::TaskContext& context) override { return inner_->pretrain(context); }
  wire::PackedState pretrained(const client::TaskContext& context) override { return inner_->pretrained(context); }
  wire::PackedState train(const wire::PackedState& global, std::uint32_t round,
                          const client::TaskContext& context) override {
    return inner_->train(global, round, context);
  }
  learn::Evaluation evaluate(const wire::PackedState& model, const std::optional<learn::ModelSpec>& candidate,
                             const client::TaskContext& context) override {
    return inner_->evaluate(model, candidate, context);
  }
  wire::PackedState logits(const wire::PackedState& samples, const client::TaskContext& context) override {
    return inner_->logits(samples, context);
  }
  wire::PackedState distill(const client::Consolidation& task, const client::TaskContext& context) override {
    return inner_->distill(task, context);
  }
  wire::PackedState reestimate_statistics(const wire::PackedState& model, const client::TaskContext& context) override {
    return inner_->reestimate_statistics(model, context);
  }

 private:
  std::unique_ptr<client::Worker> inner_;
};

}  // namespace headstart::test
