// What guides a student: its teachers' answers, as the student is compared with them.
// Sources: Alballa & Canini 2024 (arXiv 2402.14922), equations 6 and 7; Lin et al. 2020 (FedDF); Molo et al.
#pragma once

#include <cstdint>

#include <c10/core/Device.h>

#include "shared/learn/core/tensor.hpp"
#include "shared/learn/distill/dissimilarity.hpp"
#include "shared/learn/distill/distill_options.hpp"

namespace headstart::learn {

/// Made once before a distillation; its answers are already softened by the temperature.
struct Guidance {
  Tensor targets;  ///< Probabilities, no gradient. [n, C]: one target a sample; [K, n, C]: each teacher's, kept apart.
  const Dissimilarity* measure = nullptr;
  std::int64_t num_teachers = 1;  ///< K that `targets` stand for, in one target or apart.
  double factor = 1;              ///< Of the measure: K where one target stands for a sum over K teachers.
  Tensor constant;                ///< [n]: what such a sum has beyond that, the same for every student; else undefined.

  /// Samples n.
  [[nodiscard]] std::int64_t size() const { return targets.size(-2); }
  /// Of the samples at `batch` (int64 [B], on the device of the targets).
  [[nodiscard]] Guidance select(const Tensor& batch) const;
  [[nodiscard]] Guidance to(c10::Device device) const;
};

/// What `options` ask for: measure, average, temperature, standardise, normalise. logits: [K, n, C]; weights: [K, C].
///   average probabilities, logits   the measure to soft_targets(logits, weights, options), one target a sample
///   average none, ce and kl         the sum over the teachers, each's answers times K w[k,c] (1 for equal weights), as
///                                   one target
///   average none, other measures    the sum over the teachers, which must count alike, and are kept apart
/// Targets of measures other than ce and kl sum to 1, whatever options.normalise says.
/// Throws Error(usage) as dissimilarity_named() and check() do, Error(internal) for shapes or weights that do not fit.
Guidance guidance(const Tensor& logits, const Tensor& weights, const DistillOptions& options);
/// The same by a measure that need not be in the table; options.measure has no part in it.
Guidance guidance(const Tensor& logits, const Tensor& weights, const DistillOptions& options,
                  const Dissimilarity& measure);

/// One target a sample, however it was made: probabilities [n, C]. Compared by options.measure.
Guidance guidance_by(const Tensor& targets, const DistillOptions& options);

}  // namespace headstart::learn
