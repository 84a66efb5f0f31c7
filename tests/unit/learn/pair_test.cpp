#include <optional>

#include <doctest/doctest.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/distill/pair_methods.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

using namespace headstart;
using namespace headstart::learn;
using namespace headstart::test;

namespace {

struct Golden {
  nlohmann::json document = read_json("tests/golden/pair_vectors.json");
  Tensor student = tensor_of(document.at("student"));
  Tensor teacher = tensor_of(document.at("teacher"));
  Tensor copy = tensor_of(document.at("copy"));
  Tensor labels = torch::tensor(document.at("labels").get<std::vector<std::int64_t>>());

  [[nodiscard]] std::optional<Tensor> labels_of(const nlohmann::json& test) const {
    return test.at("labeled").get<bool>() ? std::optional(labels) : std::nullopt;
  }
};

std::vector<bool> values_of(const Tensor& mask) {
  std::vector<bool> values;
  for (std::int64_t i = 0; i < mask.size(0); ++i) values.push_back(mask[i].item<bool>());
  return values;
}

}  // namespace

TEST_CASE("data partitioning: masks, and the gradient of the full loss, as PyTorch has them") {
  const Golden golden;
  for (const nlohmann::json& test : golden.document.at("partitioning")) {
    CAPTURE(test.at("labeled").get<bool>());
    const auto temperature = test.at("temperature").get<double>();
    const Tensor mask = teacher_mask(golden.teacher, golden.copy, golden.labels_of(test));
    CHECK(values_of(mask) == test.at("mask").get<std::vector<bool>>());
    const Tensor targets = partitioned_targets(golden.teacher, golden.copy, mask, temperature);
    const DistillOptions options{.temperature = temperature};
    const auto loss = [&](const Tensor& logits) {
      return distillation_term(logits, guidance_by(targets, options), options);
    };
    CHECK(largest_difference(gradient_of(golden.student, loss), tensor_of(test.at("loss").at("gradient"))) <
          golden_tolerance);
    // What no student changes: T^2 times the targets' negative entropy.
    const double constant = (targets * targets.log()).sum(1).mean().item<double>() * temperature * temperature;
    CHECK(loss(golden.student).item<double>() + constant ==
          doctest::Approx(test.at("loss").at("value").get<double>()).epsilon(1e-10));
  }
}

TEST_CASE("data partitioning: ties stay with the copy, and a teacher that is the copy teaches nothing") {
  const Tensor logits = random_logits({20, 6}, Seed(1));
  const Tensor labels = torch::arange(20, torch::kInt64) % 6;
  CHECK_FALSE(teacher_mask(logits, logits, std::nullopt).any().item<bool>());
  CHECK_FALSE(teacher_mask(logits, logits, labels).any().item<bool>());
  // The other way round the masks are each other's complement, but for ties.
  const Tensor other = random_logits({20, 6}, Seed(2));
  CHECK((teacher_mask(logits, other, labels) != teacher_mask(other, logits, labels)).all().item<bool>());
  const Tensor mask = teacher_mask(logits, other, labels);
  const Tensor targets = partitioned_targets(logits, other, mask, 2);
  for (std::int64_t i = 0; i < 20; ++i) {
    const Tensor& taught_by = mask[i].item<bool>() ? logits : other;
    CHECK(largest_difference(targets[i], torch::softmax(taught_by[i] / 2, 0)) < 1e-12);
  }
}

TEST_CASE("mutual learning: values and gradients as PyTorch has them, the peer constant") {
  const Golden golden;
  for (const nlohmann::json& test : golden.document.at("mutual")) {
    const auto labels = golden.labels_of(test);
    const Tensor peer = golden.teacher.clone().requires_grad_(true);
    const auto loss = [&](const Tensor& logits) { return mutual_loss(logits, peer, labels); };
    CHECK(loss(golden.student).item<double>() ==
          doctest::Approx(test.at("loss").at("value").get<double>()).epsilon(1e-10));
    CHECK(largest_difference(gradient_of(golden.student, loss), tensor_of(test.at("loss").at("gradient"))) <
          golden_tolerance);
    CHECK_FALSE(peer.grad().defined());
  }
}

namespace {

struct Peers {
  Samples transfer = separable_samples(200, Seed(3));
  std::unique_ptr<Model> taught = make_model(small_spec(Norm::batch), small_task, Seed(4));
  std::unique_ptr<Model> untaught = make_model(small_spec(Norm::batch), small_task, Seed(5));
  DistillOptions options{.epochs = 6, .batch_size = 20};

  Peers() {
    options.optimizer.lr = 5e-3;
    const Samples own = separable_samples(240, Seed(1));
    const TrainOptions training{.optimizer = {.kind = OptimizerKind::adam, .lr = 5e-3}, .epochs = 8, .batch_size = 16};
    train(*taught, own, training, epoch_orders(own.size(), training.epochs, Seed(2)));
  }
};

double accuracy(Model& model) { return evaluate(model, separable_samples(400, Seed(9)), 4).accuracy(); }

}  // namespace

TEST_CASE("mutual learning: with labels both end well, and which model is named first does not matter") {
  Peers peers;
  learn_mutually(*peers.taught, *peers.untaught, peers.transfer, peers.options, Seed(7));
  CHECK(accuracy(*peers.taught) > 0.9);
  CHECK(accuracy(*peers.untaught) > 0.9);
  Peers turned;
  learn_mutually(*turned.untaught, *turned.taught, turned.transfer, turned.options, Seed(7));
  CHECK(bitwise_equal(peers.taught->state(), turned.taught->state()));
  CHECK(bitwise_equal(peers.untaught->state(), turned.untaught->state()));
}

TEST_CASE("mutual learning: without labels nothing but agreement is learnt") {
  Peers peers;
  const Tensor x = peers.transfer.x;
  const double apart = kl_divergence(logits_of(*peers.taught, x), logits_of(*peers.untaught, x), 1).item<double>();
  learn_mutually(*peers.taught, *peers.untaught, peers.transfer.without_labels(), peers.options, Seed(7));
  CHECK(kl_divergence(logits_of(*peers.taught, x), logits_of(*peers.untaught, x), 1).item<double>() < apart / 10);
  // Two models that agree already have nothing to learn from each other.
  DistillOptions still = peers.options;
  still.optimizer = {.kind = OptimizerKind::sgd, .lr = 1, .weight_decay = 0};
  const auto one = make_model(small_spec(Norm::none), small_task, Seed(6));
  const auto same = make_model(small_spec(Norm::none), small_task, Seed(6));
  const StateDict before = one->state();
  learn_mutually(*one, *same, peers.transfer.without_labels(), still, Seed(7));
  CHECK(bitwise_equal(one->state(), same->state()));
  for (std::size_t i = 0; i < before.tensors().size(); ++i) {
    CHECK(largest_difference(one->state().tensors()[i].tensor, before.tensors()[i].tensor) < 1e-5);
  }
}

TEST_CASE("mutual learning: an empty transfer set and divergence are said") {
  Peers peers;
  const auto learn = [&](const Samples& transfer) {
    return code_of([&] { learn_mutually(*peers.taught, *peers.untaught, transfer, peers.options, Seed(1)); });
  };
  CHECK(learn({}) == Errc::data);
  CHECK(learn({peers.transfer.x * std::nan(""), peers.transfer.y}) == Errc::run_failed);
}
