// Counts of a model on the held-out samples.
#include "client/tasks/task_handler.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "shared/plan/tasks.hpp"

namespace headstart::client {

namespace {

class Evaluate final : public TaskHandler {
 public:
  TaskResult perform(Silo& silo, const Assignment& assignment, const TaskContext& context) override {
    const plan::EvaluateSettings settings = plan::evaluate_settings_from_json_text(assignment.settings);
    const Input& given = assignment.input(plan::input::model);
    std::unique_ptr<learn::Model> other;
    if (given.form.model) other = silo.make(*given.form.model);
    learn::Model& model = other ? *other : silo.global_model();
    model.load(given.state.state());
    const auto measures = settings.counts_scores ? learn::Measures::scores : learn::Measures::counts;
    const plan::EvaluationFigures figures{
        .counts = learn::evaluate(model, silo.held_out(), silo.terms().task.num_classes, measures,
                                  evaluation_batch_size, context.stop, context.progress),
        .is_shown = settings.by_silo && silo.shows_metrics()};
    return {.figures = plan::to_json_text(figures)};
  }
};

}  // namespace

std::unique_ptr<TaskHandler> make_evaluate() { return std::make_unique<Evaluate>(); }

}  // namespace headstart::client
