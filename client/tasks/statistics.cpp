// BatchNorm statistics of a model over the training samples.
#include "client/tasks/task_handler.hpp"
#include "shared/learn/train/batch_norm_statistics.hpp"

namespace headstart::client {

namespace {

class Statistics final : public TaskHandler {
 public:
  [[nodiscard]] std::string describe(const Assignment&) const override { return "normalisation statistics"; }
  TaskResult perform(Silo& silo, const Assignment& assignment, const TaskContext& context) override {
    learn::Model& model = silo.global_model();
    model.load(assignment.input(plan::input::model).state.state());
    learn::reestimate_statistics(model, silo.training().x, evaluation_batch_size, context.stop, context.progress);
    return {.state = wire::PackedState(model.state())};
  }
};

}  // namespace

std::unique_ptr<TaskHandler> make_statistics() { return std::make_unique<Statistics>(); }

}  // namespace headstart::client
