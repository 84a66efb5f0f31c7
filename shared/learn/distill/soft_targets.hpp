// Many teachers' answers as one target per sample.
// Sources: Alballa & Canini 2024 (arXiv 2402.14922), equations 6 and 7; Lin et al. 2020 (FedDF).
#pragma once

#include "shared/learn/core/tensor.hpp"
#include "shared/learn/distill/distill_options.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::learn {

/// q[n,c] = sum_k w[k,c] softmax(z_k[n] / T)[c]: all teachers in one target per sample, not normalised.
/// logits: [K, N, C]; weights: [K, C]. Returns the type of `logits`, [N, C].
Tensor soft_targets(const Tensor& logits, const Tensor& weights, double temperature);

/// Logits minus their mean over the classes, over their standard deviation (of n - 1) plus 1e-7: Sun et al. 2024,
/// "Logit Standardization in Knowledge Distillation". [..., C].
Tensor standardised(const Tensor& logits);

/// The teacher's label prior divided out of its probabilities: z[c] - log pi[c] (logit adjustment, Menon et al. 2021),
/// pi[c] = (predicted[c] + 1) / (n + C): how often the teacher answers with a class, by the rule of succession.
/// logits: [N, C]; rating: of the teacher. Dividing it out of recall instead, in the weights, gives precision, up to
/// what cancels: pi[c] precision[c] = recall[c] share[c].
Tensor without_label_prior(const Tensor& logits, const Evaluation& rating);

/// The targets that `options` ask for: temperature, average, standardise, normalise. Shapes as above.
Tensor soft_targets(const Tensor& logits, const Tensor& weights, const DistillOptions& options);

/// Probabilities of the ensemble: equal  mean_k p_k;  class-weighted  sum_k w[k,c] p_k[c].
/// logits [K, N, C], weights [K, C]. Returns [N, C], unnormalised for class weights (argmax needs no more).
Tensor ensemble_scores(const Tensor& logits, const Tensor& weights);

}  // namespace headstart::learn
