// Measures of classifiers: against scikit-learn, as sums over parts, and as what decides between models.

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/metrics/metric.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {
namespace {

constexpr double tolerance = 1e-9;
const std::vector<std::string> cats_and_dogs = {"cat", "dog"};

struct GoldenCase {
  explicit GoldenCase(const nlohmann::json& json)
      : document(json), labels(torch::tensor(json.at("labels").get<std::vector<std::int64_t>>(), torch::kLong)) {
    std::vector<double> flat;
    for (const auto& row : json.at("logits")) {
      for (const auto& logit : row) flat.push_back(logit.get<double>());
    }
    num_classes = std::ssize(json.at("logits").front());
    logits = torch::tensor(flat, torch::kFloat64).view({-1, num_classes});
  }
  [[nodiscard]] Evaluation evaluation(Measures measures) const {
    return evaluate_logits(logits, labels, num_classes, measures);
  }

  nlohmann::json document;
  std::int64_t num_classes = 0;
  Tensor logits, labels;
};

double value_of(const std::string& metric, const Evaluation& evaluation) {
  std::vector<std::string> names;
  for (std::size_t c = 0; c < evaluation.total.size(); ++c) names.push_back(std::to_string(c));
  return metric_of(metric, names).value(evaluation).value();
}

/// All of one class of two right, and so many of the other.
Evaluation rare(std::int64_t right_of_rare, std::int64_t right_of_common) {
  return {.correct = {right_of_common, right_of_rare},
          .total = {965, 35},
          .predicted = {right_of_common + 35 - right_of_rare, right_of_rare + 965 - right_of_common},
          .loss_sum = 300};
}

TEST_CASE("measures of classifiers are those of scikit-learn") {
  for (const auto& json : read_json("tests/golden/metric_vectors.json")) {
    const GoldenCase golden(json);
    CAPTURE(golden.document.at("name").get<std::string>());
    const Evaluation exact = golden.evaluation(Measures::exact);
    const auto expect = [&](const char* metric, const char* key) {
      CHECK(std::abs(value_of(metric, exact) - json.at(key).get<double>()) < tolerance);
    };
    expect("accuracy", "accuracy");
    expect("balanced_accuracy", "balanced_accuracy");
    expect("f1", "f1_mean");
    expect("auc", "auc_mean");
    expect("log_loss", "log_loss");
    expect("calibration_error", "calibration_error");
    for (std::int64_t c = 0; c < golden.num_classes; ++c) {
      const auto place = static_cast<std::size_t>(c);
      // scikit-learn gives 0 where a measure is not defined.
      CHECK(std::abs(class_metric(MetricKind::recall, exact, c).value_or(0) - json["recall"][place].get<double>()) <
            tolerance);
      CHECK(std::abs(class_metric(MetricKind::precision, exact, c).value_or(0) -
                     json["precision"][place].get<double>()) < tolerance);
      CHECK(std::abs(class_metric(MetricKind::f1, exact, c).value_or(0) - json["f1"][place].get<double>()) < tolerance);
      const std::optional<double> area = class_metric(MetricKind::auc, exact, c);
      REQUIRE(area.has_value() != json["auc"][place].is_null());
      if (area) CHECK(std::abs(*area - json["auc"][place].get<double>()) < tolerance);
      for (std::int64_t answer = 0; answer < golden.num_classes; ++answer) {
        CHECK(exact.scores->confusion[static_cast<std::size_t>(c * golden.num_classes + answer)] ==
              json["confusion"][place][static_cast<std::size_t>(answer)].get<std::int64_t>());
      }
    }
  }
}

TEST_CASE("AUC from bins is off by no more than it says, and says something") {
  for (const auto& json : read_json("tests/golden/metric_vectors.json")) {
    const GoldenCase golden(json);
    const Evaluation binned = golden.evaluation(Measures::scores);
    CHECK(binned.exact_auc.empty());
    ScoreCounts coarse = *binned.scores;
    double last_error = 0;
    for (int halvings = 0; halvings < 7; ++halvings) {
      for (std::int64_t c = 0; c < golden.num_classes; ++c) {
        const std::optional<RocArea> area = coarse.auc(c);
        const auto& expected = json["auc"][static_cast<std::size_t>(c)];
        REQUIRE(area.has_value() != expected.is_null());
        if (!area) continue;
        CHECK(std::abs(area->value - expected.get<double>()) <= area->error + tolerance);
        if (c == 0) {
          CHECK(area->error >= last_error);
          last_error = area->error;
        }
      }
      coarse.coarsen();
    }
    CHECK(last_error > 0);
    CHECK(mean_auc_error(binned).value() < 0.02);
  }
}

TEST_CASE("score counts of parts add up to those of the whole, bit by bit") {
  for (const auto& json : read_json("tests/golden/metric_vectors.json")) {
    const GoldenCase golden(json);
    const Evaluation whole = golden.evaluation(Measures::scores);
    for (std::uint64_t split = 0; split < 3; ++split) {
      const Tensor order = permutation(golden.labels.size(0), Seed(split));
      Evaluation sum = Evaluation::of_none(golden.num_classes);
      // Silos of very different size, one of them with a single sample.
      std::int64_t begin = 0;
      for (const std::int64_t size : {std::int64_t{1}, std::int64_t{17}, golden.labels.size(0) - 18}) {
        const Tensor part = order.narrow(0, begin, size);
        sum += evaluate_logits(golden.logits.index_select(0, part), golden.labels.index_select(0, part),
                               golden.num_classes, Measures::scores);
        begin += size;
      }
      CHECK((sum.scores == whole.scores));
      CHECK(sum.predicted == whole.predicted);
    }
  }
}

TEST_CASE("score counts of fewer bins join those of more, and a part without them leaves none") {
  const GoldenCase golden(read_json("tests/golden/metric_vectors.json").front());
  const Evaluation whole = golden.evaluation(Measures::exact);
  Evaluation coarse = whole;
  coarse.scores->coarsen();
  for (const bool coarse_first : {true, false}) {
    Evaluation sum = coarse_first ? coarse : whole;
    sum += coarse_first ? whole : coarse;
    CHECK(sum.scores->num_bins() == whole.scores->num_bins() / 2);
    CHECK(sum.scores->auc(0)->value == doctest::Approx(coarse.scores->auc(0)->value));
    CHECK(sum.exact_auc.empty());  // the order of two sets together is neither's
  }
  Evaluation with_nothing = Evaluation::of_none(golden.num_classes);
  with_nothing += whole;
  with_nothing += Evaluation::of_none(golden.num_classes);
  CHECK((with_nothing.scores == whole.scores));
  CHECK((with_nothing.exact_auc == whole.exact_auc));
  Evaluation with_plain = whole;
  with_plain += golden.evaluation(Measures::counts);
  CHECK_FALSE(with_plain.scores.has_value());
  CHECK_FALSE(metric_of("auc", cats_and_dogs).value(with_plain).has_value());
}

TEST_CASE("scores order samples whose probabilities round to 1, and equal differences are ties") {
  // Probabilities 1 - 1e-22 and 1 - 1e-26, both 1 in double precision.
  const Tensor logits = torch::tensor({{60.0, 10.0}, {70.0, 10.0}, {1060.0, 1010.0}, {0.0, 5.0}}, torch::kFloat64);
  const Tensor labels = torch::tensor({1, 0, 0, 1}, torch::kLong);
  const Evaluation evaluation = evaluate_logits(logits, labels, 2, Measures::exact);
  // Of four pairs one is a tie.
  CHECK(class_metric(MetricKind::auc, evaluation, 0).value() == 3.5 / 4);
  CHECK(class_metric(MetricKind::auc, evaluation, 1).value() == 3.5 / 4);
}

TEST_CASE("a model that diverged is counted, and no better than a guess") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor logits = torch::full({6, 3}, nan, torch::kFloat64);
  const Evaluation evaluation =
      evaluate_logits(logits, torch::tensor({0, 1, 2, 0, 1, 2}, torch::kLong), 3, Measures::exact);
  CHECK(value_of("auc", evaluation) == 0.5);
  CHECK(evaluation.scores->auc(1)->value == 0.5);
  CHECK(evaluation.scores->auc(1)->error == 0.5);
  CHECK(std::isinf(value_of("log_loss", evaluation)));
  CHECK(metric_of("log_loss", cats_and_dogs).score(evaluation) == 0);
}

TEST_CASE("scores of more classes than are counted are left aside") {
  const Tensor logits = torch::randn({5, max_scored_classes + 1}, generator(Seed(3)), torch::kFloat64);
  const Evaluation evaluation =
      evaluate_logits(logits, torch::zeros({5}, torch::kLong), max_scored_classes + 1, Measures::exact);
  CHECK_FALSE(evaluation.scores.has_value());
  CHECK(evaluation.exact_auc.empty());
  CHECK(num_score_bins(2) == 256);
  CHECK(num_score_bins(17) == 128);
  CHECK(num_score_bins(max_scored_classes) == 64);
}

TEST_CASE("with 96.5% of one class, accuracy prefers the model that never finds the other") {
  const Evaluation lazy = rare(0, 965);      // all are taken for the common class
  const Evaluation careful = rare(28, 900);  // finds 80% of the rare one, and is wrong more often
  CHECK(lazy.accuracy() == 0.965);
  CHECK(Metric{}.is_better(lazy, careful));
  for (const char* metric : {"balanced_accuracy", "f1", "recall:dog", "f1:dog", "precision:dog", "precision:1"}) {
    CAPTURE(metric);
    CHECK(metric_of(metric, cats_and_dogs).is_better(careful, lazy));
    CHECK_FALSE(metric_of(metric, cats_and_dogs).is_better(lazy, careful));
  }
  CHECK(metric_of("recall:dog", cats_and_dogs).value(careful) == 0.8);
  CHECK(metric_of("recall:dog", cats_and_dogs).gain(careful, lazy) == 0.8);
}

TEST_CASE("costs are better where they are lower, and equals go by the loss") {
  Evaluation low = rare(20, 900);
  Evaluation high = low;
  high.loss_sum = 400;
  const Metric loss = metric_of("log_loss", cats_and_dogs);
  CHECK(loss.is_better(low, high));
  CHECK_FALSE(loss.is_better(low, low));
  CHECK(loss.gain(low, high) == doctest::Approx(0.1));
  CHECK(metric_of("recall:cat", cats_and_dogs).is_better(low, high));
  CHECK(Metric{}.is_better(low, high));
  const Metric calibration = metric_of("calibration_error", cats_and_dogs);
  CHECK(calibration.score(low) == 0);  // nothing was counted
  low.scores = high.scores = ScoreCounts::of_none(2);
  for (auto* evaluation : {&low, &high}) {
    evaluation->scores->answers[14] = 1000;
    evaluation->scores->right[14] = 920;
    evaluation->scores->confidence[14] = std::int64_t{evaluation == &low ? 940 : 990} << confidence_fraction_bits;
  }
  CHECK(calibration.value(low).value() == doctest::Approx(0.02));
  CHECK(calibration.is_better(low, high));
  CHECK(calibration.gain(high, low) == doctest::Approx(-0.05));
}

TEST_CASE("what cannot be measured is no value, and no reason to prefer a model") {
  Evaluation without_dogs{.correct = {4, 0}, .total = {5, 0}, .predicted = {5, 0}, .loss_sum = 1};
  for (const char* metric : {"recall:dog", "precision:dog", "f1:dog", "auc:dog", "auc", "calibration_error"}) {
    CAPTURE(metric);
    CHECK_FALSE(metric_of(metric, cats_and_dogs).value(without_dogs).has_value());
    CHECK(metric_of(metric, cats_and_dogs).score(without_dogs) == 0);
  }
  CHECK(metric_of("balanced_accuracy", cats_and_dogs).value(without_dogs) == 0.8);
  CHECK_FALSE(Metric{}.value(Evaluation::of_none(2)).has_value());
}

TEST_CASE("a metric is a word, and a class where it is of one") {
  const auto refusal = [](const char* text) {
    return test::error_of(Errc::usage, [&] { (void)metric_of(text, cats_and_dogs); });
  };
  for (const char* text : {"accuracy", "balanced_accuracy", "f1", "auc", "log_loss", "calibration_error", "recall:1",
                           "precision:0", "f1:1", "auc:0"}) {
    CHECK(metric_of(text, cats_and_dogs).text() == text);
  }
  CHECK(metric_of("recall:dog", cats_and_dogs).text() == "recall:1");
  CHECK(metric_of("auc:1", {"1", "a:b", "0"}).of_class == 0);  // names come before numbers
  CHECK(metric_of("auc:a:b", {"1", "a:b", "0"}).of_class == 1);
  CHECK(refusal("AUC").find("'AUC' is no metric: accuracy, balanced_accuracy, f1, auc, log_loss and "
                            "calibration_error are, and recall:CLASS") != std::string::npos);
  CHECK(refusal("recall").find("name the class, recall:CLASS") != std::string::npos);
  CHECK(refusal("f1:").find("name the class, f1:CLASS") != std::string::npos);
  CHECK(refusal("accuracy:dog").find("accuracy is of all classes") != std::string::npos);
  for (const char* text : {"recall:cow", "recall:2", "recall:-1", "recall:1x", "recall:99999999999999999999"}) {
    CHECK(refusal(text).find("there is no class '" + std::string(text).substr(7) + "'; name one of the 2 classes") !=
          std::string::npos);
  }
  const std::vector<std::string> many(static_cast<std::size_t>(max_scored_classes) + 1, "x");
  CHECK(test::error_of(Errc::usage, [&] { (void)metric_of("auc", many); }).find("at most 64 classes; there are 65") !=
        std::string::npos);
  CHECK(metric_of("f1", many).kind == MetricKind::f1);
}

TEST_CASE("metrics of silos' own are the mean by weight of those that have them") {
  Evaluation sum = Evaluation::of_none(2);
  Evaluation silo = Evaluation::of_none(2);
  silo.own = {{"dice", {0.5, 30}}, {"hausdorff", {12, 1}}};
  sum += silo;
  silo.own = {{"dice", {0.9, 10}}};
  sum += silo;
  silo.own = {{"dice", {7, 0}}};
  sum += silo;
  CHECK(sum.own.at("dice").value == doctest::Approx(0.6));
  CHECK(sum.own.at("dice").weight == 40);
  CHECK(sum.own.at("hausdorff").value == 12);
}

}  // namespace
}  // namespace headstart::learn
