#include "shared/plan/tasks.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/plan/terms.hpp"
#include "shared/wire/messages.hpp"
#include "tests/support/throws.hpp"

namespace headstart::plan {
namespace {

TEST_CASE("settings and figures arrive as they were sent, doubles to the last bit") {
  const TrainSettings train = train_settings_from_json_text(to_json_text(TrainSettings{7, 5}));
  CHECK(train.round == 7);
  CHECK(train.counted_round == 5);
  const learn::KdSetting setting{0.1 + 0.2, 1.0 / 3};
  CHECK(kd_setting_from_json_text(to_json_text(setting)) == setting);
  const Pretraining done = pretraining_from_json_text(to_json_text(Pretraining{true, 12.345678901234567, 15, 4}));
  CHECK(done.is_reused);
  CHECK(done.seconds == 12.345678901234567);
  CHECK(done.num_epochs == 15);
  CHECK(done.best_epoch == 4);
  const learn::Evaluation counts{{8, 9}, {10, 10}, {9, 11}, 1.0 / 7};
  const learn::Evaluation read = evaluation_from_json_text(to_json_text(counts), 2, 20);
  CHECK(read.correct == counts.correct);
  CHECK(read.total == counts.total);
  CHECK(read.predicted == counts.predicted);
  CHECK(read.loss_sum == counts.loss_sum);
}

TEST_CASE("figures of a description are of samples that the client has") {
  const DescribeFigures read = describe_figures_from_json_text(to_json_text(DescribeFigures{40, true}), 40);
  CHECK(read.num_samples == 40);
  CHECK(read.has_range);
  CHECK_FALSE(describe_figures_from_json_text(to_json_text(DescribeFigures{}), 40).has_range);
  const auto refusal = [](const char* text) {
    return test::error_of(Errc::protocol, [&] { (void)describe_figures_from_json_text(text, 40); });
  };
  CHECK(refusal(R"({"samples": 41, "range": true})").find("'samples'") != std::string::npos);
  CHECK(refusal(R"({"samples": 40})").find("'range' is missing") != std::string::npos);
}

TEST_CASE("the loss of a model that diverged arrives as infinite") {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  CHECK(evaluation_from_json_text(to_json_text(learn::Evaluation{{1}, {2}, {2}, infinite}), 1, 2).loss_sum == infinite);
}

TEST_CASE("counts that cannot be are refused") {
  const auto refusal = [](const nlohmann::json& change, std::uint64_t num_held_out = 6) {
    nlohmann::json figures = {{"correct", {2, 2}}, {"total", {3, 3}}, {"predicted", {2, 4}}, {"loss_sum", 1.5}};
    figures.update(change);
    return test::error_of(Errc::protocol, [&] { (void)evaluation_from_json_text(figures.dump(), 2, num_held_out); });
  };
  CHECK(refusal(nlohmann::json::object()) == "(no error)");
  CHECK(refusal({{"correct", {4, 2}}}).find("impossible counts for class 0") != std::string::npos);  // than there are
  CHECK(refusal({{"correct", {2, 3}}, {"predicted", {4, 2}}}).find("for class 1") != std::string::npos);
  CHECK(refusal(nlohmann::json::object(), 5).find("announced 5 held-out samples") != std::string::npos);
  CHECK(refusal({{"predicted", {2, 3}}}).find("predictions than samples") != std::string::npos);
  CHECK(refusal({{"total", {6}}}).find("counts of 1 classes; the run has 2") != std::string::npos);
  CHECK(refusal({{"loss_sum", -1}}).find("'loss_sum'") != std::string::npos);
  CHECK(refusal({{"loss_sum", nullptr}}).find("'loss_sum'") != std::string::npos);
  CHECK(refusal({{"diverged", true}}).find("finite and infinite") != std::string::npos);
  const nlohmann::json nothing = {{"correct", {0, 0}}, {"total", {0, 0}}, {"predicted", {0, 0}}};
  CHECK(refusal(nothing).find("a loss of nothing") != std::string::npos);
  CHECK(refusal({{"extra", 1}}).find("'extra'") != std::string::npos);
}

TEST_CASE("settings of a task out of their bounds are refused, the key named") {
  const auto refusal = [](auto read, const std::string& text) {
    return test::error_of(Errc::protocol, [&] { read(text); });
  };
  CHECK(refusal(train_settings_from_json_text, R"({"round":0})").find("'round'") != std::string::npos);
  CHECK(refusal(train_settings_from_json_text, "[").find("settings of a training task") != std::string::npos);
  for (const char* temperature : {"0", "-1", "1e999"}) {
    const std::string text = std::string(R"({"alpha":0.5,"temperature":)") + temperature + "}";
    CHECK(refusal(kd_setting_from_json_text, text) != "(no error)");
  }
  CHECK(refusal(kd_setting_from_json_text, R"({"temperature":1,"alpha":1.5})").find("'alpha'") != std::string::npos);
  // What is missing has no default: a server that leaves it out means something else.
  CHECK(refusal(train_settings_from_json_text, R"({"counted_round":7})") ==
        "settings of a training task: setting 'round' is missing");
  CHECK(refusal(kd_setting_from_json_text, R"({"alpha":0.5})").find("'temperature' is missing") != std::string::npos);
  CHECK(refusal(pretraining_from_json_text, R"({"reused":true})").find("'seconds' is missing") != std::string::npos);
  CHECK(refusal(pretraining_from_json_text, R"({"reused":true,"seconds":-1})").find("'seconds'") != std::string::npos);
}

TEST_CASE("settings of answers arrive as they were sent, and other widths than 12 and 16 bits are refused") {
  const AnswerSettings sent{.temperature = 1.0 / 3, .bits = 12, .weighs_by_density = false, .most_examples = 1234};
  const AnswerSettings read = answer_settings_from_json_text(to_json_text(sent));
  CHECK(read.temperature == sent.temperature);
  CHECK(read.bits == 12);
  CHECK_FALSE(read.weighs_by_density);
  CHECK(read.most_examples == 1234);
  const auto refusal = [](const char* text) {
    return test::error_of(Errc::protocol, [&] { (void)answer_settings_from_json_text(text); });
  };
  CHECK(refusal(R"({"temperature":1,"bits":13,"weighs_by_density":true,"most_examples":0})")
            .find("answers of 13 bits; 12 or 16 are known") != std::string::npos);
  CHECK(refusal(R"({"temperature":1,"bits":8,"weighs_by_density":true,"most_examples":0})").find("'bits'") !=
        std::string::npos);
  CHECK(refusal(R"({"temperature":1,"bits":16,"weighs_by_density":true})").find("'most_examples' is missing") !=
        std::string::npos);
}

TEST_CASE("an input has the federated schema, that of a spec, or tensors of its own") {
  CHECK(to_json_text(Form{}).empty());
  const Form federated = form_from_json_text("");
  CHECK_FALSE(federated.model.has_value());
  CHECK(federated.tensors.empty());
  learn::ModelSpec spec;
  spec.channels = {7, 9};
  const Form model = form_from_json_text(to_json_text(Form{.model = spec, .tensors = {}}));
  REQUIRE(model.model);
  CHECK(model.model->architecture() == spec.architecture());
  const learn::TensorSpec weights{"weights", c10::ScalarType::Double, {3, 10}};
  const learn::TensorSpec count{"count", c10::ScalarType::Long, {}};
  for (const auto& tensors : {std::vector{weights}, std::vector{weights, count}}) {
    CHECK((form_from_json_text(to_json_text(Form{.model = {}, .tensors = tensors})).tensors == tensors));
  }
}

TEST_CASE("a form that no client should take memory for is refused before it does") {
  const auto refusal = [](const nlohmann::json& tensor) {
    return test::error_of(Errc::protocol, [&] {
      (void)form_from_json_text(nlohmann::json{{"tensors", {tensor}}}.dump());
    });
  };
  CHECK(refusal({{"name", "x"}, {"type", "F32"}, {"shape", {2, 3}}}) == "(no error)");
  const std::int64_t much = std::int64_t{1} << 39;
  CHECK(refusal({{"name", "x"}, {"type", "F32"}, {"shape", {much, much, much}}}).find("at most 8") !=
        std::string::npos);
  CHECK(refusal({{"name", "x"}, {"type", "F32"}, {"shape", std::vector<int>(9, 1)}}).find("9 dimensions") !=
        std::string::npos);
  CHECK(refusal({{"name", "x"}, {"type", "F32"}, {"shape", {-1}}}) != "(no error)");
  CHECK(refusal({{"name", "x"}, {"type", "complex"}, {"shape", {1}}}).find("known type") != std::string::npos);
  CHECK(refusal({{"type", "F32"}, {"shape", {1}}}).find("name") != std::string::npos);
  const nlohmann::json half = {{"name", "x"}, {"type", "F64"}, {"shape", {(std::int64_t{1} << 36) + 1}}};
  CHECK(refusal(half) == "(no error)");
  nlohmann::json other = half;
  for (const char* name : {"x", "y"}) {  // twice, or together too much
    other["name"] = name;
    CHECK(test::error_of(Errc::protocol, [&] {
            (void)form_from_json_text(nlohmann::json{{"tensors", {half, other}}}.dump());
          }).find("a name twice, or more bytes than are taken") != std::string::npos);
  }
  for (const char* text : {R"({"bundle": ["model"]})", R"({"tensors": []})", R"({"tensors": 5})", R"({"tensors": [5]})",
                           R"({"tensors": [{"name": "x", "type": "F32", "shape": [1]}], "name": "cnn"})"}) {
    CAPTURE(text);
    CHECK(test::code_of([&] { (void)form_from_json_text(text); }) == Errc::protocol);
  }
  CHECK(test::code_of([] { (void)form_from_json_text("5"); }) == Errc::protocol);
}

/// Six samples of two classes, four of which are right, with scores.
learn::Evaluation six_scored() {
  const at::Tensor logits =
      torch::tensor({{2.0, 0.0}, {1.0, 0.0}, {0.0, 1.0}, {0.0, 3.0}, {2.5, 0.0}, {0.0, 0.5}}, torch::kFloat64);
  return learn::evaluate_logits(logits, torch::tensor({0, 0, 0, 1, 1, 1}, torch::kLong), 2, learn::Measures::exact);
}

TEST_CASE("score counts, own metrics and the word of a silo that shows its figures arrive as they were sent") {
  EvaluationFigures sent{.counts = six_scored(), .is_shown = true};
  sent.counts.own = {{"dice", {1.0 / 3, 120}}, {"hd95.mm", {-12.5, 0}}};
  const EvaluationFigures read = evaluation_figures_from_json_text(to_json_text(sent), 2, 6);
  CHECK((read.counts.scores == sent.counts.scores));
  CHECK(read.counts.exact_auc.empty());
  CHECK(read.is_shown);
  REQUIRE(read.counts.own.size() == 2);
  CHECK(read.counts.own.at("dice").value == 1.0 / 3);
  CHECK(read.counts.own.at("dice").weight == 120);
  CHECK(read.counts.own.at("hd95.mm").value == -12.5);
  // What was not asked for is not there: an earlier server would refuse the keys.
  const nlohmann::json plain = nlohmann::json::parse(to_json_text(learn::Evaluation{{1}, {2}, {2}, 0.5}));
  CHECK(plain ==
        nlohmann::json{{"correct", {1}}, {"total", {2}}, {"predicted", {2}}, {"loss_sum", 0.5}, {"diverged", false}});
}

TEST_CASE("settings of an evaluation are empty where nothing is asked for") {
  CHECK(to_json_text(EvaluateSettings{}).empty());
  CHECK_FALSE(evaluate_settings_from_json_text("").counts_scores);
  const auto read = evaluate_settings_from_json_text(to_json_text(EvaluateSettings{.by_silo = true}));
  CHECK(read.by_silo);
  CHECK_FALSE(read.counts_scores);
  CHECK(evaluate_settings_from_json_text(to_json_text(EvaluateSettings{.counts_scores = true})).counts_scores);
  CHECK(test::code_of([] { (void)evaluate_settings_from_json_text(R"({"scores":1})"); }) == Errc::protocol);
  const HeadSumSettings plain{.min_samples = 5, .evaluates = true};
  CHECK_FALSE(nlohmann::json::parse(to_json_text(plain)).contains("scores"));
  const HeadSumSettings scored{.min_samples = 5, .evaluates = true, .counts_scores = true};
  CHECK(head_sum_settings_from_json_text(to_json_text(scored)).counts_scores);
}

TEST_CASE("score counts that are not of the samples counted are refused") {
  const nlohmann::json sound = nlohmann::json::parse(to_json_text(six_scored()));
  const auto refusal = [&](const char* key, std::size_t place, std::int64_t change) {
    nlohmann::json figures = sound;
    figures[key][place] = figures[key][place].get<std::int64_t>() + change;
    return test::error_of(Errc::protocol, [&] { (void)evaluation_from_json_text(figures.dump(), 2, 6); });
  };
  const auto has = [](const std::string& text, const char* part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  CHECK(refusal("confusion", 0, 0) == "(no error)");
  has(refusal("confusion", 0, 1), "confusion matrix does not add up to the counts of class 0");
  has(refusal("confusion", 3, -1), "confusion matrix does not add up to the counts of class 1");
  has(refusal("positives", 0, 1), "the scores of class 0 are not of all samples");
  has(refusal("positives", 511, 1), "the scores of class 1 are not of all samples");
  has(refusal("negatives", 256, 1), "the scores of class 1 are not of all samples");
  has(refusal("negatives", 5, -1), "'negatives'");  // below 0
  has(refusal("answers", 14, 1), "bins of confidence do not add up");
  has(refusal("right", 14, 1), "bins of confidence do not add up");
  has(refusal("confidence", 0, 1), "impossible counts in bin 0 of confidence");
  has(refusal("confidence", 14, std::int64_t{1} << learn::confidence_fraction_bits), "in bin 14 of confidence");
  const auto without = [&](const char* key) {
    nlohmann::json figures = sound;
    figures.erase(key);
    return test::error_of(Errc::protocol, [&] { (void)evaluation_from_json_text(figures.dump(), 2, 6); });
  };
  has(without("confusion"), "a confusion matrix of 0 counts for 2 classes");
  has(without("negatives"), "scores in 512 and 0 counts for 2 classes; 2 to 256 bins each are known");
  has(without("right"), "0 bins of confidence; there are 15");
  nlohmann::json odd = sound;
  for (const char* key : {"positives", "negatives"}) odd[key].erase(0);
  has(test::error_of(Errc::protocol, [&] { (void)evaluation_from_json_text(odd.dump(), 2, 6); }), "a power of two");
}

TEST_CASE("metrics of a client's own without a name, a value or a weight are refused, in a sentence") {
  const auto refusal = [](const nlohmann::json& own) {
    nlohmann::json figures = nlohmann::json::parse(to_json_text(learn::Evaluation{{1}, {2}, {2}, 0.5}));
    figures["own"] = own;
    return test::error_of(Errc::protocol, [&] { (void)evaluation_from_json_text(figures.dump(), 1, 2); });
  };
  CHECK(refusal({{"dice", {{"value", 0.5}, {"weight", 3}}}}) == "(no error)");
  CHECK(refusal(nlohmann::json::array()).find("'own' is no object of at most 32 metrics") != std::string::npos);
  for (const char* name :
       {"", "a b", "dice\n", "d\u00e9", "0123456789012345678901234567890123456789012345678901234567890123x"}) {
    CHECK(refusal({{name, {{"value", 0.5}, {"weight", 3}}}}).find("is no name of a metric") != std::string::npos);
  }
  CHECK(refusal({{"dice", {{"value", nullptr}, {"weight", 3}}}}).find("metric 'dice': setting 'value'") !=
        std::string::npos);
  CHECK(refusal({{"dice", {{"value", 1}, {"weight", -1}}}}).find("'weight'") != std::string::npos);
  CHECK(refusal({{"dice", {{"value", 1}}}}).find("'weight' is missing") != std::string::npos);
  CHECK(refusal({{"dice", 0.5}}).find("metric 'dice'") != std::string::npos);
  nlohmann::json many;
  for (int i = 0; i < 33; ++i) many[fmt::format("m{}", i)] = {{"value", 1}, {"weight", 1}};
  CHECK(refusal(many).find("at most 32 metrics") != std::string::npos);
  const std::string beyond =
      R"({"correct":[1],"total":[2],"predicted":[2],"loss_sum":0.5,"own":{"x":{"value":1e999,"weight":1}}})";
  CHECK(test::code_of([&] { (void)evaluation_from_json_text(beyond, 1, 2); }) == Errc::protocol);
}

TEST_CASE("score counts of many classes and samples fit a result: their bins are joined until they do") {
  // As many digits as there may be, in every cell.
  constexpr std::int64_t num_classes = learn::max_scored_classes;
  constexpr std::int64_t each = 1'000'000;
  learn::Evaluation counts = learn::Evaluation::of_none(num_classes);
  counts.scores = learn::ScoreCounts::of_none(num_classes);
  const auto fill = [&](std::vector<std::int64_t>& cells) { std::ranges::fill(cells, each); };
  fill(counts.scores->confusion);
  const std::int64_t bins = counts.scores->num_bins();
  std::ranges::fill(counts.scores->positives, each * num_classes / bins);
  std::ranges::fill(counts.scores->negatives, each * num_classes * (num_classes - 1) / bins);
  std::ranges::fill(counts.correct, each);
  std::ranges::fill(counts.total, each * num_classes);
  std::ranges::fill(counts.predicted, each * num_classes);
  counts.scores->answers[14] = each * num_classes * num_classes;
  counts.scores->right[14] = each * num_classes;
  counts.scores->confidence[14] = counts.scores->answers[14] << learn::confidence_fraction_bits;
  const std::string text = to_json_text(counts);
  CHECK(text.size() < wire::Figures::max_size);
  const auto num_held_out = static_cast<std::uint64_t>(each * num_classes * num_classes);
  const learn::Evaluation read = evaluation_from_json_text(text, num_classes, num_held_out);
  CHECK(read.scores->num_bins() < bins);
  CHECK(read.scores->num_bins() >= 2);
  CHECK((read.scores->confusion == counts.scores->confusion));
  CHECK(read.scores->auc(3)->value == doctest::Approx(0.5));
}

}  // namespace
}  // namespace headstart::plan
