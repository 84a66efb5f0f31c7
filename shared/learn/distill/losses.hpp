// What a distillation minimises.
#pragma once

#include <optional>

#include "shared/learn/core/tensor.hpp"
#include "shared/learn/distill/distill_options.hpp"
#include "shared/learn/distill/guidance.hpp"

namespace headstart::learn {

/// One value a sample, [B]: the measure between the student's softmax(z_s / T) and the teachers, or its sum over them
/// where `teachers` stand for one. student_logits: [B, C]; `teachers`: of the same samples.
Tensor dissimilarities_of(const Tensor& student_logits, const Guidance& teachers, double temperature);

/// The distillation term of a batch, a scalar: the mean of dissimilarities_of() times T^2, their sum for
/// BatchReduction::published; times the factor of MeasureStrength::matched. The student's logits are standardised first
/// where options.standardise asks for it.
Tensor distillation_term(const Tensor& student_logits, const Guidance& teachers, const DistillOptions& options);

/// (1 - alpha) CE(y, p_s) + alpha * distillation_term; without labels the term alone. The cross-entropy is a mean over
/// the batch at T = 1. student_logits: [B, C]; labels: int64 [B]. Returns a scalar.
Tensor distillation_objective(const Tensor& student_logits, const Guidance& teachers,
                              const std::optional<Tensor>& labels, const DistillOptions& options);

/// KL(q || p) of two categorical distributions given as logits, softened by T: sum over classes, mean over the batch.
Tensor kl_divergence(const Tensor& target_logits, const Tensor& logits, double temperature);

}  // namespace headstart::learn
