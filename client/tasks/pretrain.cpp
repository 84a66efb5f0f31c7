// Pre-training, and the exchange of what came of it.
#include "client/tasks/task_handler.hpp"

namespace headstart::client {

namespace {

class Pretrain final : public TaskHandler {
 public:
  [[nodiscard]] std::string describe(const Assignment&) const override { return "pre-training"; }
  TaskResult perform(Silo& silo, const Assignment&, const TaskContext& context) override {
    return {.figures = plan::to_json_text(silo.pretrain(context))};
  }
};

class Exchange final : public TaskHandler {
 public:
  [[nodiscard]] std::string describe(const Assignment&) const override { return "exchange of models"; }
  TaskResult perform(Silo& silo, const Assignment&, const TaskContext& context) override {
    silo.require_shared_model();
    return {.state = silo.pretrained(context)};
  }
};

}  // namespace

std::unique_ptr<TaskHandler> make_pretrain() { return std::make_unique<Pretrain>(); }
std::unique_ptr<TaskHandler> make_exchange() { return std::make_unique<Exchange>(); }

}  // namespace headstart::client
