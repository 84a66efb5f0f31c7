#include "shared/learn/tune/setting_search.hpp"

#include <cmath>
#include <map>
#include <set>

#include <doctest/doctest.h>

#include "shared/base/error.hpp"
#include "shared/learn/tune/tune.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

using namespace headstart;
using namespace headstart::learn;
using namespace headstart::test;

namespace {

using Surface = std::function<std::optional<Rating>(const Ask&)>;

/// What was asked for, in order.
std::vector<Ask> run(SettingSearch& search, const Surface& surface) {
  std::vector<Ask> asks;
  while (const auto ask = search.next()) {
    asks.push_back(*ask);
    search.tell(surface(*ask));
  }
  return asks;
}

/// A smooth response with its top at the given setting, on a logarithmic scale of T.
Surface hill(KdSetting top) {
  return [top](const Ask& ask) -> std::optional<Rating> {
    const double distance =
        std::abs(std::log(ask.setting.temperature / top.temperature)) + 2 * std::abs(ask.setting.alpha - top.alpha);
    return Rating{.accuracy = 0.8 - 0.1 * distance, .loss = 1 + distance};
  };
}

}  // namespace

TEST_CASE("grid search: every setting once with all epochs, and the top of any surface") {
  const SettingGrid grid;
  for (const double temperature : grid.temperatures) {
    for (const double alpha : grid.alphas) {
      const auto search = grid_search(grid, 10, true);
      const std::vector<Ask> asks = run(*search, hill({temperature, alpha}));
      CHECK(asks.size() == 55);
      std::set<std::pair<double, double>> settings;
      for (const Ask& ask : asks) {
        CHECK(ask.epochs == 10);
        settings.emplace(ask.setting.temperature, ask.setting.alpha);
      }
      CHECK(settings.size() == 55);
      CHECK(search->best().setting == KdSetting{temperature, alpha});
    }
  }
  CHECK(run(*grid_search(grid, 10, false), hill({2, 0.5})).size() == 11);
}

TEST_CASE("staged search: alpha at T = 1, then T at the best alpha, nothing twice") {
  const auto search = staged_search({}, 10, true);
  const std::vector<Ask> asks = run(*search, hill({4, 0.9}));
  REQUIRE(asks.size() == 5 + 10);
  for (std::size_t i = 0; i < asks.size(); ++i) {
    CHECK((i < 5 ? asks[i].setting.temperature == 1 : asks[i].setting.alpha == 0.9));
  }
  CHECK(search->best().setting == KdSetting{4, 0.9});
  const auto unlabeled = staged_search({}, 10, false);
  CHECK(run(*unlabeled, hill({0.1, 0.5})).size() == 11);
  CHECK(unlabeled->best().setting.temperature == 0.1);
}

TEST_CASE("searches: equal accuracies are decided by the loss, equals by who came first; divergence is worst") {
  const auto by_loss = grid_search({}, 10, true);
  run(*by_loss, [](const Ask& ask) { return Rating{0.5, std::abs(ask.setting.temperature - 3)}; });
  CHECK(by_loss->best().setting == KdSetting{3, 0.1});
  const auto diverging = grid_search({}, 10, true);
  run(*diverging, [](const Ask& ask) -> std::optional<Rating> {
    if (ask.setting.temperature > 1) return std::nullopt;
    return Rating{ask.setting.temperature / 10, 1};
  });
  CHECK(diverging->best().setting == KdSetting{1, 0.1});
  const auto hopeless = staged_search({}, 10, true);
  CHECK(code_of([&] { run(*hopeless, [](const Ask&) { return std::nullopt; }); }) == Errc::run_failed);
  CHECK(code_of([] { grid_search({.temperatures = {}}, 10, true); }) == Errc::usage);
}

TEST_CASE("tuner: near the top of a known surface, wherever it is, at an eighth of the grid's cost") {
  const SettingGrid grid;
  double sum = 0;
  double sum_of_default = 0;
  for (const double temperature : grid.temperatures) {
    for (const double alpha : grid.alphas) {
      CAPTURE(temperature);
      CAPTURE(alpha);
      const Surface surface = hill({temperature, alpha});
      const auto search = automatic_search(grid, 10, true);
      const std::vector<Ask> asks = run(*search, surface);
      CHECK(asks.size() <= 7);
      std::set<std::pair<double, double>> settings;
      for (const Ask& ask : asks) settings.emplace(ask.setting.temperature, ask.setting.alpha);
      CHECK(settings.size() == asks.size());
      const double regret = 0.8 - surface(search->best())->accuracy;
      CHECK(regret < 0.06);
      sum += regret;
      sum_of_default += 0.8 - surface({.setting = {}})->accuracy;
    }
  }
  CHECK(sum / 55 < 0.02);
  CHECK(sum_of_default / 55 > 0.1);
}

TEST_CASE(
    "tuner: the nearest settings of another grid, temperatures alone without labels, few trials where few promise") {
  const SettingGrid coarse{.temperatures = {0.2, 1, 4}, .alphas = {0.3, 0.7}};
  const auto search = automatic_search(coarse, 3, true);
  const std::vector<Ask> asks = run(*search, hill({4, 0.3}));
  CHECK(asks.size() <= 5);
  CHECK(search->best().setting == KdSetting{4, 0.3});
  const auto unlabeled = automatic_search({}, 3, false);
  CHECK(run(*unlabeled, hill({5, 0.5})).size() == 4);
  CHECK(unlabeled->best().setting.temperature >= 3);
  const auto single = automatic_search({.temperatures = {2}, .alphas = {0.5}}, 3, true);
  CHECK(run(*single, hill({2, 0.5})).size() == 1);
  // Every student diverges but one.
  const auto diverging = automatic_search({}, 3, true);
  run(*diverging, [](const Ask& ask) -> std::optional<Rating> {
    if (ask.setting.alpha > 0.3 || ask.setting.temperature > 1) return std::nullopt;
    return Rating{0.4, 1};
  });
  CHECK(diverging->best().setting == KdSetting{0.1, 0.25});
}

namespace {

/// A search that goes on with its first trial after it tried a second.
class TwoRungs final : public SettingSearch {
 public:
  std::optional<Ask> next() override {
    const std::vector<Ask> asks = {{0, {1, 0.5}, 2}, {1, {4, 0.5}, 2}, {0, {1, 0.5}, 4}};
    return num_told_ < asks.size() ? std::optional(asks[num_told_]) : std::nullopt;
  }
  void tell(const std::optional<Rating>& rating) override {
    ratings.push_back(rating);
    ++num_told_;
  }
  [[nodiscard]] bool is_over_for(std::size_t trial) const override { return num_told_ >= (trial == 0 ? 3 : 2); }
  [[nodiscard]] Ask best() const override { return {0, {1, 0.5}, 4}; }

  std::vector<std::optional<Rating>> ratings;

 private:
  std::size_t num_told_ = 0;
};

TuneProblem problem_of(const Samples& transfer, const Tensor& logits, const Samples& validation) {
  DistillOptions options{.epochs = 4, .batch_size = 16};
  options.optimizer.lr = 5e-3;
  return {.make_student = [] { return make_model(small_spec(Norm::batch), small_task, Seed(8)); },
          .transfer = transfer,
          .guidance =
              [logits](double temperature) {
                return guidance(logits, equal_weights(1, 4), DistillOptions{.temperature = temperature});
              },
          .options = options,
          .seed = Seed(1),
          .rate = [validation](Model& model) { return evaluate(model, validation, 4); }};
}

}  // namespace

TEST_CASE("tune: a trial gone on with is the student that distil() makes, and records say what was spent") {
  const Samples transfer = separable_samples(96, Seed(2));
  const Samples validation = separable_samples(80, Seed(3));
  const Tensor logits = random_logits({1, 96, 4}, Seed(4)).to(torch::kFloat);
  TuneProblem problem = problem_of(transfer, logits, validation);
  problem.measure = [](Model&) { return 0.25; };
  TwoRungs search;
  const TuneResult result = tune(search, problem);
  DistillOptions options = problem.options;
  options.temperature = 1;
  const auto whole = problem.make_student();
  distill(*whole, transfer, problem.guidance(1), options, problem.seed);
  CHECK(bitwise_equal(result.student->state(), whole->state()));
  CHECK(result.epochs == 6);
  REQUIRE(result.trials.size() == 2);
  CHECK(result.trials[0].epochs == 4);
  CHECK(result.trials[0].measured == 0.25);
  CHECK(result.trials[0].rating->accuracy == problem.rate(*whole).accuracy());
  CHECK(result.trials[1].epochs == 2);
  CHECK_FALSE(result.trials[1].measured);
}

TEST_CASE("tune: the grid's best student is the one that its setting gives") {
  const Samples transfer = separable_samples(64, Seed(2));
  const Samples validation = separable_samples(80, Seed(3));
  const Tensor logits = random_logits({1, 64, 4}, Seed(4)).to(torch::kFloat);
  TuneProblem problem = problem_of(transfer, logits, validation);
  problem.rates_epochs = true;
  const auto search = grid_search({.temperatures = {0.5, 2, 5}, .alphas = {0.1, 0.9}}, 4, true);
  const TuneResult result = tune(*search, problem);
  REQUIRE(result.trials.size() == 6);
  Rating best = *result.trials[0].rating;
  for (const TrialRecord& trial : result.trials) {
    CHECK(trial.curve.size() == 4);
    CHECK_FALSE(is_better(*trial.rating, rating_of(problem.rate(*result.student))));
    if (is_better(*trial.rating, best)) best = *trial.rating;
  }
  CHECK(rating_of(problem.rate(*result.student)).loss == best.loss);
  CHECK(result.epochs == 24);
}

TEST_CASE("tune: a setting that diverges is passed over") {
  const Samples transfer = separable_samples(64, Seed(2));
  const Samples validation = separable_samples(80, Seed(3));
  TuneProblem problem = problem_of(transfer, random_logits({1, 64, 4}, Seed(4)).to(torch::kFloat), validation);
  const auto sound = problem.guidance;
  problem.guidance = [sound](double temperature) {
    Guidance guided = sound(temperature);
    if (temperature > 1) guided.targets = guided.targets * std::nan("");
    return guided;
  };
  const auto search = grid_search({.temperatures = {3, 1}, .alphas = {0.5}}, 4, true);
  const TuneResult result = tune(*search, problem);
  CHECK(result.setting.temperature == 1);
  CHECK_FALSE(result.trials[0].rating);
}
