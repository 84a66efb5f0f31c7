#include "shared/learn/distill/soft_targets.hpp"

#include <torch/types.h>

#include "shared/learn/distill/shapes.hpp"
#include "shared/learn/distill/teacher_weights.hpp"

namespace headstart::learn {

Tensor soft_targets(const Tensor& logits, const Tensor& weights, double temperature) {
  expect_shape(
      logits.dim() == 3 && weights.dim() == 2 && logits.size(0) == weights.size(0) && logits.size(2) == weights.size(1),
      "teacher logits must be [K, N, C] and weights [K, C]");
  const at::NoGradGuard no_grad;
  const Tensor scale = weights.to(logits.options());
  Tensor targets = torch::zeros({logits.size(1), logits.size(2)}, logits.options());
  for (std::int64_t k = 0; k < logits.size(0); ++k) {
    targets.addcmul_(torch::softmax(softened(logits[k], temperature), 1), scale[k]);
  }
  return targets;
}

Tensor standardised(const Tensor& logits) {
  constexpr double least_deviation = 1e-7;
  return (logits - logits.mean(-1, true)) / (logits.std(-1, /*unbiased=*/true, /*keepdim=*/true) + least_deviation);
}

Tensor without_label_prior(const Tensor& logits, const Evaluation& rating) {
  const Tensor predicted = torch::tensor(rating.predicted, torch::kFloat64);
  expect_shape(logits.dim() == 2 && logits.size(1) == predicted.size(0), "there must be a logit for each class");
  const Tensor prior = (predicted + 1) / static_cast<double>(rating.num_samples() + predicted.size(0));
  return logits - prior.log().to(logits.options());
}

Tensor soft_targets(const Tensor& logits, const Tensor& weights, const DistillOptions& options) {
  const at::NoGradGuard no_grad;
  const Tensor scaled = options.standardise ? standardised(logits) : logits;
  const Tensor equal = equal_weights(weights.size(0), weights.size(1));
  if (options.average == TeacherAverage::logits) {
    // A class that no teacher knows: all count alike.
    const Tensor sum = weights.sum(0, true);
    const Tensor share = torch::where(sum > 0, weights / sum, equal).to(logits.options());
    // Logits are defined but for a constant of each teacher and sample, which must not reach the target.
    const Tensor centred = scaled - scaled.mean(-1, true);
    return torch::softmax(softened((centred * share.unsqueeze(1)).sum(0), options.temperature), 1);
  }
  const Tensor targets = soft_targets(scaled, weights, options.temperature);
  if (!options.normalise) return targets;
  // Where the teachers are sure of classes that none of them counts for, they count alike.
  const Tensor sum = targets.sum(1, true);
  return torch::where(sum > 0, targets / sum, soft_targets(scaled, equal, options.temperature));
}

Tensor ensemble_scores(const Tensor& logits, const Tensor& weights) { return soft_targets(logits, weights, 1); }

}  // namespace headstart::learn
