// How much each teacher counts for each class.
// Source: Alballa & Canini 2024 (arXiv 2402.14922), equation 6.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/learn/core/tensor.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::learn {

/// adaptive: by class accuracy, that is recall (equation 6). precision: the same formula over class precision (decided
/// here): recall rewards a teacher for answering with its own class whatever it sees; precision does not. experts: by
/// sample, see experts.hpp; it has no weights by class.
enum class TeacherWeighting { adaptive, precision, equal, experts };
inline constexpr std::pair<TeacherWeighting, std::string_view> weighting_words[] = {
    {TeacherWeighting::adaptive, "adaptive"},
    {TeacherWeighting::precision, "precision"},
    {TeacherWeighting::equal, "equal"},
    {TeacherWeighting::experts, "experts"}};

/// Whether models must be rated, class by class, for it.
constexpr bool needs_ratings(TeacherWeighting weighting) {
  return weighting == TeacherWeighting::adaptive || weighting == TeacherWeighting::precision;
}

/// Class-wise teacher weights  w[k,c] = A[k,c] / (A_s[c] + sum_j A_j[c]);  1/K where the denominator is 0.
///   teachers: [K, C] in 0..1, the rates (recall or precision) of those who teach (the student's frozen copy may be
///             among them, with the student's rate as its numerator).
///   others:   [M, C] in 0..1, the accuracies of the other clients, that the sum runs over.
///   student:  [C] in 0..1; zeros for an untrained student.
/// Returns float64 [K, C].
Tensor adaptive_weights(const Tensor& teachers, const Tensor& others, const Tensor& student);

/// What adaptive_weights() takes of one model: recall or, for TeacherWeighting::precision, precision per class: float64
/// [C].
Tensor class_rates(const Evaluation& rating, TeacherWeighting weighting);

/// 1/K everywhere: float64 [K, C].
Tensor equal_weights(std::int64_t num_teachers, std::int64_t num_classes);

/// Of teachers, those that can teach: models that diverged, with finite weights, may have logits that are not finite.
struct SoundTeachers {
  Tensor logits;   ///< [K', N, C].
  Tensor weights;  ///< [K', C]: what counted for the others goes, by class and in proportion, to these.
  std::vector<std::int64_t> dropped;  ///< Of the K, by index.
};
/// Shapes as soft_targets() has them. Throws Error(run_failed) where none is left.
SoundTeachers sound_teachers(const Tensor& logits, const Tensor& weights);

}  // namespace headstart::learn
