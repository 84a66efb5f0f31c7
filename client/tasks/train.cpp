// One round of local training.
#include "shared/learn/train/train.hpp"

#include <fmt/format.h>

#include "client/tasks/task_handler.hpp"

namespace headstart::client {

namespace {

class Train final : public TaskHandler {
 public:
  explicit Train(std::span<const learn::LocalObjectiveRow> objectives) : objectives_(objectives) {}

  [[nodiscard]] std::string describe(const Assignment& assignment) const override {
    return fmt::format("round {}", plan::train_settings_from_json_text(assignment.settings).round);
  }
  TaskResult perform(Silo& silo, const Assignment& assignment, const TaskContext& context) override {
    const auto settings = plan::train_settings_from_json_text(assignment.settings);
    learn::Model& model = silo.global_model();
    model.load(assignment.input(plan::input::model).state.state());
    const Seed seed = silo.seeds().child("train").child(static_cast<std::uint64_t>(settings.round));
    const auto lease = learn::lease_for(model, seed.child("layers"));
    const auto& options = silo.terms().train;
    const auto orders = learn::epoch_orders(silo.training().size(), options.epochs, seed);
    learn::ObjectiveStates states{.sent = parts_of(assignment)};
    if (auto counted = silo.memory().settle(settings.counted_round)) states.before = std::move(*counted);
    learn::train(model, silo.training(), options, orders, context.progress, context.stop, &states, objectives_);
    if (!states.after.is_empty()) silo.memory().propose(settings.round, std::move(states.after));
    return {.state = wire::PackedState(learn::joined(model.state(), states.returned))};
  }

 private:
  /// All inputs but the model.
  static learn::Parts parts_of(const Assignment& assignment) {
    learn::Parts parts;
    for (const Input& input : assignment.inputs) {
      if (input.name == plan::input::model) continue;
      if (!parts.emplace(input.name, input.state.state()).second) {
        throw Error(Errc::protocol, fmt::format("a training task with two inputs '{}'; one is expected", input.name));
      }
    }
    return parts;
  }

  std::span<const learn::LocalObjectiveRow> objectives_;
};

}  // namespace

std::unique_ptr<TaskHandler> make_train() { return make_train_with(learn::local_objectives()); }

std::unique_ptr<TaskHandler> make_train_with(std::span<const learn::LocalObjectiveRow> objectives) {
  return std::make_unique<Train>(objectives);
}

}  // namespace headstart::client
