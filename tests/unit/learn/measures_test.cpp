#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

using namespace headstart;
using namespace headstart::learn;
using namespace headstart::test;

namespace {

constexpr double vector_tolerance = 1e-12;

TeacherAverage average_of(const nlohmann::json& word) {
  for (const auto& [average, text] : average_words) {
    if (text == word.get<std::string>()) return average;
  }
  FAIL("no average of this name");
  return TeacherAverage::none;
}

const std::vector<std::string>& measures_of_two() {
  static const std::vector<std::string> words = {"ce", "kl", "js", "sed", "td"};
  return words;
}

/// [B] of `measure` between the student's logits and one target.
Tensor between(const std::string& measure, const Tensor& logits, const Tensor& q) {
  return dissimilarity_named(measure).to_one(torch::log_softmax(logits, 1), q);
}

double value_between(const std::string& measure, const Tensor& logits, const Tensor& q) {
  return between(measure, logits, q).mean().item<double>();
}

/// The gradient of the distillation term of one batch.
Tensor term_gradient(const Tensor& student, const Tensor& teachers, const DistillOptions& options) {
  const Guidance guided = guidance(teachers, equal_weights(teachers.size(0), teachers.size(2)), options);
  return gradient_of(student, [&](const Tensor& logits) { return distillation_term(logits, guided, options); });
}

}  // namespace

TEST_CASE("measures: values and gradients of the definitions, of one teacher and of two") {
  const nlohmann::json golden = read_json("tests/golden/measure_vectors.json");
  REQUIRE(golden.at("cases").size() == 6);
  for (const nlohmann::json& test : golden.at("cases")) {
    CAPTURE(test.at("name").get<std::string>());
    const Tensor student = tensor_of(test.at("student"));
    const Tensor teachers = tensor_of(test.at("teachers"));
    for (const nlohmann::json& expected : test.at("results")) {
      DistillOptions options{.measure = expected.at("measure"), .temperature = test.at("temperature")};
      options.scale_by_t2 = false;
      options.average = average_of(expected.at("average"));
      CAPTURE(options.measure);
      CAPTURE(expected.at("average").get<std::string>());
      const Guidance guided = guidance(teachers, equal_weights(teachers.size(0), teachers.size(2)), options);
      const double value = distillation_term(student, guided, options).item<double>();
      CHECK(std::abs(value - expected.at("value").get<double>()) < vector_tolerance);
      CHECK(largest_difference(term_gradient(student, teachers, options), tensor_of(expected.at("gradient"))) <
            vector_tolerance);
      if (!test.contains("labels")) continue;
      options.alpha = test.at("alpha");
      const Tensor labels = torch::tensor(test.at("labels").get<std::vector<std::int64_t>>());
      for (const auto& [reduction, key] :
           {std::pair{BatchReduction::mean, "objective"}, std::pair{BatchReduction::published, "published"}}) {
        options.reduction = reduction;
        const double objective = distillation_objective(student, guided, labels, options).item<double>();
        CHECK(std::abs(objective - expected.at(key).get<double>()) < vector_tolerance);
      }
    }
  }
}

TEST_CASE("measures: identities between them, at any student and target") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Tensor student = random_logits({50, 7}, Seed(seed).child("student"));
    const Tensor q = torch::softmax(random_logits({50, 7}, Seed(seed).child("teacher")), 1);
    const auto gradient = [&](const std::string& measure) {
      return gradient_of(student, [&](const Tensor& logits) { return between(measure, logits, q).sum(); });
    };
    const Tensor js = between("js", student, q);
    const Tensor td = between("td", student, q);
    CHECK(largest_difference(gradient("ce"), gradient("kl")) < 1e-13);
    CHECK(largest_difference(between("sed", student, q), at::expm1(js)) < 1e-13);
    CHECK(largest_difference(gradient("sed"), at::exp(js).unsqueeze(1) * gradient("js")) < 1e-13);
    CHECK((td / 2 <= js + 1e-14).all().item<bool>());
    CHECK((js <= std::log(2) * td + 1e-14).all().item<bool>());
    const Tensor itself = torch::softmax(student, 1);
    for (const char* measure : {"kl", "js", "sed", "td"}) {
      CHECK(between(measure, student, itself).abs().max().item<double>() < 1e-13);
    }
    const Tensor msed = multiway_entropic_measure.to_all(torch::log_softmax(student, 1), q.unsqueeze(0));
    CHECK(largest_difference(msed, between("sed", student, q)) < 1e-13);
  }
}

TEST_CASE("measures: of distributions that share no class, the bounds of the bounded ones") {
  const double inf = std::numeric_limits<double>::infinity();
  const Tensor q = torch::tensor({{0.25, 0.75, 0.0, 0.0}}, torch::kFloat64);
  // So far below the others that it is nothing in double, and finite.
  const Tensor student = torch::tensor({{-2000.0, -2000.0, 1.0, 0.5}}, torch::kFloat64);
  CHECK(value_between("js", student, q) == doctest::Approx(std::log(2)).epsilon(1e-14));
  CHECK(value_between("sed", student, q) == doctest::Approx(1).epsilon(1e-14));
  CHECK(value_between("td", student, q) == doctest::Approx(1).epsilon(1e-14));
  CHECK(value_between("kl", student, q) > 1000);
  CHECK(value_between("kl", student, q) < inf);
  // ce and kl pull with all their strength where the student is sure of something else; the others let it be.
  for (const std::string& measure : measures_of_two()) {
    CAPTURE(measure);
    const Tensor pull = gradient_of(student, [&](const Tensor& logits) { return between(measure, logits, q).sum(); });
    const double largest = pull.abs().max().item<double>();
    CHECK((measure == "ce" || measure == "kl" ? largest > 0.6 : largest < 1e-12));
  }
}

TEST_CASE("measures: matched, all are as strong as kl near the teachers; plain, each by its own factor") {
  const Tensor teacher = random_logits({30, 6}, Seed(1), 1);
  const Tensor student = teacher + 1e-4 * random_logits({30, 6}, Seed(2), 1);
  for (const std::int64_t num_teachers : {1, 3}) {
    const Tensor teachers = teacher.unsqueeze(0).repeat({num_teachers, 1, 1});
    const Tensor kl = term_gradient(student, teachers, {.measure = "kl"});
    const double scale = kl.abs().max().item<double>();
    for (const Dissimilarity* row : dissimilarities()) {
      CAPTURE(row->name);
      DistillOptions options{.measure = std::string(row->name)};
      if (row->to_all != nullptr) options.average = TeacherAverage::none;
      const Tensor plain = term_gradient(student, teachers, options);
      options.strength = MeasureStrength::matched;
      const Tensor matched = term_gradient(student, teachers, options);
      CHECK(largest_difference(matched, kl) < 1e-3 * scale);
      CHECK(largest_difference(matched, plain * row->matched(num_teachers)) < 1e-12 * scale);
    }
  }
  CHECK(triangular_measure.matched(1) == 2);
  CHECK(jensen_shannon_measure.matched(1) == 4);
  CHECK(multiway_entropic_measure.matched(1) == 4);
}

TEST_CASE("measures: the sum over teachers is the average with their number as weight for ce and kl, for no other") {
  const Tensor student = random_logits({40, 5}, Seed(1));
  const Tensor teachers = random_logits({3, 40, 5}, Seed(2));
  for (const std::string& measure : measures_of_two()) {
    CAPTURE(measure);
    DistillOptions options{.measure = measure, .temperature = 2};
    const Tensor average = term_gradient(student, teachers, options);
    options.average = TeacherAverage::none;
    const Tensor sum = term_gradient(student, teachers, options);
    Tensor each = torch::zeros_like(sum);
    for (std::int64_t k = 0; k < 3; ++k) each += term_gradient(student, teachers.slice(0, k, k + 1), options);
    CHECK(largest_difference(sum, each) < 1e-14);
    const bool is_linear = measure == "ce" || measure == "kl";
    CHECK((largest_difference(sum, 3 * average) < 1e-14) == is_linear);
    CHECK(dissimilarity_named(measure).is_linear == is_linear);
  }
  // With labels: the sum at alpha is the average at alpha K / S with S = 1 - alpha + alpha K times the step.
  const Tensor labels = torch::arange(40, torch::kInt64) % 5;
  const double alpha = 0.3;
  const double stretch = 1 - alpha + 3 * alpha;
  const auto gradient = [&](const DistillOptions& options) {
    const Guidance guided = guidance(teachers, equal_weights(3, 5), options);
    return gradient_of(student,
                       [&](const Tensor& logits) { return distillation_objective(logits, guided, labels, options); });
  };
  const Tensor summed = gradient({.measure = "kl", .alpha = alpha, .average = TeacherAverage::none});
  CHECK(largest_difference(summed, stretch * gradient({.measure = "kl", .alpha = 3 * alpha / stretch})) < 1e-14);
}

TEST_CASE("measures: the sum of KL is K times that to the average and the teachers' own spread") {
  const Tensor student = random_logits({9, 4}, Seed(3));
  const Tensor teachers = random_logits({4, 9, 4}, Seed(4));
  const Tensor q = torch::softmax(teachers, 2);
  const Tensor mean = q.mean(0);
  const double spread = (at::xlogy(q, q).sum(2).mean(0) - at::xlogy(mean, mean).sum(1)).mean().item<double>();
  double sum = 0;
  for (std::int64_t k = 0; k < 4; ++k) sum += value_between("kl", student, q[k]);
  CHECK(sum == doctest::Approx(4 * value_between("kl", student, mean) + 4 * spread).epsilon(1e-13));
}

TEST_CASE("measures: the mean of logits is the answer that is nearest to all teachers, by KL from it to them") {
  const Tensor teachers = random_logits({3, 1, 5}, Seed(5));
  const auto distance = [&](const Tensor& logits) {
    const Tensor log_p = torch::log_softmax(logits, 1);
    return (log_p.exp() * (log_p - torch::log_softmax(teachers, 2))).sum();
  };
  const DistillOptions options{.average = TeacherAverage::logits};
  const Tensor target = guidance(teachers, equal_weights(3, 5), options).targets;
  CHECK(gradient_of(target.log(), distance).abs().max().item<double>() < 1e-13);
}

TEST_CASE("measures: float32 logits that lie 200 apart give finite values and gradients") {
  const Tensor sure = torch::tensor({{200.0F, 0.0F, 0.0F}, {0.0F, 0.0F, 200.0F}, {-100.0F, 100.0F, 0.0F}});
  const Tensor others = torch::tensor({{0.0F, 200.0F, 0.0F}, {0.0F, 200.0F, 0.0F}, {0.0F, 0.0F, 0.0F}});
  for (const Dissimilarity* row : dissimilarities()) {
    for (const auto& [average, word] : average_words) {
      if (row->to_all != nullptr && average != TeacherAverage::none) continue;
      CAPTURE(row->name);
      CAPTURE(word);
      for (const std::vector<Tensor>& teachers : {std::vector{sure}, {others}, {sure, others}}) {
        const DistillOptions options{.measure = std::string(row->name), .average = average};
        const Tensor gradient = term_gradient(sure, torch::stack(teachers), options);
        CHECK((gradient.scalar_type() == torch::kFloat32));
        CHECK(at::isfinite(gradient).all().item<bool>());
        const Guidance guided = guidance(torch::stack(teachers), equal_weights(std::ssize(teachers), 3), options);
        CHECK(std::isfinite(distillation_term(sure, guided, options).item<double>()));
      }
    }
  }
  const Tensor student = sure.slice(0, 0, 1);
  const Tensor disjoint = torch::softmax(others.slice(0, 0, 1), 1);
  CHECK(value_between("js", student, disjoint) == doctest::Approx(std::log(2)).epsilon(1e-6));
  CHECK(value_between("sed", student, disjoint) == doctest::Approx(1).epsilon(1e-6));
  CHECK(value_between("td", student, disjoint) == doctest::Approx(1).epsilon(1e-6));
  for (const char* measure : {"kl", "js", "sed", "td"}) {
    CHECK(std::abs(value_between(measure, student, torch::softmax(student, 1))) < 1e-6);
  }
}

TEST_CASE("guidance: kept as one target where the measure allows it, else as one a teacher") {
  const Tensor teachers = random_logits({3, 8, 5}, Seed(1));
  const Tensor weights = torch::rand({3, 5}, generator(Seed(2)), torch::kFloat64);
  const auto of = [&](const std::string& measure, TeacherAverage average, const Tensor& counts) {
    return guidance(teachers, counts, {.measure = measure, .temperature = 2, .average = average});
  };
  // Equation 6 as it is, class weights that do not sum to 1 included.
  const Guidance published = of("ce", TeacherAverage::probabilities, weights);
  CHECK(torch::equal(published.targets, soft_targets(teachers, weights, 2)));
  CHECK(published.factor == 1);
  const Guidance sum = of("kl", TeacherAverage::none, weights);
  CHECK(torch::equal(sum.targets, published.targets));
  CHECK(sum.factor == 3);
  // Distances between distributions need distributions.
  const Guidance normalised = of("js", TeacherAverage::probabilities, weights);
  CHECK(normalised.targets.dim() == 2);
  CHECK(largest_difference(normalised.targets.sum(1), torch::ones({8})) < 1e-14);
  const Guidance apart = of("js", TeacherAverage::none, equal_weights(3, 5));
  CHECK(torch::equal(apart.targets, torch::softmax(teachers / 2, 2)));
  CHECK(apart.size() == 8);
  CHECK(
      torch::equal(apart.select(torch::tensor({5, 2})).targets, apart.targets.index_select(1, torch::tensor({5, 2}))));
  CHECK(code_of([&] { of("js", TeacherAverage::none, weights); }) == Errc::internal);
  CHECK(code_of([&] { of("jss", TeacherAverage::none, weights); }) == Errc::usage);
}

TEST_CASE("distillation settings: what excludes each other is refused in a sentence with the keys") {
  const auto refused = [](const DistillOptions& options, bool has_equal_weights = true) {
    return code_of([&] { check(options, "kd", has_equal_weights, "weights must be equal"); }) == Errc::usage;
  };
  CHECK_NOTHROW(check({}, "kd", false));
  CHECK_NOTHROW(check({.measure = "kl", .average = TeacherAverage::none}, "kd", false));
  CHECK_NOTHROW(check({.measure = "msed", .average = TeacherAverage::none}, "kd"));
  CHECK(refused({.measure = "msed"}));
  CHECK(refused({.average = TeacherAverage::none, .normalise = true}));
  CHECK(refused({.measure = "td", .average = TeacherAverage::none}, false));
  CHECK(refused({.measure = "l2"}));
  CHECK(error_of([&] { check({.measure = "js", .average = TeacherAverage::none}, "kd", false, "so"); }) ==
        "kd.average=none with kd.measure=js cannot weigh teachers by class: so");
  DistillOptions options;
  Fields fields;
  declare_fields(fields, "kd", options);
  fields.set("kd.measure=sed");
  fields.set("kd.strength=matched");
  fields.set("kd.reduction=published");
  fields.set("kd.average=none");
  CHECK(options.measure == "sed");
  CHECK((options.strength == MeasureStrength::matched));
  CHECK((options.reduction == BatchReduction::published));
  CHECK((options.average == TeacherAverage::none));
  CHECK(code_of([&] { fields.set("kd.measure=cosine"); }) == Errc::usage);
}

namespace {

/// Two teachers that know the task, and what a student makes of them.
struct TwoTeachers {
  Samples transfer = separable_samples(192, Seed(2));
  Tensor logits;

  TwoTeachers() {
    std::vector<Tensor> answers;
    for (const std::uint64_t seed : {7, 8}) {
      const auto teacher = make_model(small_spec(Norm::none), small_task, Seed(seed));
      const Samples own = separable_samples(240, Seed(seed));
      const TrainOptions options{.optimizer = {.kind = OptimizerKind::adam, .lr = 5e-3}, .epochs = 6, .batch_size = 16};
      train(*teacher, own, options, epoch_orders(own.size(), options.epochs, Seed(3)));
      answers.push_back(logits_of(*teacher, transfer.x));
    }
    logits = torch::stack(answers);
  }

  [[nodiscard]] StateDict student(const Guidance& guided, const DistillOptions& options, bool has_labels) const {
    const auto model = make_model(small_spec(Norm::none), small_task, Seed(20));
    distill(*model, has_labels ? transfer : transfer.without_labels(), guided, options, Seed(9));
    return model->state();
  }
  [[nodiscard]] StateDict student(const DistillOptions& options, bool has_labels = false) const {
    return student(guidance(logits, equal_weights(2, 4), options), options, has_labels);
  }
};

double accuracy_of(const StateDict& state) {
  const auto model = make_model(small_spec(Norm::none), small_task, Seed(20));
  model->load(state);
  return evaluate(*model, separable_samples(400, Seed(5)), 4).accuracy();
}

double apart(const StateDict& a, const StateDict& b) {
  double largest = 0;
  for (const NamedTensor& named : a.tensors()) {
    largest = std::max(largest, largest_difference(named.tensor, b.at(named.name)));
  }
  return largest;
}

DistillOptions quick(const std::string& measure, TeacherAverage average = TeacherAverage::probabilities) {
  DistillOptions options{.measure = measure, .temperature = 2, .average = average, .epochs = 12, .batch_size = 16};
  options.strength = MeasureStrength::matched;
  options.optimizer.lr = 5e-3;
  return options;
}

}  // namespace

TEST_CASE("distill: every measure, with every way to take the teachers together, teaches an untrained student") {
  const TwoTeachers teachers;
  for (const Dissimilarity* row : dissimilarities()) {
    for (const auto& [average, word] : average_words) {
      if (row->to_all != nullptr && average != TeacherAverage::none) continue;
      CAPTURE(row->name);
      CAPTURE(word);
      CHECK(accuracy_of(teachers.student(quick(std::string(row->name), average))) > 0.9);
    }
  }
}

TEST_CASE("distill: ce and kl give the same model, up to rounding; js gives another") {
  const TwoTeachers teachers;
  const StateDict by_ce = teachers.student(quick("ce"), true);
  CHECK(apart(by_ce, teachers.student(quick("kl"), true)) < 1e-5);
  CHECK(apart(by_ce, teachers.student(quick("js"), true)) > 1e-3);
}

TEST_CASE("distill: published reductions take the steps of another alpha, rate and decay, on full batches") {
  const TwoTeachers teachers;
  DistillOptions published = quick("js");
  published.temperature = 1;
  published.alpha = 0.3;
  published.reduction = BatchReduction::published;
  published.batch_size = teachers.transfer.size();
  published.optimizer = {.kind = OptimizerKind::sgd, .lr = 1e-3, .momentum = 0.9, .weight_decay = 1e-2};
  const auto batch = static_cast<double>(published.batch_size);
  const double stretch = 1 - published.alpha + published.alpha * batch;
  DistillOptions same = published;
  same.reduction = BatchReduction::mean;
  same.alpha = published.alpha * batch / stretch;
  same.optimizer.lr *= stretch;
  same.optimizer.weight_decay /= stretch;
  const StateDict one = teachers.student(published, true);
  const StateDict start = make_model(small_spec(Norm::none), small_task, Seed(20))->state();
  CHECK(apart(one, teachers.student(same, true)) < 1e-4);
  CHECK(apart(one, start) > 1e-2);
}

namespace {

/// Half the squared distance of the probabilities: a measure that the library does not have.
const Dissimilarity toy{
    .name = "brier",
    .words = "half the squared distance",
    .to_one = [](const Tensor& log_p, const Tensor& q) { return at::square(log_p.exp() - q).sum(1) / 2; },
    .matched = [](std::int64_t) { return 8.0; }};

}  // namespace

TEST_CASE("distill: a measure that is no row of the table serves as well") {
  const TwoTeachers teachers;
  for (const TeacherAverage average : {TeacherAverage::probabilities, TeacherAverage::none}) {
    const DistillOptions options = quick("ce", average);
    const Guidance guided = guidance(teachers.logits, equal_weights(2, 4), options, toy);
    CHECK(guided.targets.dim() == (average == TeacherAverage::none ? 3 : 2));
    CHECK(accuracy_of(teachers.student(guided, options, false)) > 0.9);
  }
}
