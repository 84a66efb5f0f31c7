// Starts that silos make by answers and sums, over whole federations in one process.

#include <algorithm>
#include <fstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "experiments/lab/simulation.hpp"
#include "shared/learn/distill/experts.hpp"
#include "shared/wire/safetensors.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart {
namespace {

using lab::SimulatedClient;
using learn::TeacherWeighting;
using server::HeadMethod;
using server::StartHead;
using server::StartModel;
using server::StudentStart;
using server::TeachingExchange;
using server::TeachingTarget;
using server::ValidationSource;

enum class Shares { answers, server, peers };

class StartRun {
 public:
  explicit StartRun(StartModel start, std::vector<Shares> shares = {}) : config(test::small_config(folder / "run")) {
    config.federation.start = start;
    config.federation.num_rounds = 0;
    config.federation.validation = ValidationSource::server;
    config.federation.consolidation.weighting = TeacherWeighting::experts;
    config.terms.consolidation.temperature = 3;
    shares.resize(test::small_num_clients, shares.empty() ? Shares::peers : shares.back());
    for (std::int64_t i = 0; i < test::small_num_clients; ++i) {
      client::SiloOptions options;
      options.shares_with_peers = shares[static_cast<std::size_t>(i)] == Shares::peers;
      options.withholds_model = shares[static_cast<std::size_t>(i)] == Shares::answers;
      clients.push_back({.name = test::small_name(i), .worker = test::small_worker(i, options), .wrap = {}});
    }
  }

  nlohmann::json run() {
    server::check(config);
    server::RunFolder run_folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
    server::RunObserver silent;
    net::RealTime time(std::chrono::steady_clock::now);
    return lab::simulate(config, test::small_central_data(), run_folder, silent, std::move(clients), 2, time);
  }
  [[nodiscard]] at::Tensor test_logits() const {
    const auto network =
        learn::make_model(config.terms.model, test::small_central_data().task, config.terms.seeds().child("model"));
    network->load(wire::load_safetensors(std::filesystem::path(config.folder) / "final.safetensors").model.state());
    return learn::logits_of(*network, test::small_central_data().test.x);
  }
  test::TemporaryFolder folder;
  server::ServerConfig config;
  std::vector<SimulatedClient> clients;
};

/// Whether the server had the pre-trained model of that client.
bool had_model_of(const nlohmann::json& summary, std::int64_t client) {
  for (const nlohmann::json& model : summary["models"]) {
    if (model["client"] == test::small_name(client)) return !model["model"].get<std::string>().empty();
  }
  return false;
}

server::ConsolidationOptions& kd(StartRun& run) { return run.config.federation.consolidation; }

TEST_CASE("answers at home: the student is that of the same target computed from models, and no model is sent") {
  StartRun by_models(StartModel::kd);
  kd(by_models).student = StudentStart::untrained;
  kd(by_models).density = learn::Density::bounded;
  const auto expected = by_models.run();
  CHECK(expected["start_report"]["teachers"].size() == test::small_num_clients);
  const at::Tensor logits = by_models.test_logits();
  for (const std::int64_t bits : learn::answer_widths) {
    CAPTURE(bits);
    StartRun by_answers(StartModel::kd, {Shares::answers});
    kd(by_answers).student = StudentStart::untrained;
    kd(by_answers).exchange = TeachingExchange::answers;
    kd(by_answers).answer_bits = bits;
    const auto summary = by_answers.run();
    CHECK(summary["start_report"]["teachers"].size() == test::small_num_clients);
    CHECK(summary["left_out"].empty());
    CHECK(summary["share_model"]["answers"].size() == test::small_num_clients);
    for (std::int64_t i = 0; i < test::small_num_clients; ++i) CHECK_FALSE(had_model_of(summary, i));
    const at::Tensor answered = by_answers.test_logits();
    CHECK(answered.argmax(1).eq(logits.argmax(1)).to(torch::kFloat).mean().item<double>() >= 0.97);
    CHECK(test::largest_difference(answered.softmax(1), logits.softmax(1)) < (bits == 16 ? 0.02 : 0.05));
  }
}

TEST_CASE("answers at home: the temperature is tuned by sums, and the same run gives the same bytes") {
  const auto run = [] {
    StartRun tuned(StartModel::kd, {Shares::answers});
    kd(tuned).student = StudentStart::untrained;
    kd(tuned).exchange = TeachingExchange::answers;
    kd(tuned).tune = server::SettingChoice::grid;
    kd(tuned).grid.temperatures = {1, 4};
    return tuned.run();
  };
  const auto summary = run();
  CHECK(summary["start_report"]["tuning"]["trials"].size() == 2);
  CHECK(summary["model_digest"] == run()["model_digest"]);
}

TEST_CASE("answers at home: the server sees the models alone that it may start from") {
  StartRun run(StartModel::kd, {Shares::answers, Shares::peers, Shares::server});
  kd(run).exchange = TeachingExchange::answers;
  const auto summary = run.run();
  CHECK(summary["start_report"]["student"] == test::small_name(1));
  CHECK(had_model_of(summary, 1));
  for (const std::int64_t i : {0, 2, 3}) CHECK_FALSE(had_model_of(summary, i));
  CHECK(summary["start_report"]["teachers"].size() == test::small_num_clients);
}

/// Answers with other bytes than it has.
class Forger final : public test::DelegatingWorker {
 public:
  using DelegatingWorker::DelegatingWorker;
  client::TaskResult perform(const client::Assignment& assignment, const client::TaskContext& context) override {
    client::TaskResult result = DelegatingWorker::perform(assignment, context);
    if (assignment.kind == plan::task::answers) result.state->state().tensors().front().tensor.fill_(0xff);
    return result;
  }
};

TEST_CASE("answers at home: a silo that claims more than its share of a sample is left out") {
  StartRun run(StartModel::kd, {Shares::answers});
  kd(run).student = StudentStart::untrained;
  kd(run).exchange = TeachingExchange::answers;
  run.clients[2].worker = std::make_unique<Forger>(std::move(run.clients[2].worker));
  const auto summary = run.run();
  CHECK(summary["start_report"]["teachers"].size() == 3);
  REQUIRE(summary["left_out"].size() == 1);
  CHECK(summary["left_out"][0]["client"] == test::small_name(2));
  CHECK(summary["left_out"][0]["reason"].get<std::string>().find("add up to 196605; at most 65538") !=
        std::string::npos);
}

TEST_CASE("share_model answers: other starts do without that silo's model, or are refused") {
  StartRun average(StartModel::average, {Shares::answers, Shares::server});
  const auto summary = average.run();
  CHECK(summary["start_report"]["norms"].size() == 3);
  CHECK_FALSE(had_model_of(summary, 0));
  CHECK(had_model_of(summary, 1));

  StartRun nobody(StartModel::average, {Shares::answers});
  CHECK(test::error_of(Errc::run_failed, [&] { nobody.run(); }).find("every silo says share_model: answers") !=
        std::string::npos);
  StartRun few(StartModel::kd, {Shares::peers, Shares::answers});
  CHECK(test::error_of(Errc::run_failed, [&] { few.run(); }).find("Set consolidation.exchange=answers") !=
        std::string::npos);
}

TEST_CASE("teachers from sums: lifted and joint, by either validation source") {
  for (const TeachingTarget target : {TeachingTarget::lifted, TeachingTarget::joint}) {
    for (const ValidationSource source : {ValidationSource::server, ValidationSource::federated}) {
      CAPTURE(static_cast<int>(target));
      CAPTURE(static_cast<int>(source));
      StartRun run(StartModel::kd, {Shares::peers, Shares::peers, Shares::server});
      run.config.federation.validation = source;
      kd(run).weighting = TeacherWeighting::equal;
      kd(run).target = target;
      kd(run).lift = 24;
      kd(run).projection = 12;
      const auto report = run.run()["start_report"];
      CHECK(report["sums"]["silos"] == test::small_num_clients);
      CHECK(report["sums"]["features"] == (target == TeachingTarget::joint ? 13 : 8 + 24 + 1));
      CHECK(report["sums"]["validation_accuracy"].get<double>() > 0.5);
      CHECK(report["teachers"].size() == (target == TeachingTarget::joint ? 2 : 1));
    }
  }
  StartRun alone(StartModel::kd, {Shares::peers, Shares::server});
  kd(alone).weighting = TeacherWeighting::equal;
  kd(alone).target = TeachingTarget::joint;
  CHECK(test::error_of(Errc::run_failed, [&] { alone.run(); }).find("joint sends every silo the others' models") !=
        std::string::npos);
}

TEST_CASE("heads in closed form: never worse by validation than the start's own head") {
  for (const HeadMethod method : {HeadMethod::ridge, HeadMethod::gaussian}) {
    for (const ValidationSource source : {ValidationSource::server, ValidationSource::federated}) {
      CAPTURE(static_cast<int>(method));
      StartRun run(StartModel::random);
      run.config.federation.validation = source;
      run.config.federation.head.start = StartHead::sums;
      run.config.federation.head.method = method;
      const auto report = run.run()["start_report"]["head"];
      CHECK(report["kept_scale"].get<double>() > 0);
      CHECK(report["validation_accuracy"].get<double>() > 0.5);
    }
  }
}

TEST_CASE("rounds with a head from sums: each round's head is kept where validation does not fall") {
  StartRun run(StartModel::random);
  run.config.federation.head.rounds = StartHead::sums;
  run.config.federation.num_rounds = 2;
  run.config.terms.train.clip = 1;
  run.run();
  std::ifstream lines(std::filesystem::path(run.config.folder) / "rounds.jsonl");
  std::string text;
  for (int round = 0; std::getline(lines, text); ++round) {
    const auto line = nlohmann::json::parse(text);
    CHECK(line.contains("head") == (round > 0));
    if (round == 0) continue;
    const auto losses = line["head"]["validation_losses"].get<std::vector<double>>();
    CHECK(losses.at(line["head"]["kept_step"].get<std::size_t>()) == *std::ranges::min_element(losses));
  }
}

TEST_CASE("start auto: the best candidate by validation, never behind the best local model") {
  for (const ValidationSource source : {ValidationSource::server, ValidationSource::federated}) {
    StartRun run(StartModel::automatic);
    run.config.federation.validation = source;
    run.config.federation.candidates = {"random", "average", "kd+head"};
    const auto report = run.run()["start_report"];
    const nlohmann::json rows = report["candidates"];
    REQUIRE(rows.size() == 4);  // the best local model was added
    double best = -1;
    std::string chosen;
    for (const auto& row : rows) {
      CHECK(row.contains("bytes_up"));
      if (row["accuracy"].get<double>() > best) {
        best = row["accuracy"].get<double>();
        chosen = row["start"].get<std::string>();
      }
    }
    CHECK(rows[3]["start"] == "best_local");
    const auto chosen_row =
        std::ranges::find_if(rows, [&report](const nlohmann::json& row) { return row["start"] == report["chosen"]; });
    CHECK((*chosen_row)["accuracy"] == best);
    CHECK(report["ahead_of_best_local"].get<double>() >= 0);
  }
}

TEST_CASE("start auto: a candidate that consents rule out or that fails is named, and the others count") {
  StartRun run(StartModel::automatic, {Shares::server});
  run.config.federation.candidates = {"best_local+head", "average+head", "kd+head"};
  const auto report = run.run()["start_report"];
  CHECK(report["chosen"] == "average+head");
  CHECK(report["candidates"].size() == 1);

  StartRun none(StartModel::automatic, {Shares::answers});
  CHECK(test::error_of(Errc::run_failed, [&] { none.run(); }).find("leaves none of start.candidates") !=
        std::string::npos);
  StartRun unknown(StartModel::automatic);
  unknown.config.federation.candidates = {"kd+tail"};
  CHECK(test::error_of(Errc::usage, [&] { unknown.run(); }).find("'kd+tail' is no start") != std::string::npos);
}

}  // namespace
}  // namespace headstart
