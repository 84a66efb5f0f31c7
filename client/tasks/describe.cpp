// Statistics of the features of the training samples.
#include "client/tasks/task_handler.hpp"

namespace headstart::client {

namespace {

class Describe final : public TaskHandler {
 public:
  [[nodiscard]] std::string describe(const Assignment&) const override { return "statistics of the features"; }
  TaskResult perform(Silo& silo, const Assignment&, const TaskContext&) override {
    const Silo::Description own = silo.describe();
    return {.figures = plan::to_json_text(own.figures),
            .state = wire::PackedState::of_tensor("statistics", own.statistics)};
  }
};

}  // namespace

std::unique_ptr<TaskHandler> make_describe() { return std::make_unique<Describe>(); }

}  // namespace headstart::client
