// How far a student's answers are from its targets.
#pragma once

#include <optional>

#include "shared/learn/core/tensor.hpp"
#include "shared/learn/distill/distill_options.hpp"

namespace headstart::learn {

/// T^2 * mean over the batch of sum_k sum_c w[k,c] p_k[c] log(p_k[c] / p_s[c]) up to a constant in the student:
/// T^2 * mean_n( -sum_c q[n,c] log softmax(z_s[n] / T)[c] ). The gradient is that of the full loss; the constant is
/// left out as training never needs it. student_logits: [B, C]; targets: [B, C]. Returns a scalar.
Tensor distillation_loss(const Tensor& student_logits, const Tensor& targets, double temperature,
                         bool scale_by_t2 = true);

/// Vanilla KD on a batch. student_logits, targets: [B, C]; labels: int64 [B]. Returns a scalar.
Tensor distillation_objective(const Tensor& student_logits, const Tensor& targets, const std::optional<Tensor>& labels,
                              const DistillOptions& options);

/// KL(q || p) of two categorical distributions given as logits, softened by T: sum over classes, mean over the batch.
Tensor kl_divergence(const Tensor& target_logits, const Tensor& logits, double temperature);

}  // namespace headstart::learn
