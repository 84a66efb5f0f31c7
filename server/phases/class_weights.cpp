#include "server/phases/class_weights.hpp"

#include <algorithm>

#include <torch/types.h>

namespace headstart::server {

namespace {

learn::Tensor rates_of(const std::vector<learn::Evaluation>& ratings, learn::TeacherWeighting weighting) {
  std::vector<learn::Tensor> rates;
  for (const learn::Evaluation& rating : ratings) rates.push_back(learn::class_rates(rating, weighting));
  return torch::stack(rates);
}

/// bool [classes]: measured for one of the models and not for another.
learn::Tensor partly_measured(const std::vector<learn::Evaluation>& ratings) {
  std::vector<learn::Tensor> measured;
  for (const learn::Evaluation& rating : ratings) {
    measured.push_back(torch::tensor(rating.total, torch::kLong).gt(0));
  }
  const learn::Tensor all = torch::stack(measured);
  return all.any(0).logical_and(all.all(0).logical_not());
}

/// Whether the model took every sample that it was rated on for the same class, though they are of several: it says
/// nothing of a sample.
bool answers_alike(const learn::Evaluation& rating) {
  const auto is_positive = [](std::int64_t count) { return count > 0; };
  return std::ranges::count_if(rating.predicted, is_positive) == 1 &&
         std::ranges::count_if(rating.total, is_positive) > 1;
}

/// `weights` [K, C] without the models that answer alike, what they had of a class given to the others by their shares
/// of it. Unchanged where there are no others.
learn::Tensor without_constant_teachers(const learn::Tensor& weights, const std::vector<learn::Evaluation>& teaching) {
  std::vector<std::int64_t> kept;
  for (const learn::Evaluation& rating : teaching) kept.push_back(answers_alike(rating) ? 0 : 1);
  const auto num_kept = std::ranges::count(kept, 1);
  if (num_kept == 0 || num_kept == std::ssize(kept)) return weights;
  const learn::Tensor is_kept = torch::tensor(kept, torch::kDouble).unsqueeze(1);
  const learn::Tensor rest = weights * is_kept;
  const learn::Tensor known = rest.sum(0, true);
  const learn::Tensor shares = torch::where(known > 0, rest / known, is_kept / static_cast<double>(num_kept));
  return shares * weights.sum(0, true);
}

}  // namespace

learn::Tensor class_weights(const std::vector<learn::Evaluation>& teaching,
                            const std::vector<learn::Evaluation>& others,
                            const std::optional<learn::Evaluation>& student, learn::TeacherWeighting weighting) {
  const auto num_classes = std::ssize(teaching.front().total);
  const learn::Tensor student_rates =
      student ? learn::class_rates(*student, weighting) : torch::zeros({num_classes}, torch::kDouble);
  const learn::Tensor weights =
      learn::adaptive_weights(rates_of(teaching, weighting), rates_of(others, weighting), student_rates);
  std::vector<learn::Evaluation> involved = teaching;
  involved.insert(involved.end(), others.begin(), others.end());
  if (student) involved.push_back(*student);
  const learn::Tensor equal = learn::equal_weights(std::ssize(teaching), num_classes);
  return without_constant_teachers(torch::where(partly_measured(involved).unsqueeze(0), equal, weights), teaching);
}

}  // namespace headstart::server
