#include <cmath>
#include <limits>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

namespace {

/// Logits are the flattened samples times a factor that tells training from evaluation mode.
class Passthrough final : public Model {
 public:
  Tensor forward(const Tensor& x) override {
    largest_batch = std::max(largest_batch, x.size(0));
    return x.flatten(1) * (training_ ? -1 : 1);
  }
  std::vector<Tensor> parameters() override { return {}; }
  std::vector<NamedTensor> named_state() override { return {}; }
  void set_training(bool training) override { training_ = training; }
  void to(c10::Device) override {}

  std::int64_t largest_batch = 0;

 private:
  bool training_ = true;
};

Samples random_samples(std::int64_t n, std::int64_t classes) {
  auto generator = at::detail::createCPUGenerator(5);
  return {torch::randn({n, 1, 1, classes}, generator), torch::randint(0, classes, {n}, generator, torch::kLong)};
}

}  // namespace

TEST_CASE("counts and loss of three samples in closed form") {
  const double log2 = std::log(2.0);
  const Tensor logits = torch::tensor({{log2, 0.0, 0.0}, {0.0, 0.0, log2}, {log2, 0.0, 0.0}}, torch::kDouble);
  const Evaluation evaluation = evaluate_logits(logits, torch::tensor({0, 2, 2}, torch::kLong), 3);
  CHECK(evaluation.correct == std::vector<std::int64_t>{1, 0, 1});
  CHECK(evaluation.total == std::vector<std::int64_t>{1, 0, 2});
  CHECK(evaluation.predicted == std::vector<std::int64_t>{2, 0, 1});
  // Probabilities 1/2, 1/2 and 1/4.
  CHECK(evaluation.loss_sum == doctest::Approx(4 * log2));
  CHECK(evaluation.accuracy() == doctest::Approx(2.0 / 3));
  CHECK(evaluation.loss() == doctest::Approx(4 * log2 / 3));
  CHECK(evaluation.class_accuracy() == std::vector<double>{1, 0, 0.5});
  CHECK(evaluation.class_precision() == std::vector<double>{2.0 / 5, 1.0 / 3, 2.0 / 4});
}

TEST_CASE("global accuracy is the mean recall; own accuracy weighs recall by the samples that a client has") {
  const Evaluation evaluation{.correct = {8, 3, 0, 0}, .total = {10, 4, 5, 0}, .predicted = {12, 4, 3, 0}};
  CHECK(evaluation.mean_class_accuracy() == doctest::Approx((0.8 + 0.75 + 0) / 3));
  CHECK(evaluation.accuracy_on({30, 10, 0, 0}) == doctest::Approx(0.75 * 0.8 + 0.25 * 0.75));
  // On shares like those of the evaluation's own samples, the accuracy.
  CHECK(evaluation.accuracy_on({100, 40, 50, 0}) == doctest::Approx(evaluation.accuracy()));
  // Nothing is known of the last class, so it has no share.
  CHECK(evaluation.accuracy_on({10, 0, 0, 90}) == doctest::Approx(0.8));
  CHECK(evaluation.accuracy_on({0, 0, 0, 90}) == 0);
  CHECK(Evaluation::of_none(4).mean_class_accuracy() == 0);
  CHECK(test::code_of([&] { (void)evaluation.accuracy_on({1, 2, 3}); }) == Errc::internal);
}

TEST_CASE("the loss of a model that diverged is infinite, and no rating is better for it") {
  const double huge = std::numeric_limits<double>::infinity();
  for (const double score : {huge, -huge, std::numeric_limits<double>::quiet_NaN()}) {
    const Tensor logits = torch::tensor({{0.0, 1.0}, {score, 0.0}}, torch::kDouble);
    CHECK(evaluate_logits(logits, torch::tensor({1, 0}, torch::kLong), 2).loss() == huge);
  }
}

TEST_CASE("without samples accuracy and loss are 0") {
  const Evaluation none = evaluate_logits(torch::zeros({0, 3}), torch::zeros({0}, torch::kLong), 3);
  CHECK(none.num_samples() == 0);
  CHECK(none.accuracy() == 0);
  CHECK(none.loss() == 0);
}

TEST_CASE("logits that do not fit the labels are a bug, told as such") {
  CHECK_THROWS_AS(evaluate_logits(torch::zeros({2, 3}), torch::zeros({2}, torch::kLong), 4), Error);
  CHECK_THROWS_AS(evaluate_logits(torch::zeros({2, 3}), torch::zeros({1}, torch::kLong), 3), Error);
}

TEST_CASE("evaluation is additive over disjoint sets and blind to the batch size") {
  const Samples samples = random_samples(101, 5);
  Passthrough model;
  const Evaluation whole = evaluate(model, samples, 5, 1000);
  model.largest_batch = 0;
  const Evaluation in_batches = evaluate(model, samples, 5, 16);
  CHECK(model.largest_batch == 16);
  Evaluation sum = evaluate(model, {samples.x.narrow(0, 0, 40), samples.y.narrow(0, 0, 40)}, 5);
  sum += evaluate(model, {samples.x.narrow(0, 40, 61), samples.y.narrow(0, 40, 61)}, 5);
  for (const Evaluation& other : {in_batches, sum}) {
    CHECK(other.correct == whole.correct);
    CHECK(other.total == whole.total);
    CHECK(other.predicted == whole.predicted);
    CHECK(other.loss_sum == doctest::Approx(whole.loss_sum));
  }
  CHECK(whole.num_samples() == 101);
  CHECK_THROWS_AS(sum += evaluate_logits(torch::zeros({1, 2}), torch::zeros({1}, torch::kLong), 2), Error);
}

TEST_CASE("evaluation runs in evaluation mode, on whatever mode the model was") {
  const Samples samples = random_samples(10, 3);
  Passthrough model;
  CHECK(logits_of(model, samples.x).equal(samples.x.flatten(1)));
  model.set_training(true);
  CHECK(evaluate(model, samples, 3).correct == evaluate_logits(samples.x.flatten(1), samples.y, 3).correct);
}

TEST_CASE("logits keep the order of the samples, in any batches") {
  const Samples samples = random_samples(37, 4);
  Passthrough model;
  CHECK(logits_of(model, samples.x, 8).equal(samples.x.flatten(1)));
  CHECK(logits_of(model, samples.x.narrow(0, 0, 0)).sizes() == at::IntArrayRef({0, 4}));
}

TEST_CASE("evaluation and logits tell their progress once a batch, up to the total") {
  const Samples samples = random_samples(37, 4);
  Passthrough model;
  std::vector<std::int64_t> done;
  const auto note = [&](const Progress& progress) {
    CHECK(progress.total == 37);
    done.push_back(progress.done);
  };
  evaluate(model, samples, 4, 16, {}, note);
  CHECK(done == std::vector<std::int64_t>{16, 32, 37});
  done.clear();
  logits_of(model, samples.x, 16, {}, note);
  CHECK(done == std::vector<std::int64_t>{16, 32, 37});
}

TEST_CASE("evaluation and logits end at the batch after a stop") {
  const Samples samples = random_samples(37, 4);
  Passthrough model;
  std::stop_source stop;
  std::int64_t done = 0;
  const auto stop_after_first = [&](const Progress& progress) {
    done = progress.done;
    stop.request_stop();
  };
  CHECK(test::code_of([&] { evaluate(model, samples, 4, 16, stop.get_token(), stop_after_first); }) ==
        Errc::interrupted);
  CHECK(done == 16);
  stop = std::stop_source();
  CHECK(test::code_of([&] { logits_of(model, samples.x, 8, stop.get_token(), stop_after_first); }) ==
        Errc::interrupted);
  CHECK(done == 8);
}

TEST_CASE("learning and forgetting in closed form; their difference is the gain on a balanced set") {
  const Evaluation before{{4, 2, 0, 0}, {4, 4, 4, 0}, {4, 4, 4, 0}, 0};
  const Evaluation after{{1, 3, 2, 0}, {4, 4, 4, 0}, {2, 4, 6, 0}, 0};
  const Change change = change_between(before, after);
  CHECK(change.learning == doctest::Approx((0.25 + 0.5) / 3));
  CHECK(change.forgetting == doctest::Approx(0.75 / 3));
  CHECK(change.learning - change.forgetting == doctest::Approx(after.accuracy() - before.accuracy()));
  CHECK_THROWS_AS(change_between(before, Evaluation{{1}, {1}, {1}, 0}), Error);
}

}  // namespace headstart::learn
