// Sums over the training samples for fitting the federated model's head.
#include <fmt/format.h>
#include <torch/types.h>

#include "client/tasks/task_handler.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "shared/learn/train/head_sums.hpp"

namespace headstart::client {

namespace {

class HeadSum final : public TaskHandler {
 public:
  [[nodiscard]] std::string describe(const Assignment& assignment) const override {
    return assignment.inputs_named(plan::input::head).empty() ? "second moments of the features" : "";
  }

  TaskResult perform(Silo& silo, const Assignment& assignment, const TaskContext& context) override {
    const plan::HeadSumSettings settings = plan::head_sum_settings_from_json_text(assignment.settings);
    compute_features(silo, assignment.input(plan::input::model), std::max(settings.min_samples, silo.min_sum_samples()),
                     context);
    plan::HeadSumFigures figures{.num_samples = labels_.size(0), .held_out = {}};
    const auto heads = assignment.inputs_named(plan::input::head);
    if (heads.empty()) return result(figures, learn::moments_of(inputs_));
    const at::Tensor& head = heads.front()->state.state().tensors().front().tensor;
    require_head(head, silo);
    if (settings.evaluates && held_out_.defined()) {
      figures.held_out = learn::evaluate_logits(held_out_.matmul(head).to(c10::kFloat), silo.held_out().y.cpu(),
                                                silo.terms().task.num_classes);
    }
    return result(figures, learn::head_gradient(inputs_, labels_, head));
  }

 private:
  static TaskResult result(const plan::HeadSumFigures& figures, const at::Tensor& sum) {
    return {.figures = plan::to_json_text(figures),
            .state = wire::PackedState::of_tensor("sum", learn::to_fixed_point(sum))};
  }

  /// Of one model the features are computed once: the gradients of a dozen heads follow.
  void compute_features(Silo& silo, const Input& given, std::int64_t min_samples, const TaskContext& context) {
    if (given.digest == digest_ && min_samples == min_samples_) return;
    learn::Model& model = silo.global_model();
    model.load(given.state.state());
    const learn::Samples samples = with_enough_of_their_class(silo, min_samples);
    inputs_ = learn::head_inputs(model, samples.x, evaluation_batch_size, context.stop, context.progress);
    labels_ = samples.y.cpu();
    held_out_ = silo.held_out().size() == 0
                    ? at::Tensor()
                    : learn::head_inputs(model, silo.held_out().x, evaluation_batch_size, context.stop);
    digest_ = given.digest;
    min_samples_ = min_samples;
  }

  static learn::Samples with_enough_of_their_class(const Silo& silo, std::int64_t min_samples) {
    const learn::Samples& all = silo.training();
    const at::Tensor counts = torch::bincount(all.y, {}, silo.terms().task.num_classes);
    const at::Tensor chosen = counts.ge(min_samples).index_select(0, all.y).nonzero().flatten();
    if (chosen.size(0) == 0) {
      throw Error(Errc::usage, fmt::format("no class has {} training samples here, which a sum that leaves this silo "
                                           "needs (sums.min_samples)",
                                           min_samples));
    }
    return all.select(chosen);
  }

  void require_head(const at::Tensor& head, const Silo& silo) const {
    const std::vector<std::int64_t> shape = {inputs_.size(1), silo.terms().task.num_classes};
    if (head.scalar_type() == at::kDouble && head.sizes() == at::IntArrayRef(shape)) return;
    throw Error(Errc::protocol, fmt::format("a head of {}; the model's is float64 {}", learn::shape_text(head.sizes()),
                                            learn::shape_text(shape)));
  }

  std::string digest_;
  std::int64_t min_samples_ = 0;
  at::Tensor inputs_, labels_, held_out_;
};

}  // namespace

std::unique_ptr<TaskHandler> make_head_sum() { return std::make_unique<HeadSum>(); }

}  // namespace headstart::client
