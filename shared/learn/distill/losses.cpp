#include "shared/learn/distill/losses.hpp"

#include <torch/types.h>

#include "shared/learn/distill/shapes.hpp"
#include "shared/learn/distill/soft_targets.hpp"

namespace headstart::learn {

Tensor dissimilarities_of(const Tensor& student_logits, const Guidance& teachers, double temperature) {
  const Dissimilarity& measure = *teachers.measure;
  const Tensor log_p = torch::log_softmax(softened(student_logits, temperature), 1);
  if (teachers.targets.dim() == 2) {
    Tensor each = measure.to_one(log_p, teachers.targets);
    if (teachers.factor != 1) each = each * teachers.factor;
    return teachers.constant.defined() ? each + teachers.constant : each;
  }
  if (measure.to_all != nullptr) return measure.to_all(log_p, teachers.targets);
  Tensor sum = measure.to_one(log_p, teachers.targets[0]);
  for (std::int64_t k = 1; k < teachers.targets.size(0); ++k) sum = sum + measure.to_one(log_p, teachers.targets[k]);
  return sum;
}

Tensor distillation_term(const Tensor& student_logits, const Guidance& teachers, const DistillOptions& options) {
  const Tensor distilled = options.standardise ? standardised(student_logits) : student_logits;
  const Tensor each = dissimilarities_of(distilled, teachers, options.temperature);
  double factor = 1;
  if (options.strength == MeasureStrength::matched) factor = teachers.measure->matched(teachers.num_teachers);
  if (options.reduction == BatchReduction::published) return each.sum() * factor;
  if (options.scale_by_t2) factor *= options.temperature * options.temperature;
  return each.mean() * factor;
}

Tensor distillation_objective(const Tensor& student_logits, const Guidance& teachers,
                              const std::optional<Tensor>& labels, const DistillOptions& options) {
  const Tensor distillation = distillation_term(student_logits, teachers, options);
  if (!labels) return distillation;
  const Tensor supervised = at::cross_entropy_loss(student_logits, *labels);
  return (1 - options.alpha) * supervised + options.alpha * distillation;
}

Tensor kl_divergence(const Tensor& target_logits, const Tensor& logits, double temperature) {
  const Tensor log_q = torch::log_softmax(softened(target_logits, temperature), 1);
  const Tensor log_p = torch::log_softmax(softened(logits, temperature), 1);
  const Tensor q = log_q.exp();
  // 0 log 0 = 0, where a logit is -inf.
  return torch::where(q > 0, q * (log_q - log_p), torch::zeros_like(q)).sum(1).mean();
}

}  // namespace headstart::learn
