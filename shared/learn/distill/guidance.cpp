#include "shared/learn/distill/guidance.hpp"

#include <utility>

#include <torch/types.h>

#include "shared/learn/distill/shapes.hpp"
#include "shared/learn/distill/soft_targets.hpp"

namespace headstart::learn {

namespace {

/// Many teachers as one target, which a measure that is linear in it allows. logits: as they are softened.
Guidance collapsed_sum(const Tensor& logits, const Tensor& weights, const DistillOptions& options,
                       const Dissimilarity& measure) {
  const auto num_teachers = static_cast<double>(logits.size(0));
  Guidance sum{soft_targets(logits, weights, options.temperature), &measure, logits.size(0), num_teachers};
  // The difference is the same for every student, so that of one who knows nothing is that of all.
  const Tensor log_p = torch::log_softmax(torch::zeros_like(sum.targets), 1);
  sum.constant = measure.to_one(log_p, sum.targets) * -num_teachers;
  const Tensor counts = weights.to(logits.options()) * num_teachers;
  for (std::int64_t k = 0; k < logits.size(0); ++k) {
    const Tensor answers = torch::softmax(softened(logits[k], options.temperature), 1);
    sum.constant += measure.to_one(log_p, answers * counts[k]);
  }
  return sum;
}

}  // namespace

Guidance Guidance::select(const Tensor& batch) const {
  Guidance selected = *this;
  selected.targets = targets.index_select(targets.dim() - 2, batch);
  if (constant.defined()) selected.constant = constant.index_select(0, batch);
  return selected;
}

Guidance Guidance::to(c10::Device device) const {
  Guidance moved = *this;
  moved.targets = targets.to(device);
  if (constant.defined()) moved.constant = constant.to(device);
  return moved;
}

Guidance guidance(const Tensor& logits, const Tensor& weights, const DistillOptions& options) {
  return guidance(logits, weights, options, dissimilarity_named(options.measure));
}

Guidance guidance(const Tensor& logits, const Tensor& weights, const DistillOptions& options,
                  const Dissimilarity& measure) {
  const at::NoGradGuard no_grad;
  DistillOptions shaping = options;
  if (!measure.is_linear) shaping.normalise = true;
  const std::int64_t num_teachers = logits.size(0);
  if (options.average != TeacherAverage::none) {
    return {soft_targets(logits, weights, shaping), &measure, num_teachers};
  }
  const Tensor scaled = options.standardise ? standardised(logits) : logits;
  if (measure.is_linear) return collapsed_sum(scaled, weights, options, measure);
  expect_shape(logits.dim() == 3 && at::allclose(weights, weights.mean().expand_as(weights)),
               "teachers that are kept apart must be [K, N, C] and count alike");
  return {torch::softmax(softened(scaled, options.temperature), 2), &measure, num_teachers};
}

Guidance guidance_by(const Tensor& targets, const DistillOptions& options) {
  return {targets, &dissimilarity_named(options.measure)};
}

}  // namespace headstart::learn
