#include "server/phases/class_weights.hpp"

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
  return torch::where(partly_measured(involved).unsqueeze(0), equal, weights);
}

}  // namespace headstart::server
