// Consolidation on the client's own data.
#include <optional>

#include <fmt/format.h>
#include <torch/types.h>

#include "client/tasks/task_handler.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/distill/distiller.hpp"

namespace headstart::client {

namespace {

/// Progress of a part of work of `total` samples, `before` of which were done ahead of it. Borrows `whole`.
learn::ProgressCallback part_of(const learn::ProgressCallback& whole, std::int64_t before, std::int64_t total) {
  if (!whole) return {};
  return [&whole, before, total](const learn::Progress& part) { whole({.done = before + part.done, .total = total}); };
}

class Distill final : public TaskHandler {
 public:
  [[nodiscard]] std::string describe(const Assignment& assignment) const override {
    return fmt::format("consolidation of {} models", assignment.inputs_named(plan::input::teacher).size());
  }

  TaskResult perform(Silo& silo, const Assignment& assignment, const TaskContext& context) override {
    const learn::KdSetting setting = plan::kd_setting_from_json_text(assignment.settings);
    const std::vector<const Input*> teachers = assignment.inputs_named(plan::input::teacher);
    const at::Tensor weights = weights_of(silo, assignment, teachers.size());
    learn::DistillOptions options = silo.terms().consolidation;
    options.temperature = setting.temperature;
    options.alpha = setting.alpha;
    const std::int64_t num_samples = silo.training().size();
    const std::int64_t num_asked = has_logits_of(teachers) ? 0 : num_samples * std::ssize(teachers);
    const std::int64_t total = num_asked + num_samples * options.epochs;
    if (num_asked > 0) ask(silo, teachers, total, context);
    const learn::SoundTeachers sound = learn::sound_teachers(answers_->logits, weights);
    for (const std::int64_t dropped : sound.dropped) {
      spdlog::warn("the model of '{}' does not teach, its logits are not finite",
                   teachers[static_cast<std::size_t>(dropped)]->owner);
    }
    const learn::Guidance guidance = learn::guidance(sound.logits, sound.weights, options);
    learn::Model& model = silo.global_model();
    model.load(assignment.input(plan::input::student).state.state());
    const Seed seed = silo.terms().seeds().child("consolidation");
    const auto lease = learn::lease_for(model, seed.child("layers"));
    learn::distill(model, silo.training(), guidance, options, seed, part_of(context.progress, num_asked, total),
                   context.stop);
    return {.state = wire::PackedState(model.state())};
  }

 private:
  /// Of the teachers of the last task, [teachers, samples, classes]: the same whatever the setting.
  struct Answers {
    std::vector<std::string> teachers;  ///< Digests.
    at::Tensor logits;
  };

  static at::Tensor weights_of(const Silo& silo, const Assignment& assignment, std::size_t num_teachers) {
    at::Tensor weights = assignment.input(plan::input::weights).state.state().tensors().front().tensor;
    const bool fits = num_teachers > 0 && weights.scalar_type() == at::kDouble && weights.dim() == 2 &&
                      weights.size(0) == static_cast<std::int64_t>(num_teachers) &&
                      weights.size(1) == silo.terms().task.num_classes;
    if (!fits) throw Error(Errc::protocol, "a consolidation without teachers, or with weights that are not theirs");
    return weights;
  }

  [[nodiscard]] bool has_logits_of(const std::vector<const Input*>& teachers) const {
    return answers_ &&
           std::ranges::equal(answers_->teachers, teachers, {}, {}, [](const Input* t) { return t->digest; });
  }

  void ask(Silo& silo, const std::vector<const Input*>& teachers, std::int64_t total, const TaskContext& context) {
    answers_.reset();
    Answers answers;
    std::vector<at::Tensor> logits;
    std::int64_t done = 0;
    for (const Input* teacher : teachers) {
      const auto model = silo.make(teacher->form.model.value_or(silo.terms().model));
      model->load(teacher->state.state());
      logits.push_back(learn::logits_of(*model, silo.training().x, evaluation_batch_size, context.stop,
                                        part_of(context.progress, done, total)));
      done += silo.training().size();
      answers.teachers.push_back(teacher->digest);
    }
    answers.logits = torch::stack(logits);
    answers_ = std::move(answers);
  }

  std::optional<Answers> answers_;
};

}  // namespace

std::unique_ptr<TaskHandler> make_distill() { return std::make_unique<Distill>(); }

}  // namespace headstart::client
