// Sums over the training samples for fitting a head to features.
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
    compute_inputs(silo, assignment, std::max(settings.min_samples, silo.min_sum_samples()), context);
    plan::HeadSumFigures figures{.num_samples = labels_.size(0), .held_out = {}};
    const auto heads = assignment.inputs_named(plan::input::head);
    if (heads.empty()) return result(figures, learn::moments_of(inputs_));
    const at::Tensor& head = heads.front()->state.state().tensors().front().tensor;
    require_head(head, silo);
    if (settings.evaluates && held_out_.defined()) {
      figures.held_out = learn::evaluate_logits(
          held_out_.matmul(head).to(c10::kFloat), silo.held_out().y.cpu(), silo.terms().task.num_classes,
          settings.counts_scores ? learn::Measures::scores : learn::Measures::counts);
    }
    return result(figures, learn::head_gradient(inputs_, labels_, head));
  }

 private:
  static TaskResult result(const plan::HeadSumFigures& figures, const at::Tensor& sum) {
    return {.figures = plan::to_json_text(figures),
            .state = wire::PackedState::of_tensor("sum", learn::to_fixed_point(sum))};
  }

  /// Of the same models and map they are computed once: the gradients of a dozen heads follow.
  void compute_inputs(Silo& silo, const Assignment& assignment, std::int64_t min_samples, const TaskContext& context) {
    const auto models = assignment.inputs_named(plan::input::model);
    if (models.empty()) throw Error(Errc::protocol, "a sum over features without a model that shows them");
    const learn::FeatureMap map{.projection = tensor_named(assignment, plan::input::projection),
                                .lift = tensor_named(assignment, plan::input::lift)};
    std::string key = std::to_string(min_samples);
    for (const auto name : {plan::input::model, plan::input::projection, plan::input::lift}) {
      for (const Input* input : assignment.inputs_named(name)) key += " " + input->digest;
    }
    if (key == key_) return;
    key_.clear();
    const learn::Samples samples = with_enough_of_their_class(silo, min_samples);
    inputs_ = learn::mapped(features_of(silo, models, samples.x, context), map);
    labels_ = samples.y.cpu();
    held_out_ = silo.held_out().size() == 0 ? at::Tensor()
                                            : learn::mapped(features_of(silo, models, silo.held_out().x, context), map);
    key_ = std::move(key);
  }

  static at::Tensor tensor_named(const Assignment& assignment, std::string_view name) {
    const auto found = assignment.inputs_named(name);
    if (found.empty()) return {};
    const at::Tensor& tensor = found.front()->state.state().tensors().front().tensor;
    if (tensor.scalar_type() == at::kDouble && tensor.dim() == 2) return tensor;
    throw Error(Errc::protocol, fmt::format("the input {} is no float64 matrix", name));
  }

  /// Of several models one behind the other.
  static at::Tensor features_of(Silo& silo, const std::vector<const Input*>& models, const at::Tensor& x,
                                const TaskContext& context) {
    std::vector<at::Tensor> parts;
    const auto num_models = static_cast<std::int64_t>(models.size());
    for (const Input* given : models) {
      const auto model = silo.make(given->form.model.value_or(silo.terms().model));
      model->load(given->state.state());
      const auto report = [&](const learn::Progress& progress) {
        if (!context.progress) return;
        const auto num_before = static_cast<std::int64_t>(parts.size());
        context.progress({num_before * progress.total + progress.done, num_models * progress.total});
      };
      parts.push_back(learn::features_of(*model, x, evaluation_batch_size, context.stop, report));
    }
    return parts.size() == 1 ? parts.front() : torch::cat(parts, 1);
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

  std::string key_;  ///< What `inputs_` are of.
  at::Tensor inputs_, labels_, held_out_;
};

}  // namespace

std::unique_ptr<TaskHandler> make_head_sum() { return std::make_unique<HeadSum>(); }

}  // namespace headstart::client
