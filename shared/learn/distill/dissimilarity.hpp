// How far a student's answers are from its teachers': the measures that distillation can minimise. One row of
// dissimilarities() each, and one file for those that are computed alike.
// Sources: the formulas of Molo, Vadicamo, Gennaro, Carlini (FGCS 176, doi 10.1016/j.future.2025.108171) and of their
// programs, in log space.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/learn/core/tensor.hpp"

namespace headstart::learn {

/// Of p = softmax(z_student / T) and the target q, natural logarithm, summed over the classes. The target is a
/// constant. It comes as probabilities, of which one may be 0 because it is too small for its type: a measure that
/// would be infinite there bounds it itself.
struct Dissimilarity {
  std::string_view name;   ///< "js": the word of a setting.
  std::string_view words;  ///< For the help: "Jensen-Shannon divergence".
  /// log_p, q: [B, C]. Returns [B], a value a sample, differentiable in log_p.
  Tensor (*to_one)(const Tensor& log_p, const Tensor& q) = nullptr;
  /// Of all teachers at once, log_p: [B, C], q: [K, B, C]; returns [B]. Null where the measure is of two distributions:
  /// to_one() of each teacher is then added up.
  Tensor (*to_all)(const Tensor& log_p, const Tensor& q) = nullptr;
  /// What makes it as strong as kl where the student is near its K teachers: the factor of strength=matched.
  double (*matched)(std::int64_t num_teachers) = [](std::int64_t) { return 1.0; };
  /// Linear in q but for a constant in the student. The sum over teachers is then K times that to their average, and q
  /// need not sum to 1.
  bool is_linear = false;
};

extern const Dissimilarity cross_entropy_measure, kullback_leibler_measure, jensen_shannon_measure,
    structural_entropic_measure, triangular_measure, multiway_entropic_measure;

/// One row a measure, in the order of the help.
std::span<const Dissimilarity* const> dissimilarities();
/// Their names.
std::vector<std::string> dissimilarity_words();
/// Throws Error(usage), naming those there are, where there is none of this name.
const Dissimilarity& dissimilarity_named(const std::string& name);

}  // namespace headstart::learn
