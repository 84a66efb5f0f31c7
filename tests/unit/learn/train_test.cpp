#include "shared/learn/train/train.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <thread>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/data/stratified.hpp"
#include "shared/learn/train/local_objective.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

namespace {

const Task task{.shape = {1, 10, 10}, .num_classes = 3};
const ModelSpec small{.channels = {4, 6}, .kernel = 3, .hidden = 12, .norm = Norm::batch};

/// Class c is bright in row 3c, under noise.
Samples bright_rows(std::int64_t n, Seed seed) {
  const Tensor y = torch::arange(n, torch::kLong) % 3;
  const Tensor x = at::randn({n, 1, 10, 10}, generator(seed)) * 0.5;
  for (std::int64_t i = 0; i < n; ++i) x[i][0][3 * (i % 3)] += 1;
  return {x, y};
}

/// Logits w * x of a single feature; remembers the batches it saw.
class Line final : public Model {
 public:
  Tensor forward(const Tensor& x) override {
    batches.push_back(x.size(0));
    return x.flatten(1).matmul(weight_);
  }
  std::vector<Tensor> parameters() override { return {weight_}; }
  std::vector<NamedTensor> named_state() override { return {{"weight", weight_}}; }
  void set_training(bool) override {}
  void to(c10::Device) override {}

  std::vector<std::int64_t> batches;

 private:
  Tensor weight_ = torch::zeros({1, 2}).requires_grad_();
};

Samples ones(std::int64_t n, std::int64_t label) {
  return {torch::ones({n, 1, 1, 1}), torch::full({n}, label, torch::kLong)};
}

std::vector<std::int64_t> batches_of(std::int64_t n, std::int64_t batch_size) {
  Line model;
  train(model, ones(n, 0), {.batch_size = batch_size}, {torch::arange(n, torch::kLong)});
  return model.batches;
}

StateDict trained(Seed model_seed, Seed order_seed) {
  const Samples samples = bright_rows(50, Seed(1));
  const auto model = make_model(small, task, model_seed);
  train(*model, samples, {.batch_size = 8}, epoch_orders(samples.size(), 2, order_seed));
  return model->state();
}

}  // namespace

TEST_CASE("one SGD step with momentum and weight decay, by hand") {
  Line model;
  const OptimizerOptions sgd{.kind = OptimizerKind::sgd, .lr = 0.1, .momentum = 0.9, .weight_decay = 0.5};
  const Tensor once = torch::zeros({1}, torch::kLong);
  const double loss = train(model, ones(1, 0), {.optimizer = sgd, .batch_size = 1}, {once, once});
  // Gradient at w = (0, 0): p - (1, 0) = (-0.5, 0.5).
  const double w = 0.05;
  const double p = 1 / (1 + std::exp(-2 * w));
  const double momentum = 0.9 * -0.5 + (p - 1 + 0.5 * w);
  CHECK(model.parameters()[0][0][0].item<double>() == doctest::Approx(w - 0.1 * momentum));
  CHECK(loss == doctest::Approx(-std::log(p)));
}

TEST_CASE("Adam's first step is the learning rate, with weight decay inside of the gradient") {
  Line model;
  const OptimizerOptions adam{.kind = OptimizerKind::adam, .lr = 0.01, .weight_decay = 0.5};
  train(model, ones(4, 0), {.optimizer = adam, .batch_size = 4}, {torch::arange(4, torch::kLong)});
  CHECK(model.parameters()[0][0][0].item<double>() == doctest::Approx(0.01).epsilon(1e-4));
  CHECK(model.parameters()[0][0][1].item<double>() == doctest::Approx(-0.01).epsilon(1e-4));
}

TEST_CASE("batches are cut in sequence, a single last sample joins the batch before") {
  using Sizes = std::vector<std::int64_t>;
  CHECK(batches_of(8, 4) == Sizes{4, 4});
  CHECK(batches_of(9, 4) == Sizes{4, 5});
  CHECK(batches_of(10, 4) == Sizes{4, 4, 2});
  CHECK(batches_of(5, 4) == Sizes{5});
  CHECK(batches_of(3, 4) == Sizes{3});
  CHECK(batches_of(1, 4) == Sizes{1});
  CHECK(batches_of(3, 1) == Sizes{1, 1, 1});
}

TEST_CASE("the returned loss is the mean over the samples of the last epoch, not over the batches") {
  Line model;
  const OptimizerOptions still{.lr = 0, .weight_decay = 0};
  const Samples samples{torch::ones({7, 1, 1, 1}), torch::zeros({7}, torch::kLong)};
  {
    const at::NoGradGuard no_grad;
    model.parameters()[0][0][0].fill_(1);
    samples.x.narrow(0, 4, 3).fill_(-1);
  }
  const double mean = (4 * std::log1p(std::exp(-1.0)) + 3 * std::log1p(std::exp(1.0))) / 7;
  CHECK(train(model, samples, {.optimizer = still, .batch_size = 4}, {torch::arange(7, torch::kLong)}) ==
        doctest::Approx(mean));
}

TEST_CASE("the same seeds give the same bits, other seeds another model") {
  const StateDict first = trained(Seed(1), Seed(2));
  CHECK(bitwise_equal(first, trained(Seed(1), Seed(2))));
  CHECK_FALSE(bitwise_equal(first, trained(Seed(1), Seed(3))));
  CHECK_FALSE(bitwise_equal(first, trained(Seed(2), Seed(2))));
}

TEST_CASE("training leaves the process-wide generator as it was") {
  auto global = at::detail::getDefaultCPUGenerator();
  const Tensor before = global.get_state();
  trained(Seed(1), Seed(2));
  const auto model = make_model(small, task, Seed(1));
  pretrain(*model, bright_rows(30, Seed(1)), bright_rows(9, Seed(2)), {.max_epochs = 2}, Seed(3));
  CHECK(global.get_state().equal(before));
}

TEST_CASE("two models trained at once in two threads end as alone") {
  const StateDict alone = trained(Seed(1), Seed(2));
  StateDict first, second;
  {
    const std::jthread one([&] { first = trained(Seed(1), Seed(2)); });
    const std::jthread two([&] { second = trained(Seed(1), Seed(2)); });
  }
  CHECK(bitwise_equal(first, alone));
  CHECK(bitwise_equal(second, alone));
}

TEST_CASE("a trained model forgets its gradients") {
  const Samples samples = bright_rows(20, Seed(1));
  const auto model = make_model(small, task, Seed(1));
  train(*model, samples, {}, epoch_orders(20, 1, Seed(1)));
  for (const Tensor& parameter : model->parameters()) CHECK_FALSE(parameter.grad().defined());
}

TEST_CASE("epoch orders are permutations, each epoch its own") {
  const std::vector<Tensor> orders = epoch_orders(40, 3, Seed(5));
  REQUIRE(orders.size() == 3);
  for (const Tensor& order : orders) CHECK(std::get<0>(order.sort()).equal(torch::arange(40, torch::kLong)));
  CHECK_FALSE(orders[0].equal(orders[1]));
  CHECK_FALSE(orders[1].equal(orders[2]));
  CHECK(epoch_orders(40, 1, Seed(5))[0].equal(orders[0]));
}

TEST_CASE("orders and held-out samples are those that the Python package draws from the same seeds") {
  const nlohmann::json golden = read_json("tests/golden/order_vectors.json");
  for (const auto& one : golden["children"]) {
    CHECK(Seed(one["seed"].get<std::uint64_t>()).child(one["label"].get<std::string>()).value() == one["child"]);
  }
  const nlohmann::json& place = golden["silo"];
  const Seed silo = Seed(place["run"].get<std::uint64_t>()).child("client").child(place["name"].get<std::string>());
  const Seed round = silo.child("train").child(place["round"].get<std::uint64_t>());
  CHECK(round.value() == place["seed"]);
  for (const auto& one : golden["orders"]) {
    const auto& epochs = one["epochs"];
    const auto orders = epoch_orders(one["size"].get<std::int64_t>(), std::ssize(epochs), round);
    for (std::size_t i = 0; i < orders.size(); ++i) {
      CHECK(orders[i].equal(torch::tensor(epochs[i].get<std::vector<std::int64_t>>(), torch::kLong)));
    }
  }
  for (const auto& one : golden["held_out"]) {
    const Tensor labels = torch::tensor(one["labels"].get<std::vector<std::int64_t>>(), torch::kLong);
    const auto [training, held_out] = holdout_split(labels, one["fraction"].get<double>(), silo.child("held out"));
    CHECK(held_out.equal(torch::tensor(one["held_out"].get<std::vector<std::int64_t>>(), torch::kLong)));
    CHECK(training.size(0) + held_out.size(0) == labels.size(0));
  }
}

TEST_CASE("data that is not finite ends training by name, whatever the epoch") {
  Samples samples = bright_rows(20, Seed(1));
  samples.x[7][0][0][0] = std::numeric_limits<float>::quiet_NaN();
  const auto model = make_model(small, task, Seed(1));
  CHECK_THROWS_WITH_AS(train(*model, samples, {}, epoch_orders(20, 1, Seed(1))),
                       doctest::Contains("the mean loss of epoch 1 is nan"), Error);
  CHECK(test::code_of([&] { pretrain(*model, samples, {}, {}, Seed(1)); }) == Errc::run_failed);
}

TEST_CASE("nothing to train on is refused") {
  Line model;
  CHECK(test::code_of([&] { train(model, {}, {}, {}); }) == Errc::data);
  CHECK(test::code_of([&] { train(model, ones(3, 0).without_labels(), {}, {}); }) == Errc::data);
  CHECK(test::code_of([&] { train(model, ones(3, 0), {.batch_size = 0}, {}); }) == Errc::usage);
}

TEST_CASE("batch normalisation of a single value is refused instead of poisoning its statistics") {
  const Samples one{torch::ones({1, 1, 4, 4}), torch::zeros({1}, torch::kLong)};
  const auto model = make_model({.name = "resnet18", .width = 2}, {{1, 4, 4}, 2}, Seed(1));
  CHECK(test::code_of([&] { train(*model, one, {}, epoch_orders(1, 1, Seed(1))); }) == Errc::run_failed);
}

TEST_CASE("progress counts samples up to the total, and a stop ends the work at the next batch") {
  const Samples samples = bright_rows(21, Seed(1));
  const auto model = make_model(small, task, Seed(1));
  std::vector<std::int64_t> done;
  train(*model, samples, {.batch_size = 10}, epoch_orders(21, 2, Seed(1)), [&](const Progress& progress) {
    CHECK(progress.total == 42);
    done.push_back(progress.done);
  });
  CHECK(done == std::vector<std::int64_t>{10, 21, 31, 42});
  std::stop_source stop;
  std::int64_t seen = 0;
  const auto stop_after_first = [&](const Progress& progress) {
    seen = progress.done;
    stop.request_stop();
  };
  CHECK(test::code_of([&] {
          train(*model, samples, {.batch_size = 10}, epoch_orders(21, 2, Seed(1)), stop_after_first, stop.get_token());
        }) == Errc::interrupted);
  CHECK(seen == 10);
}

TEST_CASE("pre-training learns, and returns and loads the state that it judged best") {
  const Samples training = bright_rows(90, Seed(1));
  const Samples held_out = bright_rows(30, Seed(2));
  const auto model = make_model(small, task, Seed(1));
  const PretrainOptions options{
      .optimizer = {.kind = OptimizerKind::adam, .lr = 0.01}, .max_epochs = 15, .patience = 4};
  const PretrainResult result = pretrain(*model, training, held_out, options, Seed(3));
  CHECK(result.held_out.accuracy() > 0.8);
  CHECK(bitwise_equal(model->state(), result.best));
  const Evaluation again = evaluate(*model, held_out, 3);
  CHECK(again.correct == result.held_out.correct);
  CHECK(again.loss_sum == doctest::Approx(result.held_out.loss_sum));
}

TEST_CASE("early stopping goes by the metric: the epoch kept is the best by it, then by the loss") {
  // Labels of a fifth of the samples are another class's: what is learned of one class is lost of another.
  Samples training = bright_rows(60, Seed(4));
  training.y = torch::where(torch::arange(60, torch::kLong) % 5 == 0, (training.y + 1) % 3, training.y);
  const Samples held_out = bright_rows(24, Seed(5));
  PretrainOptions options{
      .optimizer = {.kind = OptimizerKind::adam, .lr = 0.02}, .max_epochs = 12, .patience = 12, .batch_size = 8};
  // After k epochs without held-out samples the model is that of epoch k.
  std::vector<Evaluation> epochs;
  for (std::int64_t last = 1; last <= options.max_epochs; ++last) {
    PretrainOptions until = options;
    until.max_epochs = last;
    const auto model = make_model(small, task, Seed(1));
    pretrain(*model, training, {}, until, Seed(3));
    epochs.push_back(evaluate(*model, held_out, 3, Measures::exact));
  }
  std::set<std::int64_t> kept;
  for (const char* word : {"accuracy", "recall:0", "recall:1", "recall:2", "auc:1", "log_loss"}) {
    CAPTURE(word);
    options.metric = metric_of(word, {"0", "1", "2"});
    std::size_t best = 0;
    for (std::size_t epoch = 1; epoch < epochs.size(); ++epoch) {
      const double gain = options.metric.gain(epochs[epoch], epochs[best]);
      if (gain > 0 || (gain == 0 && epochs[epoch].loss() < epochs[best].loss())) best = epoch;
    }
    const auto model = make_model(small, task, Seed(1));
    const PretrainResult result = pretrain(*model, training, held_out, options, Seed(3));
    CHECK(result.best_epoch == static_cast<std::int64_t>(best) + 1);
    kept.insert(result.best_epoch);
  }
  CHECK(kept.size() > 1);
}

TEST_CASE("pre-training tells its progress while it judges, too, and can be stopped there") {
  const Samples training = bright_rows(20, Seed(1));
  const Samples held_out = bright_rows(300, Seed(2));
  const auto model = make_model(small, task, Seed(1));
  const PretrainOptions options{.max_epochs = 2, .batch_size = 10};
  std::vector<std::int64_t> done;
  std::stop_source stop;
  std::size_t last = 0;
  const auto note = [&](const Progress& progress) {
    CHECK(progress.total == 40);
    done.push_back(progress.done);
    if (done.size() == last) stop.request_stop();
  };
  pretrain(*model, training, held_out, options, Seed(3), note);
  CHECK(done == std::vector<std::int64_t>{10, 20, 20, 20, 30, 40, 40, 40});
  done.clear();
  last = 3;
  CHECK(test::code_of([&] { pretrain(*model, training, held_out, options, Seed(3), note, stop.get_token()); }) ==
        Errc::interrupted);
  CHECK(done.size() == last);
}

TEST_CASE("on a plateau it stops after the patience, with the first epoch's model kept") {
  // Labels of the held-out sample contradict the training: every further epoch is worse than the first.
  Line model;
  const PretrainOptions options{.optimizer = {.lr = 0.1, .weight_decay = 0}, .max_epochs = 50, .patience = 4};
  const PretrainResult result = pretrain(model, ones(2, 0), ones(3, 1), options, Seed(1));
  CHECK(result.best_epoch == 1);
  CHECK(result.num_epochs == 5);
  CHECK(result.held_out.num_samples() == 3);
  CHECK(model.parameters()[0][0][0].item<double>() == doctest::Approx(0.05));
}

TEST_CASE("equal held-out accuracy goes to the lower loss") {
  Line model;
  const PretrainOptions options{.optimizer = {.lr = 0.1, .weight_decay = 0}, .max_epochs = 6, .patience = 1};
  const PretrainResult result = pretrain(model, ones(2, 0), ones(3, 0), options, Seed(1));
  CHECK(result.held_out.accuracy() == 1);
  CHECK(result.best_epoch == 6);
}

TEST_CASE("without held-out samples all epochs run and the last is kept") {
  Line model;
  const PretrainOptions options{.optimizer = {.lr = 0.1, .weight_decay = 0}, .max_epochs = 5, .patience = 1};
  const PretrainResult result = pretrain(model, ones(2, 0), {}, options, Seed(1));
  CHECK(result.num_epochs == 5);
  CHECK(result.best_epoch == 5);
  CHECK(result.held_out.num_samples() == 0);
  CHECK(bitwise_equal(result.best, model.state()));
}

TEST_CASE("a scripted model trains, its batch statistics included") {
  const Task script_task{.shape = {1, 4, 4}, .num_classes = 3};
  const auto run = [&] {
    const auto model = make_model({.name = "script:tests/golden/scripted/batch_norm.pt"}, script_task, Seed(1));
    const Samples samples{at::randn({30, 1, 4, 4}, generator(Seed(4))), torch::arange(30, torch::kLong) % 3};
    const TrainOptions options{.optimizer = {.kind = OptimizerKind::adam, .lr = 0.01}, .batch_size = 10};
    const double first = train(*model, samples, options, epoch_orders(30, 1, Seed(1)));
    const double last = train(*model, samples, options, epoch_orders(30, 20, Seed(2)));
    CHECK(last < 0.7 * first);
    return model->state();
  };
  const StateDict state = run();
  CHECK(state.at("1.num_batches_tracked").item<std::int64_t>() == 63);
  CHECK(bitwise_equal(state, run()));
}

TEST_CASE("a scripted model's training does not depend on calls made before it") {
  const Task script_task{.shape = {1, 4, 4}, .num_classes = 3};
  const Samples samples{at::randn({30, 1, 4, 4}, generator(Seed(4))), torch::arange(30, torch::kLong) % 3};
  const auto run = [&](int evaluations) {
    const auto model = make_model({.name = "script:tests/golden/scripted/gated.pt"}, script_task, Seed(1));
    for (int i = 0; i < evaluations; ++i) evaluate(*model, samples, 3);
    train(*model, samples, {.batch_size = 10}, epoch_orders(30, 3, Seed(1)));
    return model->state();
  };
  CHECK(bitwise_equal(run(0), run(5)));
}

TEST_CASE("a model with dropout trains to the same bits under a lease of the same seed") {
  const Task script_task{.shape = {1, 4, 4}, .num_classes = 3};
  const Samples samples{at::randn({30, 1, 4, 4}, generator(Seed(4))), torch::arange(30, torch::kLong) % 3};
  const auto run = [&](Seed seed) {
    const auto model = make_model({.name = "script:tests/golden/scripted/dropout.pt"}, script_task, Seed(1));
    const GlobalGeneratorLease lease(seed);
    train(*model, samples, {.batch_size = 10}, epoch_orders(30, 2, Seed(1)));
    return model->state();
  };
  CHECK(bitwise_equal(run(Seed(8)), run(Seed(8))));
  CHECK_FALSE(bitwise_equal(run(Seed(8)), run(Seed(9))));
}

TEST_CASE("holdout splits: disjoint, complete, stratified, for many seeds and sizes") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const auto n = static_cast<std::int64_t>(10 + 13 * seed);
    const double fraction = static_cast<double>(seed % 10) / 10;
    CAPTURE(seed);
    const Tensor labels = at::randint(0, 4, {n}, generator(Seed(seed)), at::kLong);
    const auto [training, held_out] = holdout_split(labels, fraction, Seed(seed));
    CHECK(held_out.size(0) == static_cast<std::int64_t>(seed % 10) * n / 10);
    CHECK(std::get<0>(torch::cat({training, held_out}).sort()).equal(torch::arange(n, torch::kLong)));
    CHECK(training.equal(std::get<0>(training.sort())));
    CHECK(held_out.equal(std::get<0>(held_out.sort())));
    const Tensor shares = torch::bincount(labels, {}, 4).to(torch::kDouble) * held_out.size(0) / n;
    const Tensor taken = torch::bincount(labels.index_select(0, held_out), {}, 4).to(torch::kDouble);
    CHECK((shares - taken).abs().max().item<double>() < 1);
  }
}

TEST_CASE("holdout splits follow their seed and keep one sample for training") {
  const Tensor labels = torch::arange(100, torch::kLong) % 5;
  const auto first = holdout_split(labels, 0.29, Seed(1));
  CHECK(first.second.size(0) == 29);
  CHECK(first.second.equal(holdout_split(labels, 0.29, Seed(1)).second));
  CHECK_FALSE(first.second.equal(holdout_split(labels, 0.29, Seed(2)).second));
  CHECK(holdout_split(labels, 1, Seed(1)).first.size(0) == 1);
  CHECK(holdout_split(labels.narrow(0, 0, 1), 0.9, Seed(1)).first.size(0) == 1);
  CHECK(test::code_of([&] { holdout_split(labels, 1.5, Seed(1)); }) == Errc::usage);
  CHECK(test::code_of([&] { holdout_split(labels.narrow(0, 0, 0), 0.1, Seed(1)); }) == Errc::usage);
}

TEST_CASE("settings are declared under their prefix, the optimiser's beside the training's") {
  TrainOptions options;
  Fields fields;
  declare_fields(fields, "train", options);
  fields.load(nlohmann::json::parse(R"({"train": {"optimizer": "adam", "lr": 0.5, "batch_size": 7}})"), "test");
  CHECK(options.optimizer.kind == OptimizerKind::adam);
  CHECK(options.optimizer.lr == 0.5);
  CHECK(options.batch_size == 7);
  CHECK_THROWS_AS(fields.set("train.batch_size=0"), Error);
}

TEST_CASE("FedProx: the gradient is pulled towards the model as it was received") {
  const Tensor parameter = torch::tensor({1.0}, torch::kDouble);
  const std::vector<NamedTensor> received = {{"w", parameter}};
  const auto term = make_proximal_term({{.proximal_mu = 0.01}, received, {}, {}});
  REQUIRE(term != nullptr);
  parameter.fill_(1.1);
  parameter.mutable_grad() = torch::tensor({0.3}, torch::kDouble);
  term->correct_gradients({parameter});
  CHECK(parameter.grad().item<double>() == doctest::Approx(0.301).epsilon(1e-12));
  CHECK(make_proximal_term({{}, received, {}, {}}) == nullptr);
}

TEST_CASE("gradient clipping: what is longer is scaled to the limit, over all parameters together, as PyTorch does") {
  const std::vector<NamedTensor> received;
  const auto clip = make_gradient_clip({{.clip = 2}, received, {}, {}});
  REQUIRE(clip != nullptr);
  const Tensor a = torch::zeros({2}, torch::kDouble);
  const Tensor b = torch::zeros({1}, torch::kDouble);
  const Tensor unused = torch::zeros({1}, torch::kDouble);
  a.mutable_grad() = torch::tensor({3.0, 0.0}, torch::kDouble);
  b.mutable_grad() = torch::tensor({4.0}, torch::kDouble);
  clip->correct_gradients({a, b, unused});  // of norm 5
  CHECK(a.grad()[0].item<double>() == doctest::Approx(3 * 2 / (5 + 1e-6)).epsilon(1e-12));
  CHECK(b.grad().item<double>() == doctest::Approx(4 * 2 / (5 + 1e-6)).epsilon(1e-12));
  CHECK_FALSE(unused.grad().defined());
  const Tensor before = a.grad().clone();
  clip->correct_gradients({a});  // shorter than the limit
  CHECK(torch::equal(a.grad(), before));
  CHECK(make_gradient_clip({{}, received, {}, {}}) == nullptr);
}

/// Remembers the sum of its rounds' last parameters.
class Summing final : public LocalObjective {
 public:
  explicit Summing(StateDict memory) : memory_(std::move(memory)) {}
  void correct_gradients(const std::vector<Tensor>&) override {}
  [[nodiscard]] StateDict remembered(const std::vector<Tensor>& trained) const override {
    Tensor sum = trained.front().sum().to(torch::kDouble).reshape({1});
    if (!memory_.is_empty()) sum = sum + memory_.at("sum");
    return StateDict({{"sum", sum}});
  }

 private:
  StateDict memory_;
};

TEST_CASE("an objective that exists in this file alone gets back what it remembered, under names of its own") {
  static constexpr LocalObjectiveRow rows[] = {
      {"proximal term", make_proximal_term},
      {"summing", [](const ObjectiveInputs& inputs) -> std::unique_ptr<LocalObjective> {
         return std::make_unique<Summing>(inputs.memory);
       }}};
  const Samples samples{torch::ones({4, 1, 10, 10}), torch::tensor({0, 1, 0, 1})};
  const auto model = make_model(small, task, Seed(1));
  const TrainOptions options{.epochs = 1};
  const auto orders = epoch_orders(4, 1, Seed(2));
  double expected = 0;
  ObjectiveStates memory;
  for (int round = 0; round < 3; ++round) {
    train(*model, samples, options, orders, {}, {}, &memory, rows);
    expected += model->parameters().front().sum().item<double>();
    CHECK(memory.after.at("summing/sum").item<double>() == doctest::Approx(expected));
    CHECK(memory.after.tensors().size() == 1);
    memory.before = std::move(memory.after);
  }
}

}  // namespace headstart::learn
