// Who counts for a pre-trained model under federated validation: never its own client, unless nobody else can.

#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "experiments/lab/simulation.hpp"
#include "shared/base/files.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"

namespace headstart {
namespace {

using Counts = std::vector<std::int64_t>;

/// What a silo would count of a model of its own, and of any other.
struct Answers {
  learn::Evaluation of_own;
  learn::Evaluation of_others;
};

/// Trains like the others and counts as it is told.
class CountingWorker final : public test::DelegatingWorker {
 public:
  CountingWorker(std::int64_t index, Answers answers)
      : DelegatingWorker(test::small_worker(
            index, {.name = {}, .own_model = {}, .script = {}, .store = {}, .shares_with_peers = true})),
        answers_(std::move(answers)) {}

  wire::Join join(const plan::Terms& terms) override {
    wire::Join join = DelegatingWorker::join(terms);
    join.num_held_out = static_cast<std::uint64_t>(answers_.of_own.num_samples());
    return join;
  }
  learn::Evaluation evaluate(const wire::PackedState& model, const std::optional<learn::ModelSpec>& candidate,
                             const client::TaskContext& context) override {
    const bool is_own = candidate && model.digest() == pretrained(context).digest();
    return is_own ? answers_.of_own : answers_.of_others;
  }

 private:
  Answers answers_;
};

/// All samples of each class right, or none.
learn::Evaluation counted(const Counts& total, bool are_right) {
  learn::Evaluation evaluation = learn::Evaluation::of_none(std::ssize(total));
  evaluation.total = total;
  if (are_right) evaluation.correct = total;
  evaluation.predicted = total;
  evaluation.loss_sum = 1;
  return evaluation;
}

class Notes final : public server::RunObserver {
 public:
  void on_note(const std::string& text) override { all += text + "\n"; }
  std::string all;
};

/// A run that starts as `start` says from as many silos as there are answers, to round 0.
class FederatedRun {
 public:
  explicit FederatedRun(server::StartModel start, std::vector<Answers> answers)
      : config(test::small_config(folder / "run")), answers_(std::move(answers)) {
    config.federation.start = start;
    config.federation.validation = server::ValidationSource::federated;
    config.federation.num_clients = std::ssize(answers_);
    config.federation.num_rounds = 0;
    config.terms.pretrain.max_epochs = 1;
    config.terms.consolidation.epochs = 1;
  }

  nlohmann::json summary() {
    std::vector<lab::SimulatedClient> clients;
    for (std::size_t i = 0; i < answers_.size(); ++i) {
      const auto index = static_cast<std::int64_t>(i);
      clients.push_back({test::small_name(index), std::make_unique<CountingWorker>(index, answers_[i]), {}});
    }
    server::check(config);
    server::RunFolder run(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
    net::ManualTime time;
    return lab::simulate(config, test::small_central_data(), run, notes, std::move(clients), 2, time);
  }

  test::TemporaryFolder folder;
  server::ServerConfig config;
  Notes notes;

 private:
  std::vector<Answers> answers_;
};

TEST_CASE("federated validation: a model's own client does not count for it") {
  // Silo i counts 10^i samples of each class: a model's number of samples tells who counted.
  std::vector<Answers> answers;
  for (const std::int64_t n : {1, 10, 100, 1000}) {
    answers.push_back({counted({n, n, n}, true), counted({n, n, n}, false)});
  }
  FederatedRun run(server::StartModel::kd, answers);
  run.config.federation.consolidation.gate = true;
  const nlohmann::json summary = run.summary();
  REQUIRE(summary["models"].size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    const nlohmann::json& model = summary["models"][i];
    CHECK(model["counted_samples"] == 3 * (1111 - static_cast<std::int64_t>(std::pow(10, i))));
    CHECK(model["counted_by"] == "held-out data of all clients but its own");
    CHECK(model["accuracy"] == 0);  // only its own client would have called it right
    CHECK(model["class_accuracy"] == nlohmann::json{0, 0, 0});
  }
  CHECK(summary["validation"]["source"] == "federated");
  CHECK(summary["validation"]["counts"].get<std::string>().find("all clients but its own") != std::string::npos);
  // The seed is rated by the same clients as the model that it is compared with.
  const nlohmann::json& gate = summary["start_report"].contains("gate")
                                   ? summary["start_report"]["gate"]
                                   : summary["start_report"]["refused_seed"]["gate"];
  CHECK(gate["both_counted_by"] == "held-out data of all clients but its own");
}

TEST_CASE("federated validation: with one class a silo the largest silo's model does not win by its own data") {
  // Each model knows the class of its own silo and nothing else; silo 2 has by far the most samples. The model of
  // silo 0 answers as well as the others on what others hold: by the loss alone it is the best.
  std::vector<Answers> answers = {{counted({5, 0, 0}, true), counted({5, 0, 0}, false)},
                                  {counted({0, 5, 0}, true), counted({0, 5, 0}, false)},
                                  {counted({0, 0, 1000}, true), counted({0, 0, 1000}, false)}};
  FederatedRun run(server::StartModel::best_local, answers);
  const nlohmann::json summary = run.summary();
  CHECK(summary["start_report"]["client"] != "silo-2");
  for (const auto& model : summary["models"]) CHECK(model["accuracy"] == 0);
  CHECK(summary["models"][2]["counted_samples"] == 10);
  CHECK(run.notes.all.find("silo-2 holds 1000 of 1010 held-out samples, 99.0%: what federated validation finds is "
                           "mostly what it finds") != std::string::npos);
  CHECK(summary["models"][2]["counted_by"] == "held-out data of all clients but its own");
}

TEST_CASE("federated validation: defined with two silos, and with one, whose own client counts and is named") {
  const Answers big{counted({8, 8, 8}, true), counted({8, 8, 8}, true)};
  const Answers small{counted({1, 1, 1}, true), counted({1, 1, 1}, true)};
  FederatedRun two(server::StartModel::kd, {big, small});
  const nlohmann::json both = two.summary();
  CHECK(both["models"][0]["counted_samples"] == 3);
  CHECK(both["models"][1]["counted_samples"] == 24);

  FederatedRun one(server::StartModel::best_local, {big});
  const nlohmann::json alone = one.summary();
  CHECK(alone["start_report"]["client"] == "silo-0");
  CHECK(alone["models"][0]["counted_samples"] == 24);
  CHECK(alone["models"][0]["counted_by"] == "held-out data of its own client, as no other client has any");
  CHECK(one.notes.all.find("no other client has held-out samples: silo-0's model is rated by its own") !=
        std::string::npos);
}

}  // namespace
}  // namespace headstart
