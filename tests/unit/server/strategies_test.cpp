// Strategies without a server: closed-form vectors, and a strategy that exists in this file alone.

#include <chrono>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "server/strategies/feddf.hpp"
#include "server/strategies/strategy.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/stored_update.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

using learn::NamedTensor;
using learn::StateDict;

StateDict state_of(const std::vector<double>& weights, at::ScalarType dtype = at::kDouble) {
  return StateDict({{"w", torch::tensor(weights, dtype)}});
}

/// Rounds of one strategy over updates in memory.
class Rounds {
 public:
  Rounds(const StrategyOptions& options, StateDict start, std::set<std::string> parameters = {"w"})
      : Rounds(strategy_row(options.name).make(options, {}), std::move(start), std::move(parameters)) {}
  Rounds(std::unique_ptr<Strategy> strategy, StateDict start, std::set<std::string> parameters = {"w"})
      : state{wire::PackedState(start), {}},
        schema_(start.schema().tensors(), std::move(parameters)),
        strategy_(std::move(strategy)) {}

  void run(const std::vector<std::pair<StateDict, std::int64_t>>& updates) {
    const RoundPlan plan{++round_, schema_, state};
    auto aggregator = strategy_->begin(plan);
    std::vector<std::unique_ptr<test::UpdateInMemory>> kept;
    for (const auto& [update, num_examples] : updates) {
      kept.push_back(std::make_unique<test::UpdateInMemory>(wire::PackedState(update)));
      aggregator->accept(*kept.back(), {"silo-" + std::to_string(kept.size()), num_examples});
    }
    ServerState next = strategy_->finish(plan, std::move(aggregator), report);
    state = std::move(next);
  }

  [[nodiscard]] std::vector<double> weights() const {
    const at::Tensor values = state.model.state().at("w").to(at::kDouble);
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
  }

  ServerState state;
  nlohmann::json report = nlohmann::json::object();

 private:
  learn::Schema schema_;
  std::unique_ptr<Strategy> strategy_;
  std::uint32_t round_ = 0;
};

void check_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(found[i] - expected[i]) <= tolerance);
  }
}

TEST_CASE("FedAvgM: x follows the accumulated mean update") {
  StrategyOptions options;
  options.name = "fedavgm";
  Rounds rounds(options, state_of({1, -0.5}));
  const std::vector<std::vector<double>> updates = {{-0.2, 0.05}, {-0.1, 0.02}, {0.04, -0.03}};
  const std::vector<std::vector<double>> expected = {{0.8, -0.45}, {0.52, -0.385}, {0.308, -0.3565}};
  for (std::size_t i = 0; i < updates.size(); ++i) {
    std::vector<double> moved = rounds.weights();
    for (std::size_t k = 0; k < moved.size(); ++k) moved[k] += updates[i][k];
    // Two clients whose mean is the update: weights 1 and 3.
    rounds.run({{state_of({moved[0] + 0.3, moved[1] - 0.3}), 1}, {state_of({moved[0] - 0.1, moved[1] + 0.1}), 3}});
    check_near(rounds.weights(), expected[i], 1e-7);  // v is kept as float32
  }
  // The memory travels with a checkpoint, and comes back from it.
  const ServerState again = unpacked(packed(rounds.state));
  CHECK(learn::bitwise_equal(again.memory, rounds.state.memory));
  CHECK(learn::bitwise_equal(again.model.state(), rounds.state.model.state()));
}

TEST_CASE("FedAvgM without momentum is FedAvg, and buffers have none") {
  StrategyOptions plain;
  StrategyOptions still = plain;
  still.name = "fedavgm";
  still.server.momentum = 0;
  const std::vector<std::pair<StateDict, std::int64_t>> updates = {{state_of({0.3, 7}, at::kFloat), 3},
                                                                   {state_of({-1.7, 2}, at::kFloat), 5}};
  Rounds fedavg(plain, state_of({1, 1}, at::kFloat));
  Rounds fedavgm(still, state_of({1, 1}, at::kFloat));
  fedavg.run(updates);
  fedavgm.run(updates);
  CHECK(learn::bitwise_equal(fedavg.state.model.state(), fedavgm.state.model.state()));
  CHECK(fedavgm.state.memory.is_empty());

  still.server.momentum = 0.9;
  Rounds buffers(still, state_of({1, 1}, at::kFloat), {});
  buffers.run(updates);
  buffers.run(updates);
  CHECK(learn::bitwise_equal(buffers.state.model.state(), fedavg.state.model.state()));
  CHECK(buffers.state.memory.is_empty());
}

TEST_CASE("FedAvgM: a step beyond what an update may hold fails the round, and changes nothing") {
  StrategyOptions options;
  options.name = "fedavgm";
  options.server.lr = 1e6;
  Rounds rounds(options, state_of({1, 1}, at::kFloat));
  const std::string failure = test::error_of(Errc::run_failed, [&] {
    rounds.run({{state_of({1, 101}, at::kFloat), 1}});
  });
  CHECK(
      failure.starts_with("round 1: fedavgm steps to a model that nobody can train from: tensor 'w' holds 100000000"));
  CHECK(failure.find("at index 1") != std::string::npos);
  CHECK(rounds.weights() == std::vector<double>{1, 1});
  CHECK(rounds.state.memory.is_empty());
}

TEST_CASE("median: of each value, whatever the numbers of examples; integers stay") {
  StrategyOptions options;
  options.name = "median";
  const StateDict a = state_of({1, 2, -1});
  const StateDict b = state_of({1.25, 1.75, -1});
  const StateDict c = state_of({1, 2.25, -1.25});
  const StateDict d = state_of({1.5, 2.5, -0.75});
  const StateDict e = state_of({10, -10, 5});
  Rounds five(options, state_of({0, 0, 0}));
  five.run({{a, 1}, {b, 2}, {c, 3}, {d, 4}, {e, 1'000'000}});
  CHECK(five.weights() == std::vector<double>{1.25, 2, -1});
  Rounds four(options, state_of({0, 0, 0}));
  four.run({{d, 1}, {c, 1}, {a, 1}, {b, 1}});
  CHECK(four.weights() == std::vector<double>{1.125, 2.125, -1});
  Rounds two(options, state_of({0, 0, 0}));
  CHECK(test::error_of(Errc::run_failed, [&] {
          two.run({{a, 1}, {b, 1}});
        }) == "the median takes 3 updates at least; 2 were accepted");

  const auto with_count = [](double value, std::int64_t count) {
    return StateDict({{"count", torch::tensor({count}, at::kLong)}, {"w", torch::tensor({value}, at::kFloat)}});
  };
  Rounds counts(options, with_count(0, 7));
  counts.run({{with_count(1, 8), 1}, {with_count(2, 9), 1}, {with_count(3, 1'000'000), 1}});
  CHECK(counts.state.model.state().at("count").item<std::int64_t>() == 7);
  CHECK(counts.state.model.state().at("w").item<float>() == 2);
}

TEST_CASE("median: blocks of any size and tensors across them give torch's median") {
  const at::Generator random = at::make_generator<at::CPUGeneratorImpl>(3);
  const auto draw = [&random] {
    return StateDict({{"a", at::randn({700'001}, random)}, {"b", at::randn({5, 7}, random).to(at::kHalf)}});
  };
  StrategyOptions options;
  options.name = "median";
  const StateDict start = draw();
  Rounds rounds(options, start);
  std::vector<std::pair<StateDict, std::int64_t>> updates;
  std::vector<at::Tensor> a;
  std::vector<at::Tensor> b;
  for (int i = 0; i < 5; ++i) {
    updates.emplace_back(draw(), 1);
    a.push_back(updates.back().first.at("a"));
    b.push_back(updates.back().first.at("b").to(at::kFloat));
  }
  rounds.run(updates);
  CHECK(torch::equal(rounds.state.model.state().at("a"), std::get<0>(at::median(torch::stack(a), 0))));
  CHECK(torch::equal(rounds.state.model.state().at("b").to(at::kFloat), std::get<0>(at::median(torch::stack(b), 0))));
}

TEST_CASE("FedDF: the teachers' logits are part of what it costs, and a model without finite ones does not teach") {
  const auto config = test::small_config("");
  const CentralData data = test::small_central_data();
  TimePoint now{};
  StrategyTools tools;
  tools.make_model = [&] { return learn::make_model(config.terms.model, data.task, Seed(1)); };
  tools.public_samples = data.transfer.x;
  tools.num_classes = data.task.num_classes;
  tools.clock = [&now] { return now += std::chrono::seconds(3); };
  const StateDict model = tools.make_model()->state();
  TeachingMean mean(model.schema(), tools, 1);
  test::UpdateInMemory sound{wire::PackedState(model)};
  mean.accept(sound, {"a", 1});
  mean.accept(sound, {"b", 1});
  CHECK(mean.logits().size() == 2);
  CHECK(mean.teaching_seconds() == 6);
  const StateDict large = model.clone();
  for (const NamedTensor& named : large.tensors()) {
    if (at::isFloatingType(named.tensor.scalar_type())) named.tensor.fill_(0x1p24);
  }
  test::UpdateInMemory diverged{wire::PackedState(large)};
  mean.accept(diverged, {"c", 1});
  CHECK_FALSE(mean.logits().contains("c"));
}

TEST_CASE("a strategy that nobody knows is refused with those that there are") {
  CHECK(test::error_of(Errc::usage, [] { (void)strategy_row("fedbest"); }) ==
        "federation.strategy 'fedbest': expected one of fedavg, fedavgm, median, feddf");
}

/// Takes the model of whoever has the most examples, of every second client.
class Greedy final : public Strategy {
 public:
  [[nodiscard]] std::vector<std::string> select(std::uint32_t, std::span<const Participant> present) const override {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < present.size(); i += 2) names.push_back(present[i].name);
    return names;
  }
  [[nodiscard]] std::unique_ptr<learn::Aggregator> begin(const RoundPlan& plan) const override {
    class Largest final : public learn::Aggregator {
     public:
      using Aggregator::Aggregator;
      [[nodiscard]] bool keeps_updates() const override { return true; }
      void accept(learn::StoredUpdate& update, const learn::Contribution& contribution) override {
        if (contribution.num_examples <= most_) return;
        most_ = contribution.num_examples;
        largest_ = &update;
      }
      [[nodiscard]] StateDict report() && override {
        wire::PackedState state(blocks().schema());
        largest_->read(0, state.bytes());
        return state.state();
      }

     private:
      std::int64_t most_ = 0;
      learn::StoredUpdate* largest_ = nullptr;
    };
    return std::make_unique<Largest>(plan.schema);
  }
};

TEST_CASE("extension: a strategy needs no more than its own class") {
  Rounds rounds(std::make_unique<Greedy>(), state_of({0, 0}));
  rounds.run({{state_of({1, 2}), 3}, {state_of({4, 5}), 30}, {state_of({7, 8}), 10}});
  CHECK(rounds.weights() == std::vector<double>{4, 5});
  const std::vector<Participant> present = {{"a", 1}, {"b", 1}, {"c", 1}};
  CHECK(Greedy().select(1, present) == std::vector<std::string>{"a", "c"});
}

}  // namespace
}  // namespace headstart::server
