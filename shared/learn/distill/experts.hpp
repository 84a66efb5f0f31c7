// Teachers as a mixture of experts: how much each counts for a sample follows from how much the sample is like what it
// was trained on. Bayes' rule for "which silo does x look like": p(c|x) = sum_k P(k|x) p_k(c|x), P(k|x) ~ n_k r_k(x).
// Source of the density ratio by classification: Sugiyama et al. 2012, "Density Ratio Estimation in Machine Learning",
// chapter 4; of its use for teachers: shared/learn/README.md.
#pragma once

#include <cstdint>
#include <stop_token>
#include <string_view>
#include <utility>

#include "shared/learn/core/progress.hpp"
#include "shared/learn/models/model.hpp"

namespace headstart::learn {

/// How the log-odds l(x) of "own rather than public" become a weight.
enum class Density {
  ratio,    ///< exp(clamp(l, -8, 8)), the density ratio own against public.
  bounded,  ///< sigmoid(l)^2, within 0..1, for answers in fixed point.
};
inline constexpr std::pair<Density, std::string_view> density_words[] = {{Density::ratio, "ratio"},
                                                                         {Density::bounded, "bounded"}};

/// What samples are told apart by: the model's features, or its logits where it does not show features. float64 [n, F]
/// on the CPU, in evaluation mode. Throws as features_of() does.
Tensor density_features(Model& model, const Tensor& x, std::int64_t batch_size = 256, std::stop_token stop = {},
                        const ProgressCallback& progress = {});

/// l(x) of each public sample: log-odds of logistic regression that tells own samples [n, F] from public ones [m, F],
/// which weigh the same in all. Both are standardised by the mean and the deviation plus 0.1 of the public ones; the
/// penalty is `penalty` times the squared L2 norm of the coefficients without the bias. Newton's method to the optimum:
/// a pure function of the features. float64 [m]. Throws Error(run_failed) for features that are not finite, Error(data)
/// where one side has no samples.
Tensor density_log_odds(const Tensor& own, const Tensor& open, double penalty = 0.01);

/// float64 [n].
Tensor density_weights(const Tensor& log_odds, Density density);

/// q(x,c) ~ sum_k w_k(x) softmax(z_k(x) / T)_c, normalised over c; 1/C where no expert counts. logits: [K, N, C];
/// weights: [K, N], not negative. Returns float32 [N, C].
Tensor expert_targets(const Tensor& logits, const Tensor& weights, double temperature);

// Answers in fixed point: sums of them are exact, so that neither the order of arrival nor a mask that cancels changes
// a bit.

/// The widths that answers may have, in bits.
inline constexpr std::int64_t answer_widths[] = {16, 12};
/// Bytes of `count` answers.
std::int64_t answer_bytes(std::int64_t count, std::int64_t bits);
/// Each of the answers, within 0..1, times 2^bits - 1 and rounded, packed one behind the other, the lowest bit first:
/// uint8 [answer_bytes()]. Throws Error(run_failed) for answers that are not finite or beyond 0..1.
Tensor packed_answers(const Tensor& answers, std::int64_t bits);
/// int64 [count]. Throws Error(run_failed) where spare bits behind the last answer are set.
Tensor unpacked_answers(const Tensor& packed, std::int64_t count, std::int64_t bits);

/// Targets of a sum of answers, int64 [N, C]: each row over its sum, 1/C where that is 0. float32 [N, C].
Tensor targets_of_sum(const Tensor& sum);

}  // namespace headstart::learn
