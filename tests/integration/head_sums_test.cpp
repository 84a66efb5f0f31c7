// start.head=sums over whole federations in one process.

#include "shared/learn/train/head_sums.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include "experiments/lab/simulation.hpp"
#include "shared/wire/safetensors.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart {
namespace {

using lab::SimulatedClient;
using server::StartHead;
using server::StartModel;
using server::ValidationSource;

class HeadRun {
 public:
  explicit HeadRun(StartModel start = StartModel::random) : config(test::small_config(folder / "run")) {
    config.federation.start = start;
    config.federation.head.start = StartHead::sums;
    config.federation.num_rounds = 0;
    for (std::int64_t i = 0; i < test::small_num_clients; ++i) {
      client::SiloOptions options;
      options.shares_with_peers = true;
      clients.push_back({.name = test::small_name(i), .worker = test::small_worker(i, options), .wrap = {}});
    }
  }

  nlohmann::json run() {
    server::RunFolder run_folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
    server::RunObserver silent;
    net::RealTime time(std::chrono::steady_clock::now);
    return lab::simulate(config, test::small_central_data(), run_folder, silent, std::move(clients), 2, time);
  }
  [[nodiscard]] learn::StateDict model() const {
    return wire::load_safetensors(std::filesystem::path(config.folder) / "final.safetensors").model.state();
  }

  test::TemporaryFolder folder;
  server::ServerConfig config;
  std::vector<SimulatedClient> clients;
};

TEST_CASE("head from sums: the federation finds the head that one place with all samples finds") {
  HeadRun run;
  run.config.federation.validation = ValidationSource::none;
  const auto summary = run.run();
  const auto& report = summary["start_report"]["head"];
  CHECK(report["silos"] == test::small_num_clients);
  CHECK(report["kept_step"] == run.config.federation.head.steps);

  const auto network = learn::make_model(run.config.terms.model, test::small_central_data().task,
                                         run.config.terms.seeds().child("model"));
  std::vector<at::Tensor> inputs, labels;
  for (std::int64_t i = 0; i < test::small_num_clients; ++i) {
    const auto worker = test::small_worker(i);
    worker->join(run.config.terms);
    inputs.push_back(learn::head_inputs(*network, worker->silo().training().x));
    labels.push_back(worker->silo().training().y);
  }
  const at::Tensor all_inputs = torch::cat(inputs);
  const at::Tensor all_labels = torch::cat(labels);
  CHECK(report["samples"] == all_labels.size(0));
  learn::HeadFit fit(learn::moments_of(all_inputs), all_inputs.size(0), run.config.federation.head.damping,
                     learn::head_of(*network));
  for (std::int64_t step = 0; step < run.config.federation.head.steps; ++step) {
    fit.step(learn::head_gradient(all_inputs, all_labels, fit.point()), all_inputs.size(0));
  }
  learn::set_head(*network, fit.point());
  const learn::StateDict expected = network->state();
  const learn::StateDict model = run.model();
  for (const learn::NamedTensor& named : model.tensors()) {
    CAPTURE(named.name);
    CHECK(test::largest_difference(named.tensor, expected.at(named.name)) <
          5e-4);  // fixed point, and batches of other sizes
  }
}

TEST_CASE("head from sums: validation keeps the best head, and never one that is worse than the start's own") {
  for (const ValidationSource source : {ValidationSource::server, ValidationSource::federated}) {
    for (const StartModel start : {StartModel::random, StartModel::best_local}) {
      HeadRun run(start);
      run.config.federation.validation = source;
      const auto report = run.run()["start_report"]["head"];
      const auto losses = report["validation_losses"].get<std::vector<double>>();
      REQUIRE(losses.size() == static_cast<std::size_t>(run.config.federation.head.steps) + 1);
      const auto kept = report["kept_step"].get<std::size_t>();
      CHECK(losses.at(kept) == *std::ranges::min_element(losses));
      if (start == StartModel::random) CHECK(losses.at(kept) < losses.front());
    }
  }
}

TEST_CASE("head from sums: a silo that cannot send its sums is left out, and too few of them leave the head as it is") {
  HeadRun run;
  run.config.federation.validation = ValidationSource::server;
  client::SiloOptions strict;
  strict.min_sum_samples = 10'000;
  run.clients[1].worker = test::small_worker(1, strict);
  const auto summary = run.run();
  CHECK(summary["start_report"]["head"]["silos"] == 3);
  REQUIRE(summary["left_out"].size() == 1);  // and is not asked again at each step
  CHECK(summary["left_out"][0]["client"] == test::small_name(1));
  CHECK(summary["left_out"][0]["phase"] == "head from sums");

  HeadRun nobody;
  nobody.config.federation.validation = ValidationSource::server;
  nobody.config.federation.head.min_samples = 10'000;
  const auto report = nobody.run()["start_report"]["head"];
  CHECK(report["kept_step"] == 0);
  CHECK(report["reason"] == "0 silos sent their sums, and 2 are needed");
}

/// Returns another sum than it has.
class Forger final : public test::DelegatingWorker {
 public:
  Forger(std::unique_ptr<client::Worker> inner, std::function<void(at::Tensor)> forge)
      : DelegatingWorker(std::move(inner)), forge_(std::move(forge)) {}
  client::TaskResult perform(const client::Assignment& assignment, const client::TaskContext& context) override {
    client::TaskResult result = DelegatingWorker::perform(assignment, context);
    if (assignment.kind == plan::task::head_sum) forge_(result.state->state().tensors().front().tensor);
    return result;
  }

 private:
  std::function<void(at::Tensor)> forge_;
};

TEST_CASE("head from sums: a sum that cannot be what it says is refused, and the others count") {
  const auto left_out = [](std::function<void(at::Tensor)> forge) {
    HeadRun run;
    run.config.federation.validation = ValidationSource::server;
    run.clients[2].worker = std::make_unique<Forger>(std::move(run.clients[2].worker), std::move(forge));
    const auto summary = run.run();
    CHECK(summary["start_report"]["head"]["silos"] == 3);
    return summary["left_out"][0]["reason"].get<std::string>();
  };
  CHECK(left_out([](at::Tensor sum) {
          sum.fill_(std::numeric_limits<std::int64_t>::min());
        }).find("beyond 1125899906842624 in fixed point") != std::string::npos);
  CHECK(left_out([](at::Tensor sum) { sum[-1] += 7 << learn::sum_fraction_bits; }).find("its second moments are of") !=
        std::string::npos);
}

/// Says of each sum that it is of one sample less than of the one before.
class Shrinker final : public test::DelegatingWorker {
 public:
  using DelegatingWorker::DelegatingWorker;
  client::TaskResult perform(const client::Assignment& assignment, const client::TaskContext& context) override {
    client::TaskResult result = DelegatingWorker::perform(assignment, context);
    if (assignment.kind != plan::task::head_sum || assignment.inputs_named(plan::input::head).empty()) return result;
    auto figures = nlohmann::json::parse(result.figures);
    figures["samples"] = figures["samples"].get<std::int64_t>() - ++num_sums_;
    result.figures = figures.dump();
    return result;
  }

 private:
  std::int64_t num_sums_ = 0;
};

TEST_CASE("head from sums: a silo whose sums are of other samples each time is left out, and nothing waits for it") {
  for (const server::HeadMethod method : {server::HeadMethod::steps, server::HeadMethod::ridge}) {
    HeadRun run;
    run.config.federation.validation = ValidationSource::server;
    run.config.federation.head.method = method;
    run.clients[2].worker = std::make_unique<Shrinker>(std::move(run.clients[2].worker));
    const auto summary = run.run();
    REQUIRE(summary["left_out"].size() == 1);
    CHECK(summary["left_out"][0]["reason"].get<std::string>().find("samples, and an earlier one was of") !=
          std::string::npos);
  }
}

TEST_CASE("head from sums: the same bytes whenever it is run") {
  HeadRun one(StartModel::average), other(StartModel::average);
  CHECK(one.run()["model_digest"] == other.run()["model_digest"]);
}

}  // namespace
}  // namespace headstart
