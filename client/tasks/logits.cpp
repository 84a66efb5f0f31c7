// The pre-trained model's answers on samples that the server sends.
#include "client/tasks/task_handler.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::client {

namespace {

class Logits final : public TaskHandler {
 public:
  [[nodiscard]] std::string describe(const Assignment&) const override { return "logits of the public set"; }
  TaskResult perform(Silo& silo, const Assignment& assignment, const TaskContext& context) override {
    silo.require_shared_model();
    const at::Tensor x = silo.samples_of(assignment.input(plan::input::samples));
    const auto model = silo.make(silo.own_spec());
    model->load(silo.pretrained(context).state());
    return {.state = wire::PackedState::of_tensor(
                "logits", learn::logits_of(*model, x, evaluation_batch_size, context.stop, context.progress))};
  }
};

}  // namespace

std::unique_ptr<TaskHandler> make_logits() { return std::make_unique<Logits>(); }

}  // namespace headstart::client
