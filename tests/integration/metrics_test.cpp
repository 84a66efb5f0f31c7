// What a run records of each round's model beyond accuracy, and which round is the best by another metric.

#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "experiments/lab/simulation.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/metrics/metric.hpp"
#include "shared/wire/safetensors.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"

namespace headstart {
namespace {

class Notes final : public server::RunObserver {
 public:
  void on_note(const std::string& text) override { all += text + "\n"; }
  void on_round(const server::RoundView& round) override { views.push_back(round); }
  std::string all;
  std::vector<server::RoundView> views;
};

/// Two hundred samples of three classes, of which the last is rare: 3.5%.
const at::Tensor labels =
    torch::cat({torch::zeros({100}, torch::kLong), torch::ones({93}, torch::kLong), torch::full({7}, 2, torch::kLong)});

/// Logits of a model that is sure of the first two classes, and of the samples of the rare class says `rare_logit` of
/// it: above 8 they are found. `num_taken` samples of others are taken for it.
at::Tensor logits_of(double rare_logit, std::int64_t num_taken) {
  at::Tensor logits = torch::zeros({200, 3}, torch::kDouble);
  for (std::int64_t i = 0; i < 200; ++i) {
    const auto label = labels[i].item<std::int64_t>();
    logits[i][label == 2 ? 0 : label] = 8;
    // Before it is found, the rare class is no likelier among its own than among others.
    logits[i][2] = label == 2 ? rare_logit : (i % 2 == 0 ? -1 : 1);
    if (label != 2 && i < num_taken) logits[i][2] = 9;
  }
  return logits;
}

/// What a silo counts of the model of each round. Rounds 0 and 3 never find the rare class, and are right else. Round 1
/// finds it and is often wrong else, round 2 ranks it first and does not find it.
learn::Evaluation of_round(std::size_t round, learn::Measures measures) {
  const std::vector<std::pair<double, std::int64_t>> models = {{0, 0}, {9, 40}, {7, 0}, {0, 0}};
  const auto& [rare_logit, num_taken] = models.at(round);
  return learn::evaluate_logits(logits_of(rare_logit, num_taken), labels, 3, measures);
}

/// Trains like the others and counts as told, round by round.
class ScriptedWorker final : public test::DelegatingWorker {
 public:
  ScriptedWorker(std::int64_t index, bool shows_metrics, std::string own)
      : DelegatingWorker(test::small_worker(index)), shows_metrics_(shows_metrics), own_(std::move(own)) {}

  wire::Join join(const plan::Terms& terms) override {
    wire::Join join = DelegatingWorker::join(terms);
    join.num_held_out = 200;
    return join;
  }
  client::TaskResult perform(const client::Assignment& task, const client::TaskContext& context) override {
    if (task.kind != plan::task::evaluate) return DelegatingWorker::perform(task, context);
    const auto settings = plan::evaluate_settings_from_json_text(task.settings);
    const auto measures = settings.counts_scores ? learn::Measures::scores : learn::Measures::counts;
    const plan::EvaluationFigures figures{.counts = of_round(num_rounds_++, measures),
                                          .is_shown = settings.by_silo && shows_metrics_};
    nlohmann::json document = nlohmann::json::parse(plan::to_json_text(figures));
    if (!own_.empty()) document["own"] = nlohmann::json::parse(own_);
    return {.figures = document.dump()};
  }

 private:
  bool shows_metrics_;
  std::string own_;
  std::size_t num_rounds_ = 0;
};

struct ScriptedRun {
  explicit ScriptedRun(const std::string& metric) : config(test::small_config(folder / "run")) {
    config.federation.validation = server::ValidationSource::federated;
    config.federation.metric = metric;
  }

  nlohmann::json summary(const std::vector<std::string>& own = {{}, {}, {}, {}}) {
    std::vector<lab::SimulatedClient> clients;
    for (std::int64_t i = 0; i < test::small_num_clients; ++i) {
      auto worker = std::make_unique<ScriptedWorker>(i, i == 1, own.at(static_cast<std::size_t>(i)));
      clients.push_back({test::small_name(i), std::move(worker), {}});
    }
    server::check(config);
    server::RunFolder run(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
    net::ManualTime time;
    return lab::simulate(config, test::small_central_data(), run, notes, std::move(clients), 2, time);
  }
  [[nodiscard]] std::vector<nlohmann::json> lines() const {
    std::istringstream text(read_text(folder / "run/rounds.jsonl"));
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }
  [[nodiscard]] wire::Metadata best() const { return wire::load_safetensors(folder / "run/best.safetensors").metadata; }

  test::TemporaryFolder folder;
  server::ServerConfig config;
  Notes notes;
};

TEST_CASE("validation.metric decides which round is kept as the best") {
  const std::pair<const char*, const char*> expected[] = {
      {"accuracy", "0"}, {"recall:2", "1"}, {"balanced_accuracy", "1"}, {"auc:2", "2"}, {"auc", "2"}};
  for (const auto& [metric, round] : expected) {
    CAPTURE(metric);
    ScriptedRun run(metric);
    const nlohmann::json summary = run.summary();
    CHECK(run.best().at("round") == round);
    CHECK(summary["validation"]["metric"] == metric);
    const bool is_accuracy = std::string(metric) == "accuracy";
    CHECK(run.best().contains("validation_metric") != is_accuracy);
    CHECK(run.lines()[1].contains("validation") != is_accuracy);
    CHECK(run.notes.views[1].validation.empty() == is_accuracy);
  }
}

TEST_CASE("each line has the measures of the silos together, and of those that let the server say so") {
  ScriptedRun run("recall:2");
  run.config.federation.counts_scores = true;
  const nlohmann::json summary =
      run.summary({R"({"dice": {"value": 0.5, "weight": 30}})", R"({"dice": {"value": 0.9, "weight": 10}})", {}, {}});
  const std::vector<nlohmann::json> lines = run.lines();
  REQUIRE(lines.size() == 4);
  const nlohmann::json& line = lines[1];
  CHECK(line["validation"] == nlohmann::json{{"metric", "recall:2"}, {"value", 1.0}});
  CHECK(line["validation_accuracy"] == 0.8);
  CHECK(run.notes.views[1].validation == "recall:2 1.0000");
  CHECK(run.best().at("validation_metric") == "recall:2");
  CHECK(run.best().at("validation_value") == "1.000000");
  CHECK(run.best().at("validation_accuracy") == "0.800000");

  // Four silos with the same 200 samples each: the sum has the measures of one.
  const learn::Evaluation one = of_round(1, learn::Measures::exact);
  const nlohmann::json& federated = line["metrics"]["federated"];
  CHECK(federated["samples"] == 800);
  CHECK(federated["confusion"] == nlohmann::json{{240, 0, 160}, {0, 372, 0}, {0, 0, 28}});
  CHECK(federated["class_recall"] == nlohmann::json{0.6, 1.0, 1.0});
  CHECK(federated["class_precision"][2].get<double>() == doctest::Approx(28.0 / 188));
  CHECK(federated["f1"].get<double>() == doctest::Approx(learn::Metric{learn::MetricKind::f1, {}}.value(one).value()));
  CHECK(federated["log_loss"].get<double>() == doctest::Approx(one.loss()));
  CHECK(federated["calibration_error"].get<double>() == doctest::Approx(one.scores->calibration_error()));
  for (const std::size_t c : {0U, 1U, 2U}) {
    const double area = federated["class_auc"][c];
    CHECK(std::abs(area - one.exact_auc[c].value()) <= federated["class_auc_error"][c].get<double>() + 1e-12);
  }
  CHECK(federated["auc_error"].get<double>() > 0);
  CHECK(line["metrics"]["own"]["dice"].get<double>() == doctest::Approx(0.6));
  CHECK_FALSE(federated.contains("own"));

  CHECK(line["silo_metrics"].size() == 1);
  CHECK(line["silo_metrics"]["silo-1"]["samples"] == 200);
  CHECK(line["silo_metrics"]["silo-1"]["own"]["dice"] == 0.9);

  // At the server all scores are in one place.
  const nlohmann::json& central = line["metrics"]["central"];
  CHECK(central["samples"] == 60);
  CHECK(central["accuracy"] == line["accuracy"]);
  CHECK(central["class_recall"] == line["class_accuracy"]);
  CHECK(central["auc_error"] == 0);
  CHECK(summary["metrics"] == lines.back()["metrics"]);
  CHECK(summary["silo_metrics"] == lines.back()["silo_metrics"]);
}

TEST_CASE("without evaluation.scores silos are asked for no scores, and nothing is said of AUC") {
  ScriptedRun run("recall:2");
  (void)run.summary();
  const nlohmann::json line = run.lines()[1];
  CHECK(line["metrics"]["federated"]["class_recall"][2] == 1.0);
  for (const char* key : {"auc", "class_auc", "confusion", "calibration_error"}) {
    CHECK_FALSE(line["metrics"]["federated"].contains(key));
    CHECK(line["metrics"]["central"].contains(key));
  }
  CHECK_FALSE(line["metrics"].contains("own"));
}

TEST_CASE("a silo whose own metric is no number is left out by name, and the others' count") {
  ScriptedRun run("accuracy");
  (void)run.summary({{}, {}, {}, R"({"dice": {"value": null, "weight": 3}})"});
  CHECK(run.lines()[1]["metrics"]["federated"]["samples"] == 600);
  CHECK(run.notes.all.find("evaluation without silo-3: ") != std::string::npos);
  CHECK(run.notes.all.find("figures of an evaluation, metric 'dice': setting 'value': expected number") !=
        std::string::npos);
}

/// Knows nothing of scores.
class PlainWorker final : public test::DelegatingWorker {
 public:
  using DelegatingWorker::DelegatingWorker;
  learn::Evaluation evaluate(const wire::PackedState& model, const std::optional<learn::ModelSpec>& candidate,
                             const client::TaskContext& context) override {
    learn::Evaluation counts = DelegatingWorker::evaluate(model, candidate, context);
    counts.scores.reset();
    return counts;
  }
};

TEST_CASE("a silo that gives no scores where the metric needs them is left out, and stays in the run") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.validation = server::ValidationSource::federated;
  config.federation.metric = "auc";
  std::vector<lab::SimulatedClient> clients;
  for (std::int64_t i = 0; i < test::small_num_clients; ++i) {
    std::unique_ptr<client::Worker> worker = test::small_worker(i);
    if (i == 0) worker = std::make_unique<PlainWorker>(std::move(worker));
    clients.push_back({test::small_name(i), std::move(worker), {}});
  }
  Notes notes;
  server::RunFolder run(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  net::ManualTime time;
  const nlohmann::json summary =
      lab::simulate(config, test::small_central_data(), run, notes, std::move(clients), 2, time);
  CHECK(notes.all.find("without silo-0: its figures of an evaluation have no score counts, which validation.metric") !=
        std::string::npos);
  CHECK(summary["metrics"]["federated"]["samples"] == 24);  // 6 + 8 + 10 of 30, 40 and 50 samples
  CHECK(summary["metrics"]["federated"]["auc"].is_number());
  CHECK(summary["silo_metrics"].empty());
  std::istringstream text(read_text(folder / "run/rounds.jsonl"));
  std::string last;
  for (std::string line; std::getline(text, line);) last = line;
  CHECK(nlohmann::json::parse(last)["clients"].size() == 4);
}

}  // namespace
}  // namespace headstart
