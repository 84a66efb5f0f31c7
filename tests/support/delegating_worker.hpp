// A worker that does what another does, a function for each kind of task; tests override what they change, or call the
// functions themselves.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/tasks/task_handler.hpp"
#include "client/worker.hpp"

namespace headstart::test {

/// What is distilled at a client.
struct Consolidation {
  client::Assignment assignment;
  /// Of models in the federated schema unless `spec` says otherwise.
  struct Teacher {
    std::string client;
    std::optional<learn::ModelSpec> spec;
    wire::PackedState state;
  };
  static client::Input input(std::string_view name, const wire::PackedState& state, std::string owner = {},
                             plan::Form form = {}) {
    return {std::string(name), std::move(owner), std::move(form), state.digest(), state};
  }
  /// `weights`: float64 [teachers, classes].
  Consolidation(const wire::PackedState& student, const wire::PackedState& weights,
                const std::vector<Teacher>& teachers, const learn::KdSetting& setting)
      : assignment{std::string(plan::task::distill), plan::to_json_text(setting), {}} {
    assignment.inputs = {input(plan::input::student, student), input(plan::input::weights, weights)};
    for (const Teacher& teacher : teachers) {
      plan::Form form{.model = teacher.spec, .tensors = {}};
      assignment.inputs.push_back(input(plan::input::teacher, teacher.state, teacher.client, std::move(form)));
    }
  }
};

class DelegatingWorker : public client::Worker {
 public:
  /// `inner`: none where all that is called is overridden.
  explicit DelegatingWorker(std::unique_ptr<client::Worker> inner) : inner_(std::move(inner)) {}

  [[nodiscard]] std::vector<std::string> kinds() const override {
    if (inner_) return inner_->kinds();
    std::vector<std::string> kinds;
    for (const client::TaskRow& row : client::local_tasks()) kinds.emplace_back(row.kind);
    return kinds;
  }
  wire::Join join(const plan::Terms& terms) override { return inner_->join(terms); }
  [[nodiscard]] std::vector<std::string> remarks() const override {
    return inner_ ? inner_->remarks() : std::vector<std::string>();
  }
  learn::Schema global_schema() override { return inner_->global_schema(); }
  learn::Schema schema_of(const learn::ModelSpec& spec) override { return inner_->schema_of(spec); }
  [[nodiscard]] std::string describe(const client::Assignment& assignment) const override {
    return inner_ ? inner_->describe(assignment) : assignment.kind;
  }

  client::TaskResult perform(const client::Assignment& task, const client::TaskContext& context) override {
    const auto state_of = [&task](std::string_view name) { return task.input(name).state; };
    if (task.kind == plan::task::pretrain) return {.figures = plan::to_json_text(pretrain(context))};
    if (task.kind == plan::task::exchange) return {.state = pretrained(context)};
    if (task.kind == plan::task::train) {
      const auto settings = plan::train_settings_from_json_text(task.settings);
      return {.state = train(state_of(plan::input::model), static_cast<std::uint32_t>(settings.round), context)};
    }
    if (task.kind == plan::task::evaluate) {
      const auto& candidate = task.input(plan::input::model).form.model;
      evaluate_settings_ = task.settings;
      return {.figures = plan::to_json_text(evaluate(state_of(plan::input::model), candidate, context))};
    }
    if (task.kind == plan::task::logits) return {.state = logits(state_of(plan::input::samples), context)};
    if (task.kind == plan::task::distill) return {.state = distill(task, context)};
    if (task.kind == plan::task::statistics) {
      return {.state = reestimate_statistics(state_of(plan::input::model), context)};
    }
    return inner_->perform(task, context);
  }

  virtual plan::Pretraining pretrain(const client::TaskContext& context) {
    return plan::pretraining_from_json_text(ask({std::string(plan::task::pretrain), {}, {}}, context).figures);
  }
  virtual wire::PackedState pretrained(const client::TaskContext& context) {
    return *ask({std::string(plan::task::exchange), {}, {}}, context).state;
  }
  virtual wire::PackedState train(const wire::PackedState& global, std::uint32_t round,
                                  const client::TaskContext& context) {
    const plan::TrainSettings settings{.round = round};
    return *ask({std::string(plan::task::train), plan::to_json_text(settings), {input(plan::input::model, global)}},
                context)
                .state;
  }
  /// `candidate`: the spec where `model` is not the federated one.
  virtual learn::Evaluation evaluate(const wire::PackedState& model, const std::optional<learn::ModelSpec>& candidate,
                                     const client::TaskContext& context) {
    client::Assignment task{std::string(plan::task::evaluate), evaluate_settings_, {input(plan::input::model, model)}};
    task.inputs.front().form.model = candidate;
    const std::string figures = ask(task, context).figures;
    const auto num_classes = nlohmann::json::parse(figures).at("total").size();
    return plan::evaluation_from_json_text(figures, static_cast<std::int64_t>(num_classes), std::uint64_t{1} << 40);
  }
  virtual wire::PackedState logits(const wire::PackedState& samples, const client::TaskContext& context) {
    return *ask({std::string(plan::task::logits), {}, {input(plan::input::samples, samples)}}, context).state;
  }
  virtual wire::PackedState distill(const client::Assignment& task, const client::TaskContext& context) {
    return *ask(task, context).state;
  }
  virtual wire::PackedState reestimate_statistics(const wire::PackedState& model, const client::TaskContext& context) {
    return *ask({std::string(plan::task::statistics), {}, {input(plan::input::model, model)}}, context).state;
  }

 private:
  static client::Input input(std::string_view name, const wire::PackedState& state) {
    return Consolidation::input(name, state);
  }
  client::TaskResult ask(const client::Assignment& task, const client::TaskContext& context) {
    return inner_->perform(task, context);
  }

  std::unique_ptr<client::Worker> inner_;
  std::string evaluate_settings_;  ///< Of the last task of that kind.
};

}  // namespace headstart::test
