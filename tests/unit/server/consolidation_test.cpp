#include <cmath>
#include <limits>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "server/phases/consolidation_plan.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

/// A candidate that gets `correct[c]` of ten samples of each class right and takes the others for the next class.
Candidate rated(std::string client, std::vector<std::int64_t> correct) {
  learn::Evaluation rating;
  rating.total.assign(correct.size(), 10);
  for (std::size_t c = 0; c < correct.size(); ++c) {
    rating.predicted.push_back(correct[c] + 10 - correct[(c + correct.size() - 1) % correct.size()]);
  }
  rating.correct = std::move(correct);
  rating.loss_sum = 1;
  return {.client = std::move(client), .reason = {}, .rating = rating};
}

// Accuracies: a 0.5, b 0.7, c 0.3.
std::vector<Candidate> three() { return {rated("b", {8, 6}), rated("c", {0, 6}), rated("a", {4, 6})}; }

ConsolidationOptions options_of(StudentStart student, learn::TeacherWeighting weighting, TransferSet transfer) {
  return {.student = student, .weighting = weighting, .transfer = transfer};
}

constexpr auto adaptive = learn::TeacherWeighting::adaptive;
constexpr auto equal = learn::TeacherWeighting::equal;

bool close(const learn::Tensor& a, std::vector<std::vector<double>> rows) {
  std::vector<at::Tensor> expected;
  for (const auto& row : rows) expected.push_back(torch::tensor(row, torch::kDouble));
  const at::Tensor b = torch::stack(expected);
  return a.sizes() == b.sizes() && at::allclose(a, b, 0, 1e-12);
}

TEST_CASE("public set, best start: the others and the student's frozen copy teach") {
  const auto plan = plan_consolidation(options_of(StudentStart::best, adaptive, TransferSet::public_large), three(), 2);
  CHECK(plan.student == "b");
  CHECK_FALSE(plan.place);
  CHECK(plan.teachers == std::vector<std::string>{"a", "c"});
  CHECK(plan.copy_teaches);
  // D[c] = A_s[c] + A_a[c] + A_c[c]: 0.8 + 0.4 + 0 and 0.6 + 0.6 + 0.6; the copy's numerator is A_s.
  CHECK(close(plan.weights, {{0.4 / 1.2, 1.0 / 3}, {0, 1.0 / 3}, {0.8 / 1.2, 1.0 / 3}}));
}

TEST_CASE("weights by precision: the same formula, over how often a prediction is right") {
  const auto precision = learn::TeacherWeighting::precision;
  const auto plan =
      plan_consolidation(options_of(StudentStart::best, precision, TransferSet::public_large), three(), 2);
  // Right of predicted: b 8 of 12 and 6 of 8, a 4 of 8 and 6 of 12, c 0 of 4 and 6 of 16; one more right of two more.
  const double first = 9.0 / 14 + 5.0 / 10 + 1.0 / 6;
  const double second = 7.0 / 10 + 7.0 / 14 + 7.0 / 18;
  CHECK(close(plan.weights, {{5.0 / 10 / first, 7.0 / 14 / second},
                             {1.0 / 6 / first, 7.0 / 18 / second},
                             {9.0 / 14 / first, 7.0 / 10 / second}}));
  CHECK_FALSE(plan.is_published);
}

TEST_CASE("public set, worst start and equal weights: K = N") {
  const auto plan = plan_consolidation(options_of(StudentStart::worst, equal, TransferSet::public_small), three(), 2);
  CHECK(plan.student == "c");
  CHECK(plan.copy_teaches);
  CHECK(close(plan.weights, {{1.0 / 3, 1.0 / 3}, {1.0 / 3, 1.0 / 3}, {1.0 / 3, 1.0 / 3}}));
}

TEST_CASE("public set, untrained start: all clients teach, no copy, A_s = 0") {
  const auto plan =
      plan_consolidation(options_of(StudentStart::untrained, adaptive, TransferSet::public_large), three(), 2);
  CHECK_FALSE(plan.student);
  CHECK_FALSE(plan.copy_teaches);
  CHECK(plan.teachers == std::vector<std::string>{"a", "b", "c"});
  CHECK(close(plan.weights, {{0.4 / 1.2, 1.0 / 3}, {0.8 / 1.2, 1.0 / 3}, {0, 1.0 / 3}}));
}

TEST_CASE("a model that diverged neither teaches nor is the student, and is named") {
  auto candidates = three();
  candidates[1].rating->loss_sum = std::numeric_limits<double>::infinity();
  const auto plan =
      plan_consolidation(options_of(StudentStart::worst, equal, TransferSet::public_large), candidates, 2);
  CHECK(plan.student == "a");
  CHECK(plan.teachers == std::vector<std::string>{"b"});
  REQUIRE(plan.left_out.size() == 1);
  CHECK(plan.left_out[0].first == "c");
}

TEST_CASE("student data: the others teach at the student's client, without a copy, A_s in the denominator") {
  const auto plan = plan_consolidation(options_of(StudentStart::best, adaptive, TransferSet::student), three(), 2);
  CHECK(plan.place == "b");
  CHECK(plan.student == "b");
  CHECK_FALSE(plan.copy_teaches);
  CHECK(close(plan.weights, {{0.4 / 1.2, 1.0 / 3}, {0, 1.0 / 3}}));
  CHECK(plan.is_published);
  const auto unpublished =
      plan_consolidation(options_of(StudentStart::untrained, equal, TransferSet::student), three(), 2);
  CHECK_FALSE(unpublished.is_published);
  CHECK_FALSE(unpublished.student);
  CHECK(unpublished.place == "b");
}

TEST_CASE("a class that nobody knows is shared evenly") {
  const auto plan = plan_consolidation(options_of(StudentStart::untrained, adaptive, TransferSet::public_large),
                                       {rated("a", {5, 0}), rated("b", {5, 0})}, 2);
  CHECK(close(plan.weights, {{0.5, 0.5}, {0.5, 0.5}}));
}

TEST_CASE("a class that was not measured for every model counts alike for all, whatever the weights") {
  // Each of two silos holds a class of its own and half of the third: what others hold says nothing of what it knows
  // best.
  const auto of = [](std::vector<std::int64_t> correct, std::vector<std::int64_t> total) {
    learn::Evaluation counts;
    counts.predicted = total;
    counts.correct = std::move(correct);
    counts.total = std::move(total);
    return counts;
  };
  const Candidate a{.client = "a", .reason = {}, .rating = of({0, 2, 6}, {0, 10, 10})};
  const Candidate b{.client = "b", .reason = {}, .rating = of({1, 0, 2}, {10, 0, 10})};
  for (const auto weighting : {adaptive, learn::TeacherWeighting::precision}) {
    const auto plan =
        plan_consolidation(options_of(StudentStart::untrained, weighting, TransferSet::public_large), {a, b}, 3);
    const double known = weighting == adaptive ? 6.0 / 8 : 7.0 / 10;  // (6 + 1) / (10 + 3) of it and (2 + 1) / (10 + 3)
    CHECK(close(plan.weights, {{0.5, 0.5, known}, {0.5, 0.5, 1 - known}}));
  }
  // A class that nobody has samples of is as it was: equal by accuracy, by precision as the predictions say.
  auto c = rated("c", {5, 5});
  auto d = rated("d", {5, 5});
  c.rating->total[0] = d.rating->total[0] = c.rating->correct[0] = d.rating->correct[0] = 0;
  c.rating->predicted[0] = 1;
  const auto plan = plan_consolidation(
      options_of(StudentStart::untrained, learn::TeacherWeighting::precision, TransferSet::public_large), {c, d}, 2);
  const double first = 1.0 / 3;
  const double second = 1.0 / (static_cast<double>(d.rating->predicted[0]) + 2);
  CHECK(std::abs(plan.weights[0][0].item<double>() - first / (first + second)) < 1e-12);
}

TEST_CASE("ties are broken by loss, then by name") {
  auto slow = rated("a", {5, 5});
  slow.rating->loss_sum = 2;
  const auto by_loss = plan_consolidation(options_of(StudentStart::best, equal, TransferSet::public_large),
                                          {slow, rated("b", {5, 5})}, 2);
  CHECK(by_loss.student == "b");
  const auto by_name = plan_consolidation(options_of(StudentStart::best, equal, TransferSet::public_large),
                                          {rated("b", {5, 5}), rated("a", {5, 5})}, 2);
  CHECK(by_name.student == "a");
}

TEST_CASE("who cannot teach is left out with the reason; who has another architecture cannot be the student") {
  auto candidates = three();
  candidates[0].has_federated_architecture = false;
  candidates[1].can_teach = false;
  candidates[1].reason = "does not share";
  const auto plan = plan_consolidation(options_of(StudentStart::best, adaptive, TransferSet::student), candidates, 2);
  CHECK(plan.student == "a");
  CHECK(plan.teachers == std::vector<std::string>{"b"});
  REQUIRE(plan.left_out.size() == 1);
  CHECK(plan.left_out[0] == std::pair<std::string, std::string>{"c", "does not share"});
}

TEST_CASE("without a rating there is no adaptive weight; without teachers or student there is no plan") {
  auto candidates = three();
  candidates[2].rating.reset();
  const auto plan =
      plan_consolidation(options_of(StudentStart::best, adaptive, TransferSet::public_large), candidates, 2);
  CHECK(plan.left_out.size() == 1);
  for (auto& candidate : candidates) candidate.can_teach = false;
  CHECK(test::code_of([&] {
          plan_consolidation(options_of(StudentStart::best, equal, TransferSet::student), candidates, 2);
        }) == Errc::run_failed);
  for (auto& candidate : candidates) candidate.has_federated_architecture = false;
  CHECK(test::code_of([&] {
          plan_consolidation(options_of(StudentStart::best, equal, TransferSet::public_large), candidates, 2);
        }) == Errc::run_failed);
}

TEST_CASE("another metric than accuracy ranks the models") {
  const Candidate common{.client = "a", .reason = {}, .rating = learn::Evaluation{{90, 0}, {90, 10}, {100, 0}, 20}};
  const Candidate both{.client = "b", .reason = {}, .rating = learn::Evaluation{{80, 8}, {90, 10}, {82, 18}, 20}};
  CHECK(ranks_before(common, both));
  const learn::Metric recall{learn::MetricKind::recall, 1};
  CHECK(ranks_before(both, common, recall));
  const auto options = options_of(StudentStart::best, equal, TransferSet::public_large);
  CHECK(plan_consolidation(options, {common, both}, 2).student == "a");
  CHECK(plan_consolidation(options, {common, both}, 2, recall).student == "b");
}

}  // namespace
}  // namespace headstart::server
