#include "shared/learn/distill/teacher_weights.hpp"

#include <torch/types.h>

#include "shared/learn/distill/shapes.hpp"

namespace headstart::learn {

Tensor class_rates(const Evaluation& rating, TeacherWeighting weighting) {
  const bool by_precision = weighting == TeacherWeighting::precision;
  return torch::tensor(by_precision ? rating.class_precision() : rating.class_accuracy(), torch::kFloat64);
}

Tensor adaptive_weights(const Tensor& teachers, const Tensor& others, const Tensor& student) {
  expect_shape(teachers.dim() == 2 && others.dim() == 2 && student.dim() == 1 && teachers.size(0) > 0 &&
                   teachers.size(1) == student.size(0) && others.size(1) == student.size(0),
               "class accuracies must be [K, C], [M, C] and [C]");
  const Tensor numerator = teachers.to(torch::kFloat64);
  const Tensor denominator = student.to(torch::kFloat64) + others.to(torch::kFloat64).sum(0);
  const Tensor equal = equal_weights(teachers.size(0), teachers.size(1));
  return torch::where((denominator > 0).unsqueeze(0), numerator / denominator, equal);
}

Tensor equal_weights(std::int64_t num_teachers, std::int64_t num_classes) {
  return torch::full({num_teachers, num_classes}, 1.0 / static_cast<double>(num_teachers), torch::kFloat64);
}

SoundTeachers sound_teachers(const Tensor& logits, const Tensor& weights) {
  std::vector<std::int64_t> kept;
  SoundTeachers sound;
  for (std::int64_t k = 0; k < logits.size(0); ++k) {
    const bool is_finite = at::isfinite(logits[k]).all().item<bool>();
    (is_finite ? kept : sound.dropped).push_back(k);
  }
  if (kept.empty()) throw Error(Errc::run_failed, "consolidation: no teacher has finite logits");
  if (sound.dropped.empty()) return {logits, weights, {}};
  const Tensor rows = torch::tensor(kept, torch::kLong);
  sound.logits = logits.index_select(0, rows.to(logits.device()));
  const Tensor rest = weights.index_select(0, rows.to(weights.device()));
  // A class that none of the rest knows: all count alike.
  const Tensor known = rest.sum(0, true);
  const Tensor share =
      torch::where(known > 0, rest / known, torch::full_like(rest, 1.0 / static_cast<double>(kept.size())));
  sound.weights = share * weights.sum(0, true);
  return sound;
}

}  // namespace headstart::learn
