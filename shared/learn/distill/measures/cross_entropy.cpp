// Cross-entropy and Kullback-Leibler divergence: the same but for the target's entropy, so of the same gradient.
#include <torch/types.h>

#include "shared/learn/distill/dissimilarity.hpp"

namespace headstart::learn {

namespace {

/// -sum q log p. Gradient in z_student: (p - q) / T.
Tensor cross_entropy(const Tensor& log_p, const Tensor& q) { return -(q * log_p).sum(1); }

/// sum q log(q / p), 0 log 0 = 0.
Tensor kullback_leibler(const Tensor& log_p, const Tensor& q) { return (at::xlogy(q, q) - q * log_p).sum(1); }

}  // namespace

const Dissimilarity cross_entropy_measure{
    .name = "ce", .words = "cross-entropy", .to_one = cross_entropy, .is_linear = true};

const Dissimilarity kullback_leibler_measure{
    .name = "kl", .words = "Kullback-Leibler divergence", .to_one = kullback_leibler, .is_linear = true};

}  // namespace headstart::learn
