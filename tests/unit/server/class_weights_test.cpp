#include "server/phases/class_weights.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include "tests/support/learning.hpp"

namespace headstart::server {
namespace {

using learn::Evaluation;
using learn::TeacherWeighting;

/// Of three classes with ten samples each.
Evaluation rating(std::vector<std::int64_t> correct, std::vector<std::int64_t> predicted) {
  return {.correct = std::move(correct), .total = {10, 10, 10}, .predicted = std::move(predicted), .loss_sum = 1};
}

const Evaluation good = rating({8, 7, 0}, {15, 15, 0});
const Evaluation fair = rating({4, 6, 0}, {12, 18, 0});
const Evaluation constant = rating({0, 0, 10}, {0, 0, 30});

TEST_CASE("class weights: a teacher that answers one class for all samples has none") {
  for (const TeacherWeighting weighting : {TeacherWeighting::precision, TeacherWeighting::adaptive}) {
    const learn::Tensor weights = class_weights({good, constant, fair}, {good, constant, fair}, {}, weighting);
    CHECK(weights[1].abs().max().item<double>() == 0);
    // The class that it alone answers is shared by the others, who do not know it.
    CHECK(weights[0][2].item<double>() == doctest::Approx(0.5));
    CHECK(test::largest_difference(weights.sum(0), torch::ones({3})) < 1e-12);
    // Among themselves the others count as without it.
    const learn::Tensor without = class_weights({good, fair}, {good, fair}, {}, weighting);
    CHECK(test::largest_difference(weights.narrow(1, 0, 2).index_select(0, torch::tensor({0, 2})),
                                   without.narrow(1, 0, 2)) < 1e-12);
  }
}

TEST_CASE("class weights: where all teachers answer alike, they count as they are") {
  const learn::Tensor weights =
      class_weights({constant, constant}, {constant, constant}, {}, TeacherWeighting::precision);
  CHECK(test::largest_difference(weights, torch::full({2, 3}, 0.5)) < 1e-12);
}

}  // namespace
}  // namespace headstart::server
