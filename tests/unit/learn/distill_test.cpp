#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/train/batches.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

using namespace headstart;
using namespace headstart::learn;
using namespace headstart::test;

namespace {

const nlohmann::json& golden() {
  static const nlohmann::json document = read_json("tests/golden/distill_vectors.json");
  return document;
}

}  // namespace

TEST_CASE("teacher weights: PyTorch's golden vectors, a class that nobody knows included") {
  const Tensor adaptive =
      adaptive_weights(tensor_of(golden().at("teacher_accuracy")), tensor_of(golden().at("others_accuracy")),
                       tensor_of(golden().at("student_accuracy")));
  CHECK(largest_difference(adaptive, tensor_of(golden().at("adaptive"))) < golden_tolerance);
  CHECK(largest_difference(adaptive.select(1, 2), torch::full({3}, 1.0 / 3, torch::kFloat64)) == 0);
}

TEST_CASE("teacher weights: a column sums to the teachers' share of the denominator") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Tensor others = torch::rand({9, 10}, generator(Seed(seed).child("others")), torch::kFloat64);
    const Tensor student = torch::rand({10}, generator(Seed(seed).child("student")), torch::kFloat64);
    const Tensor among_others = adaptive_weights(others, others, student).sum(0);
    CHECK(largest_difference(among_others, others.sum(0) / (others.sum(0) + student)) < 1e-14);
    // On a public set the student's frozen copy teaches too, and the columns sum to 1.
    const Tensor with_copy = torch::cat({others, student.unsqueeze(0)});
    const Tensor weights = adaptive_weights(with_copy, others, student);
    CHECK(largest_difference(weights.sum(0), torch::ones({10})) < 1e-14);
    // A better teacher never weighs less.
    CHECK(((weights.unsqueeze(0) >= weights.unsqueeze(1)) == (with_copy.unsqueeze(0) >= with_copy.unsqueeze(1)))
              .all()
              .item<bool>());
  }
  CHECK(largest_difference(equal_weights(4, 3), torch::full({4, 3}, 0.25)) == 0);
}

TEST_CASE("distillation: values and gradients of the full loss over all teachers, as PyTorch has them") {
  const Tensor student = tensor_of(golden().at("student"));
  const Tensor teachers = tensor_of(golden().at("teachers"));
  const Tensor labels = torch::tensor(golden().at("labels").get<std::vector<std::int64_t>>());
  REQUIRE(golden().at("cases").size() == 48);
  for (const nlohmann::json& expected : golden().at("cases")) {
    const DistillOptions options{.temperature = expected.at("temperature"),
                                 .alpha = expected.at("alpha"),
                                 .scale_by_t2 = expected.at("scale_by_t2")};
    CAPTURE(expected.at("weighting").get<std::string>());
    CAPTURE(options.temperature);
    CAPTURE(options.alpha);
    CAPTURE(options.scale_by_t2);
    const Tensor weights =
        expected.at("weighting") == "equal" ? equal_weights(3, 5) : tensor_of(golden().at("adaptive"));
    const Guidance guided = guidance(teachers, weights, options);
    const double constant = expected.at("constant");
    const auto compare = [&](const nlohmann::json& vector, const std::optional<Tensor>& given, double left_out) {
      const auto objective = [&](const Tensor& logits) {
        return distillation_objective(logits, guided, given, options);
      };
      CHECK(std::abs(objective(student).item<double>() + left_out - vector.at("value").get<double>()) <
            golden_tolerance);
      CHECK(largest_difference(gradient_of(student, objective), tensor_of(vector.at("gradient"))) < golden_tolerance);
    };
    compare(expected.at("unlabeled"), std::nullopt, constant);
    compare(expected.at("labeled"), labels, options.alpha * constant);
  }
}

TEST_CASE("KL divergence: from the target to the model, mean over the batch") {
  const Tensor student = tensor_of(golden().at("student"));
  const Tensor teacher = tensor_of(golden().at("teachers"))[0];
  for (const nlohmann::json& expected : golden().at("kl_teacher_0_to_student")) {
    const double divergence = kl_divergence(teacher, student, expected.at("temperature")).item<double>();
    CHECK(std::abs(divergence - expected.at("value").get<double>()) < golden_tolerance);
  }
  CHECK(kl_divergence(student, student, 2).item<double>() == 0);
  // Half of the mass at a class of probability 1/4, none at -inf: log 2 each way round the zeros.
  const double inf = std::numeric_limits<double>::infinity();
  const Tensor half = torch::tensor({{0.0, 0.0, -inf, -inf}}, torch::kFloat64);
  const Tensor quarter = torch::zeros({1, 4}, torch::kFloat64);
  CHECK(kl_divergence(half, quarter, 1).item<double>() == doctest::Approx(std::log(2)).epsilon(1e-14));
}

TEST_CASE("soft targets: one target gives the gradient of all teachers together") {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const Seed root(seed);
    const Tensor teachers = random_logits({4, 6, 10}, root.child("teachers"));
    const Tensor weights = torch::rand({4, 10}, generator(root.child("weights")), torch::kFloat64);
    const Tensor student = random_logits({6, 10}, root.child("student"));
    for (const double temperature : {0.3, 1.0, 2.5, 7.0}) {
      const auto all_teachers = [&](const Tensor& logits) {
        const Tensor log_p = torch::log_softmax(logits / temperature, 1);
        const Tensor log_k = torch::log_softmax(teachers / temperature, 2);
        return (weights.unsqueeze(1) * log_k.exp() * (log_k - log_p)).sum(2).sum(0).mean() * temperature * temperature;
      };
      const DistillOptions options{.temperature = temperature};
      const Guidance guided = guidance(teachers, weights, options);
      const auto collapsed = [&](const Tensor& logits) { return distillation_term(logits, guided, options); };
      CHECK(largest_difference(gradient_of(student, collapsed), gradient_of(student, all_teachers)) < 1e-12);
    }
  }
}

TEST_CASE("soft targets: equal weights give distributions, and the teachers' order does not matter") {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const Seed root(seed);
    const Tensor teachers = random_logits({5, 8, 10}, root.child("teachers"), 20);
    const Tensor equal = soft_targets(teachers, equal_weights(5, 10), 1.5);
    CHECK(largest_difference(equal.sum(1), torch::ones({8})) < 1e-14);
    const Tensor weights = torch::rand({5, 10}, generator(root.child("weights")), torch::kFloat64);
    const Tensor order = permutation(5, root.child("order"));
    CHECK(largest_difference(soft_targets(teachers.index_select(0, order), weights.index_select(0, order), 1.5),
                             soft_targets(teachers, weights, 1.5)) < 1e-14);
  }
}

TEST_CASE("soft targets: uniform at a high temperature, the teachers' weighted votes at a low one") {
  const Tensor teachers = random_logits({3, 40, 6}, Seed(4));
  const Tensor weights = torch::rand({3, 6}, generator(Seed(5)), torch::kFloat64);
  CHECK(largest_difference(soft_targets(teachers, weights, 1e9), (weights.sum(0) / 6).expand({40, 6})) < 1e-7);
  const Tensor votes = torch::one_hot(teachers.argmax(2), 6).to(torch::kFloat64);
  CHECK(largest_difference(soft_targets(teachers, weights, 1e-6), (votes * weights.unsqueeze(1)).sum(0)) < 1e-7);
  CHECK(largest_difference(ensemble_scores(teachers, weights), soft_targets(teachers, weights, 1)) == 0);
}

TEST_CASE("soft targets: of the logits' type, and shapes that do not fit are refused") {
  const Tensor teachers = random_logits({3, 4, 6}, Seed(4)).to(torch::kFloat32).requires_grad_(true);
  const Tensor targets = soft_targets(teachers, equal_weights(3, 6), 2);
  CHECK((targets.scalar_type() == torch::kFloat32));
  CHECK_FALSE(targets.requires_grad());
  CHECK_THROWS_AS(soft_targets(teachers, equal_weights(2, 6), 1), Error);
  CHECK_THROWS_AS(soft_targets(teachers, equal_weights(3, 5), 1), Error);
  CHECK_THROWS_AS(adaptive_weights(torch::ones({2, 3}), torch::ones({2, 4}), torch::ones({3})), Error);
}

TEST_CASE("distillation: alpha weighs the distillation term, 1 - alpha the labels") {
  const Tensor student = random_logits({9, 5}, Seed(1));
  const Tensor labels = torch::arange(9, torch::kInt64) % 5;
  const DistillOptions only_teachers{.temperature = 4, .alpha = 1};
  const DistillOptions only_labels{.temperature = 4, .alpha = 0};
  const DistillOptions without_factor{.temperature = 4, .scale_by_t2 = false};
  const Guidance targets = guidance(random_logits({1, 9, 5}, Seed(2)), equal_weights(1, 5), only_labels);
  const double distillation = distillation_term(student, targets, only_labels).item<double>();
  CHECK(distillation_objective(student, targets, labels, only_teachers).item<double>() == distillation);
  CHECK(distillation_objective(student, targets, std::nullopt, only_labels).item<double>() == distillation);
  CHECK(distillation_objective(student, targets, labels, only_labels).item<double>() ==
        doctest::Approx(torch::nn::functional::cross_entropy(student, labels).item<double>()).epsilon(1e-14));
  CHECK(distillation == doctest::Approx(16 * distillation_term(student, targets, without_factor).item<double>()));
}

TEST_CASE("batches: cover the order in sequence, and none but a lone sample is of one") {
  for (std::int64_t size = 0; size < 40; ++size) {
    for (std::int64_t batch_size = 1; batch_size < 12; ++batch_size) {
      const Tensor order = torch::arange(size);
      const std::vector<Tensor> batches = batches_of(order, batch_size);
      if (size > 0) CHECK(torch::equal(torch::cat(batches), order));
      for (std::size_t i = 0; i < batches.size(); ++i) {
        const bool is_last = i + 1 == batches.size();
        CHECK((is_last || batches[i].size(0) == batch_size));
        CHECK(batches[i].size(0) <= batch_size + (batch_size > 1 ? 1 : 0));
        if (batch_size > 1 && size > 1) CHECK(batches[i].size(0) > 1);
      }
    }
  }
}

namespace {

struct Taught {
  Samples transfer = separable_samples(240, Seed(2));
  Guidance targets;

  Taught() {
    const auto teacher = make_model(small_spec(Norm::none), small_task, Seed(7));
    const Samples own = separable_samples(240, Seed(1));
    const TrainOptions options{.optimizer = {.kind = OptimizerKind::adam, .lr = 5e-3}, .epochs = 8, .batch_size = 16};
    train(*teacher, own, options, epoch_orders(own.size(), options.epochs, Seed(3)));
    targets =
        guidance(logits_of(*teacher, transfer.x).unsqueeze(0), equal_weights(1, 4), DistillOptions{.temperature = 2});
  }
};

DistillOptions quick_options() {
  DistillOptions options{.temperature = 2, .epochs = 8, .batch_size = 16};
  options.optimizer.lr = 5e-3;
  return options;
}

}  // namespace

TEST_CASE("distill: unlabeled samples and a teacher's targets teach an untrained student") {
  const Taught taught;
  const Samples test = separable_samples(400, Seed(5));
  for (const Norm norm : {Norm::none, Norm::batch}) {
    const auto student = make_model(small_spec(norm), small_task, Seed(8));
    const double before = evaluate(*student, test, 4).accuracy();
    distill(*student, taught.transfer.without_labels(), taught.targets, quick_options(), Seed(9));
    CHECK(before < 0.6);
    CHECK(evaluate(*student, test, 4).accuracy() > 0.9);
  }
}

TEST_CASE("distill: the same seed gives the same bits, another seed others; epochs and samples are reported") {
  const Taught taught;
  const auto distilled = [&](std::uint64_t seed, const Samples& transfer) {
    const auto student = make_model(small_spec(Norm::batch), small_task, Seed(8));
    std::vector<std::int64_t> epochs;
    Progress last;
    DistillOptions options = quick_options();
    options.epochs = 3;
    distill(
        *student, transfer, taught.targets, options, Seed(seed), [&](const Progress& progress) { last = progress; }, {},
        [&](std::int64_t epoch) {
          epochs.push_back(epoch);
          // As a caller that judges each epoch leaves the student.
          student->set_training(false);
        });
    CHECK(epochs == std::vector<std::int64_t>{1, 2, 3});
    CHECK(last.done == 3 * 240);
    CHECK(last.total == 3 * 240);
    CHECK(student->state().at("norm1.num_batches_tracked").item<std::int64_t>() == 3 * 15);
    return student->state();
  };
  const StateDict first = distilled(1, taught.transfer);
  CHECK(bitwise_equal(first, distilled(1, taught.transfer)));
  CHECK_FALSE(bitwise_equal(first, distilled(2, taught.transfer)));
  CHECK_FALSE(bitwise_equal(first, distilled(1, taught.transfer.without_labels())));
}

TEST_CASE("distiller: the same bits however the epochs are divided, evaluation in between included") {
  const Taught taught;
  DistillOptions options = quick_options();
  options.epochs = 5;
  const auto whole = make_model(small_spec(Norm::batch), small_task, Seed(8));
  const double loss = distill(*whole, taught.transfer, taught.targets, options, Seed(1));
  const auto divided = make_model(small_spec(Norm::batch), small_task, Seed(8));
  Distiller distiller(*divided, taught.transfer, taught.targets, options, Seed(1));
  for (const std::int64_t epochs : {2, 0, 1}) {
    distiller.advance(epochs);
    (void)evaluate(*divided, taught.transfer, 4);
  }
  CHECK(distiller.num_epochs() == 3);
  CHECK_FALSE(bitwise_equal(whole->state(), divided->state()));
  CHECK(distiller.advance(2) == loss);
  CHECK(bitwise_equal(whole->state(), divided->state()));
}

TEST_CASE("distill: the returned loss is the last epoch's mean per sample") {
  const Taught taught;
  const auto student = make_model(small_spec(Norm::none), small_task, Seed(8));
  DistillOptions options = quick_options();
  options.epochs = 1;
  options.optimizer = {.kind = OptimizerKind::sgd, .lr = 0, .weight_decay = 0};
  options.batch_size = 239;
  const double loss = distill(*student, taught.transfer, taught.targets, options, Seed(1));
  const double whole =
      distillation_objective(logits_of(*student, taught.transfer.x), taught.targets, taught.transfer.y, options)
          .item<double>();
  CHECK(loss == doctest::Approx(whole).epsilon(1e-5));
}

TEST_CASE("distill: stops when asked, and says so when it diverges") {
  const Taught taught;
  const auto student = make_model(small_spec(Norm::none), small_task, Seed(8));
  const auto code_of = [&](const DistillOptions& options, const Guidance& targets, std::stop_source source) {
    return test::code_of([&] {
      distill(
          *student, taught.transfer, targets, options, Seed(1), [&](const Progress&) { source.request_stop(); },
          source.get_token());
    });
  };
  CHECK(code_of(quick_options(), taught.targets, std::stop_source()) == Errc::interrupted);
  const std::stop_source none(std::nostopstate);
  const auto of = [](const Tensor& targets) { return guidance_by(targets, quick_options()); };
  CHECK(code_of(quick_options(), of(taught.targets.targets * std::nan("")), none) == Errc::run_failed);
  CHECK(code_of(quick_options(), of(taught.targets.targets.slice(0, 1)), none) == Errc::internal);
  DistillOptions empty_batches = quick_options();
  empty_batches.batch_size = 0;
  CHECK(code_of(empty_batches, taught.targets, none) == Errc::usage);
}

namespace {

/// Statistics of a layer's input by definition: mean, and variance with n - 1, over batch and positions.
std::pair<Tensor, Tensor> moments(const Tensor& activations) {
  const Tensor flat = activations.to(torch::kFloat64).transpose(0, 1).flatten(1);
  return {flat.mean(1), flat.var(1)};
}

}  // namespace

TEST_CASE("statistics: the mean over the batches of each batch's mean and variance") {
  const auto model = make_model(small_spec(Norm::batch), small_task, Seed(21));
  const Tensor x = separable_samples(205, Seed(22)).x * 5 + 3;
  const StateDict before = model->state();
  reestimate_statistics(*model, x, 60);
  const StateDict after = model->state();

  Tensor mean = torch::zeros({4}, torch::kFloat64);
  Tensor variance = torch::zeros({4}, torch::kFloat64);
  const std::vector<Tensor> batches = batches_of(x, 60);
  for (const Tensor& batch : batches) {
    const auto [batch_mean, batch_variance] =
        moments(torch::conv2d(batch, before.at("conv1.weight"), before.at("conv1.bias")));
    mean += batch_mean / static_cast<double>(batches.size());
    variance += batch_variance / static_cast<double>(batches.size());
  }
  CHECK(torch::allclose(after.at("norm1.running_mean").to(torch::kFloat64), mean, 1e-5, 1e-5));
  CHECK(torch::allclose(after.at("norm1.running_var").to(torch::kFloat64), variance, 1e-5, 1e-5));
  CHECK(after.at("norm1.num_batches_tracked").item<std::int64_t>() == 4);
  for (const NamedTensor& named : before.tensors()) {
    if (named.name.find("running") == std::string::npos && named.name.find("tracked") == std::string::npos) {
      CHECK(torch::equal(named.tensor, after.at(named.name)));
    }
  }
}

TEST_CASE("statistics: do not depend on what they were, and a model without them is left alone") {
  const Tensor x = separable_samples(64, Seed(22)).x;
  const auto model = make_model(small_spec(Norm::batch), small_task, Seed(21));
  reestimate_statistics(*model, x);
  const StateDict once = model->state();
  model->set_training(true);
  model->forward(x * 100 - 7);
  reestimate_statistics(*model, x);
  CHECK(bitwise_equal(model->state(), once));

  const auto plain = make_model(small_spec(Norm::group), small_task, Seed(21));
  const StateDict before = plain->state();
  reestimate_statistics(*plain, x);
  CHECK(bitwise_equal(plain->state(), before));
}

namespace {

/// PyTorch's own BatchNorm, with a momentum that no built-in network has, applied `times` in one forward.
class NormModel final : public Model {
 public:
  NormModel(std::optional<double> momentum, int times) : norm_(options_of(momentum)), times_(times) {}
  Tensor forward(const Tensor& x) override {
    Tensor h = x;
    for (int i = 0; i < times_; ++i) h = norm_(x);
    return h.flatten(1);
  }
  std::vector<Tensor> parameters() override { return norm_->parameters(); }
  std::vector<NamedTensor> named_state() override {
    std::vector<NamedTensor> state;
    for (const auto& buffer : norm_->named_buffers()) state.push_back({buffer.key(), buffer.value()});
    return state;
  }
  void set_training(bool training) override { norm_->train(training); }
  void to(c10::Device device) override { norm_->to(device); }

 private:
  static torch::nn::BatchNormOptions options_of(std::optional<double> momentum) {
    torch::nn::BatchNormOptions options(1);
    // LibTorch's own optional is not yet std::optional in 1.13.
    using Momentum = std::remove_cvref_t<decltype(options.momentum())>;
    return options.momentum(momentum ? Momentum(*momentum) : Momentum());
  }

  torch::nn::BatchNorm2d norm_;
  int times_;
};

}  // namespace

TEST_CASE("statistics: whatever the layer's momentum, cumulative included, and however often it runs") {
  const Tensor x = torch::randn({90, 1, 6, 6}, generator(Seed(3))) * 40 + 500;
  for (const std::optional<double> momentum :
       {std::optional(0.01), std::optional(0.37), std::optional(1.0), std::optional<double>()}) {
    for (const int times : {1, 2}) {
      CAPTURE(momentum.value_or(-1));
      NormModel model(momentum, times);
      reestimate_statistics(model, x, 30);
      const auto [mean, variance] = moments(x);
      double mean_of_variances = 0;
      for (const Tensor& batch : batches_of(x, 30)) mean_of_variances += moments(batch).second.item<double>() / 3;
      CHECK(model.state().at("running_mean").item<double>() == doctest::Approx(mean.item<double>()).epsilon(2e-5));
      CHECK(model.state().at("running_var").item<double>() == doctest::Approx(mean_of_variances).epsilon(2e-5));
    }
  }
}

TEST_CASE("statistics: of a scripted model, whose momentum is a constant of its code") {
  const auto model = make_model({.name = "script:tests/golden/scripted/batch_norm.pt"},
                                {.shape = {1, 4, 4}, .num_classes = 3}, Seed(1));
  const Tensor x = torch::randn({50, 1, 4, 4}, generator(Seed(6))) * 3 - 1;
  reestimate_statistics(*model, x);
  const StateDict state = model->state();
  const auto [mean, variance] = moments(torch::conv2d(x, state.at("0.weight"), state.at("0.bias"), 1, 1));
  CHECK(torch::allclose(state.at("1.running_mean").to(torch::kFloat64), mean, 1e-5, 1e-5));
  CHECK(torch::allclose(state.at("1.running_var").to(torch::kFloat64), variance, 1e-5, 1e-5));
}

TEST_CASE("statistics: progress once a batch, up to the total, and a stop ends the work at the next batch") {
  const auto model = make_model(small_spec(Norm::batch), small_task, Seed(21));
  const Tensor x = separable_samples(121, Seed(22)).x;
  std::vector<std::int64_t> done;
  std::stop_source stop;
  const auto note = [&](const Progress& progress) {
    CHECK(progress.total == 121);
    done.push_back(progress.done);
    if (done.size() == 3) stop.request_stop();
  };
  reestimate_statistics(*model, x, 60, {}, note);
  CHECK(done == std::vector<std::int64_t>{60, 121});
  CHECK(test::code_of([&] { reestimate_statistics(*model, x, 60, stop.get_token(), note); }) == Errc::interrupted);
  CHECK(done == std::vector<std::int64_t>{60, 121, 60});
}

TEST_CASE("statistics: a layer that does not run keeps its own") {
  NormModel model(0.1, 0);
  model.named_state()[0].tensor.fill_(3.5);
  const StateDict before = model.state();
  reestimate_statistics(model, torch::randn({8, 1, 2, 2}, generator(Seed(1))));
  CHECK(torch::equal(model.state().at("running_mean"), before.at("running_mean")));
  CHECK(torch::equal(model.state().at("running_var"), before.at("running_var")));
}
