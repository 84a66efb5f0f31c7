#include <limits>

#include <doctest/doctest.h>

#include "shared/base/files.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

using namespace headstart;
using namespace headstart::learn;
using namespace headstart::test;

namespace {

const nlohmann::json& golden() {
  static const nlohmann::json document = read_json("tests/golden/target_vectors.json");
  return document;
}

DistillOptions options_of(const nlohmann::json& test) {
  return {.temperature = test.at("temperature").get<double>(),
          .average = test.at("average") == "logits" ? TeacherAverage::logits : TeacherAverage::probabilities,
          .standardise = test.at("standardise").get<bool>(),
          .normalise = test.at("normalise").get<bool>()};
}

}  // namespace

TEST_CASE("soft targets beyond equation 6: targets, and the student's gradient, as PyTorch has them") {
  const Tensor teachers = tensor_of(golden().at("teachers"));
  const Tensor weights = tensor_of(golden().at("weights"));
  CHECK(golden().at("cases").size() == 16);
  for (const nlohmann::json& test : golden().at("cases")) {
    CAPTURE(test.at("average").get<std::string>());
    CAPTURE(test.at("standardise").get<bool>());
    const DistillOptions options = options_of(test);
    const Tensor targets = soft_targets(teachers, weights, options);
    CHECK(largest_difference(targets, tensor_of(test.at("targets"))) < golden_tolerance);
    const auto loss = [&](const Tensor& logits) {
      return distillation_objective(logits, guidance(teachers, weights, options), std::nullopt, options);
    };
    CHECK(largest_difference(gradient_of(tensor_of(golden().at("student")), loss), tensor_of(test.at("gradient"))) <
          golden_tolerance);
  }
}

TEST_CASE("soft targets beyond equation 6: the published ones are the default, and one teacher is itself") {
  const Tensor teachers = random_logits({3, 8, 5}, Seed(1));
  const Tensor weights = equal_weights(3, 5);
  CHECK(torch::equal(soft_targets(teachers, weights, DistillOptions{.temperature = 2}),
                     soft_targets(teachers, weights, 2)));
  const Tensor one = teachers.slice(0, 0, 1);
  const DistillOptions logits{.average = TeacherAverage::logits};
  CHECK(largest_difference(soft_targets(one, equal_weights(1, 5), logits), torch::softmax(one[0], 1)) < 1e-12);
  // Standardised logits do not see how sure a teacher is, or where its logits lie.
  CHECK(largest_difference(standardised(teachers * 7 + 3), standardised(teachers)) < 1e-6);
}

TEST_CASE("soft targets beyond equation 6: what logits leave open does not matter, and sure teachers leave no gaps") {
  const Tensor teachers = random_logits({3, 8, 5}, Seed(2));
  const Tensor weights = torch::rand({3, 5}, generator(Seed(3)), torch::kFloat64);
  const Tensor offsets = random_logits({3, 8, 1}, Seed(4));
  for (const TeacherAverage average : {TeacherAverage::probabilities, TeacherAverage::logits}) {
    const DistillOptions options{.average = average};
    CHECK(largest_difference(soft_targets(teachers, weights, options),
                             soft_targets(teachers + offsets, weights, options)) < 1e-12);
  }
  const Tensor sure = torch::tensor({{{0.0F, 20.0F}}});
  const Tensor elsewhere = torch::tensor({{1.0, 0.0}}, torch::kFloat64);
  const Tensor targets = soft_targets(sure, elsewhere, DistillOptions{.temperature = 0.1, .normalise = true});
  CHECK(targets.sum().item<double>() == doctest::Approx(1));
  CHECK(targets[0][1].item<double>() == doctest::Approx(1));
}

TEST_CASE("label prior: divided out of the probabilities, as PyTorch has it; none where answers are even") {
  const Tensor logits = tensor_of(golden().at("teachers"))[0];
  Evaluation rating = Evaluation::of_none(5);
  rating.predicted = golden().at("predicted").get<std::vector<std::int64_t>>();
  rating.total = rating.predicted;
  CHECK(largest_difference(torch::softmax(without_label_prior(logits, rating), 1),
                           tensor_of(golden().at("without_prior"))) < golden_tolerance);
  rating.predicted = rating.total = {12, 12, 12, 12, 12};
  CHECK(largest_difference(torch::softmax(without_label_prior(logits, rating), 1), torch::softmax(logits, 1)) < 1e-12);
  // A teacher that answers with one class whatever it sees no longer prefers it by habit.
  rating.predicted = {60, 0, 0, 0, 0};
  rating.total = {12, 12, 12, 12, 12};
  CHECK((torch::softmax(without_label_prior(logits, rating), 1).select(1, 0) < torch::softmax(logits, 1).select(1, 0))
            .all()
            .item<bool>());
}

TEST_CASE("teachers whose logits are not finite drop out; by class, the others count for as much as all did") {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  constexpr double none = std::numeric_limits<double>::quiet_NaN();
  const Tensor logits =
      torch::tensor({{{1.0, 2.0, 3.0}}, {{0.5, none, 0.0}}, {{3.0, 1.0, 0.0}}, {{0.0, infinite, 0.0}}}, torch::kDouble);
  const Tensor weights =
      torch::tensor({{0.1, 0.0, 0.4}, {0.2, 0.5, 0.3}, {0.3, 0.0, 0.1}, {0.4, 0.5, 0.2}}, torch::kDouble);
  const SoundTeachers sound = sound_teachers(logits, weights);
  CHECK(sound.dropped == std::vector<std::int64_t>{1, 3});
  CHECK(at::equal(sound.logits, torch::stack({logits[0], logits[2]})));
  CHECK(largest_difference(sound.weights, torch::tensor({{0.25, 0.5, 0.8}, {0.75, 0.5, 0.2}}, torch::kDouble)) < 1e-15);
  const SoundTeachers all = sound_teachers(logits.index({torch::tensor({0, 2})}), weights.narrow(0, 0, 2));
  CHECK(all.dropped.empty());
  CHECK(at::equal(all.weights, weights.narrow(0, 0, 2)));
  CHECK(code_of([&] { sound_teachers(logits.narrow(0, 1, 1), weights.narrow(0, 1, 1)); }) == Errc::run_failed);
}
