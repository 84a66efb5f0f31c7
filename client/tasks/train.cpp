// One round of local training.
#include "shared/learn/train/train.hpp"

#include <fmt/format.h>

#include "client/tasks/task_handler.hpp"

namespace headstart::client {

namespace {

class Train final : public TaskHandler {
 public:
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
    learn::ObjectiveMemory memory;
    if (auto counted = silo.memory().settle(settings.counted_round)) memory.before = std::move(*counted);
    learn::train(model, silo.training(), options, orders, context.progress, context.stop, &memory);
    if (!memory.after.is_empty()) silo.memory().propose(settings.round, std::move(memory.after));
    return {.state = wire::PackedState(model.state())};
  }
};

}  // namespace

std::unique_ptr<TaskHandler> make_train() { return std::make_unique<Train>(); }

}  // namespace headstart::client
