// What the pre-trained model says of public samples, and how much they are like the silo's own.
#include <fmt/format.h>
#include <torch/types.h>

#include "client/tasks/task_handler.hpp"
#include "client/weighted_answers.hpp"
#include "shared/learn/distill/experts.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::client {

namespace {

/// The pre-trained model and the public samples of a task.
struct Teacher {
  std::unique_ptr<learn::Model> model;
  at::Tensor x;
};

Teacher teacher_of(Silo& silo, const Assignment& assignment, const TaskContext& context) {
  Teacher teacher{silo.make(silo.own_spec()), silo.samples_of(assignment.input(plan::input::samples))};
  teacher.model->load(silo.pretrained(context).state());
  return teacher;
}

/// learn::density_log_odds of the public samples. Progress is of both sets.
at::Tensor log_odds_of(const Silo& silo, const Teacher& teacher, const TaskContext& context) {
  const at::Tensor& own = silo.training().x;
  const std::int64_t total = own.size(0) + teacher.x.size(0);
  const auto report_from = [&context, total](std::int64_t offset) {
    return [&context, total, offset](const learn::Progress& progress) {
      if (context.progress) context.progress({offset + progress.done, total});
    };
  };
  const at::Tensor own_features =
      learn::density_features(*teacher.model, own, evaluation_batch_size, context.stop, report_from(0));
  const at::Tensor public_features =
      learn::density_features(*teacher.model, teacher.x, evaluation_batch_size, context.stop, report_from(own.size(0)));
  return learn::density_log_odds(own_features, public_features);
}

class Densities final : public TaskHandler {
 public:
  [[nodiscard]] std::string describe(const Assignment&) const override {
    return "how much the public samples are like the own ones";
  }
  TaskResult perform(Silo& silo, const Assignment& assignment, const TaskContext& context) override {
    silo.require_shared_model();
    const Teacher teacher = teacher_of(silo, assignment, context);
    return {.state = wire::PackedState::of_tensor("log_odds", log_odds_of(silo, teacher, context))};
  }
};

class Answers final : public TaskHandler {
 public:
  [[nodiscard]] std::string describe(const Assignment&) const override { return "answers on the public set"; }
  TaskResult perform(Silo& silo, const Assignment& assignment, const TaskContext& context) override {
    const plan::AnswerSettings settings = plan::answer_settings_from_json_text(assignment.settings);
    compute(silo, assignment, settings.weighs_by_density, context);
    return {.state = wire::PackedState::of_tensor(
                "answers", weighted_answers(logits_, log_odds_, settings, silo.training().size()))};
  }

 private:
  /// Of the same samples once: answers at other temperatures follow where these are tuned.
  void compute(Silo& silo, const Assignment& assignment, bool weighs_by_density, const TaskContext& context) {
    const std::string& digest = assignment.input(plan::input::samples).digest;
    if (digest != digest_) {
      digest_.clear();
      log_odds_ = at::Tensor();
      const Teacher teacher = teacher_of(silo, assignment, context);
      logits_ = learn::logits_of(*teacher.model, teacher.x, evaluation_batch_size, context.stop, context.progress)
                    .to(c10::kCPU, c10::kDouble);
      if (!at::isfinite(logits_).all().item<bool>()) {
        throw Error(Errc::run_failed, "the pre-trained model diverged: its logits on the public set are not finite");
      }
      digest_ = digest;
    }
    if (!weighs_by_density || log_odds_.defined()) return;
    log_odds_ = log_odds_of(silo, teacher_of(silo, assignment, context), context);
  }

  std::string digest_;  ///< Of the samples that the others are of.
  at::Tensor logits_, log_odds_;
};

}  // namespace

std::unique_ptr<TaskHandler> make_densities() { return std::make_unique<Densities>(); }
std::unique_ptr<TaskHandler> make_answers() { return std::make_unique<Answers>(); }

}  // namespace headstart::client
