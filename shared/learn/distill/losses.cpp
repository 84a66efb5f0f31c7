#include "shared/learn/distill/losses.hpp"

#include <torch/types.h>

#include "shared/learn/distill/shapes.hpp"
#include "shared/learn/distill/soft_targets.hpp"

namespace headstart::learn {

Tensor distillation_loss(const Tensor& student_logits, const Tensor& targets, double temperature, bool scale_by_t2) {
  const Tensor log_p = torch::log_softmax(softened(student_logits, temperature), 1);
  const Tensor loss = -(targets * log_p).sum(1).mean();
  return scale_by_t2 ? loss * (temperature * temperature) : loss;
}

Tensor distillation_objective(const Tensor& student_logits, const Tensor& targets, const std::optional<Tensor>& labels,
                              const DistillOptions& options) {
  const Tensor distilled = options.standardise ? standardised(student_logits) : student_logits;
  const Tensor distillation = distillation_loss(distilled, targets, options.temperature, options.scale_by_t2);
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
