#include "shared/learn/models/heads.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/models/model_size.hpp"
#include "shared/learn/train/train.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

using test::separable_samples;
using test::small_task;

namespace {

ModelSpec two_headed(ModelSpec spec) {
  spec.second_head = true;
  return spec;
}

std::vector<ModelSpec> small_networks() {
  return {test::small_spec(Norm::batch), test::small_spec(Norm::none), {.name = "resnet18", .width = 4},
          {.name = "mlp", .hidden_layers = {16}}, {.name = "linear"}};
}

bool is_of_head(const std::string& name, const std::string& prefix) { return name.starts_with(prefix); }

/// Whether any tensor of the part has changed: that of the head, or the rest.
bool has_changed(const StateDict& before, const StateDict& after, const std::string& prefix, bool of_head) {
  for (const NamedTensor& named : before.tensors()) {
    if (is_of_head(named.name, prefix) != of_head) continue;
    if (!torch::equal(named.tensor, after.at(named.name))) return true;
  }
  return false;
}

const TrainOptions quick{.optimizer = {.kind = OptimizerKind::adam, .lr = 5e-3}, .epochs = 6, .batch_size = 16};

void train_quickly(Model& model) {
  const Samples samples = separable_samples(160, Seed(1));
  train(model, samples, quick, epoch_orders(samples.size(), quick.epochs, Seed(2)));
}

/// Of tests/golden/two_heads.py.
ModelSpec script_spec(const std::string& name) { return {.name = "script:tests/golden/two_heads/" + name + ".pt"}; }

std::unique_ptr<Model> scripted(const std::string& name) { return make_model(script_spec(name), small_task, Seed(1)); }

}  // namespace

TEST_CASE("heads: without the setting a network has one, of the tensors that it names") {
  for (const ModelSpec& spec : small_networks()) {
    const auto model = make_model(spec, small_task, Seed(1));
    const Tensor x = separable_samples(5, Seed(3)).x;
    model->set_training(false);
    CHECK(model->num_heads() == 1);
    CHECK(model->forward_heads(x).size() == 1);
    CHECK(torch::equal(model->forward_heads(x)[0], model->forward(x)));
    const std::string prefix = model->head_prefix(Head::first);
    CHECK(prefix == (spec.name == "cnn" || spec.name == "mlp" ? "fc2." : "fc."));
    CHECK(test::code_of([&] { (void)model->head_prefix(Head::second); }) == Errc::usage);
    CHECK(test::code_of([&] { (void)view_of_head(*model, Head::second, Trains::all); }) == Errc::usage);
    // The head is one linear layer of the features.
    const StateDict state = model->state();
    const Tensor by_hand = torch::linear(model->features(x), state.at(prefix + "weight"), state.at(prefix + "bias"));
    CHECK(torch::allclose(by_hand, model->forward(x)));
  }
}

TEST_CASE("heads: a second one leaves all else as it was, bit by bit, and has the published shape") {
  for (const ModelSpec& spec : small_networks()) {
    const auto plain = make_model(spec, small_task, Seed(1));
    const auto model = make_model(two_headed(spec), small_task, Seed(1));
    const StateDict one = plain->state();
    const StateDict both = model->state();
    std::vector<NamedTensor> without_second;
    std::int64_t num_of_second = 0;
    for (const NamedTensor& named : both.tensors()) {
      if (is_of_head(named.name, model->head_prefix(Head::second))) {
        ++num_of_second;
      } else {
        without_second.push_back(named);
      }
    }
    CHECK(bitwise_equal(one, StateDict(without_second)));
    CHECK(num_of_second == 6);
    const Tensor x = separable_samples(7, Seed(3)).x;
    plain->set_training(false);
    model->set_training(false);
    CHECK(torch::equal(plain->forward(x), model->forward(x)));
    const Tensor features = model->features(x);
    const std::int64_t width = features.size(1);
    CHECK(both.at("head2.fc1.weight").sizes() == at::IntArrayRef({width, width}));
    CHECK(both.at("head2.fc2.weight").sizes() == at::IntArrayRef({width / 2, width}));
    CHECK(both.at("head2.fc3.weight").sizes() == at::IntArrayRef({4, width / 2}));
    const std::vector<Tensor> logits = model->forward_heads(x);
    REQUIRE(logits.size() == 2);
    CHECK(torch::equal(logits[0], model->forward(x)));
    const auto layer = [&](const std::string& name, const Tensor& h) {
      return torch::linear(h, both.at("head2." + name + ".weight"), both.at("head2." + name + ".bias"));
    };
    const Tensor by_hand = layer("fc3", torch::relu(layer("fc2", torch::relu(layer("fc1", features)))));
    CHECK(torch::allclose(by_hand, logits[1]));
    // Equal lines mean interchangeable weights; sizes are known without building.
    CHECK(two_headed(spec).architecture() == spec.architecture() + " second_head");
    std::uint64_t bytes = 0;
    for (const NamedTensor& named : both.tensors()) bytes += named.tensor.nbytes();
    CHECK(state_bytes(two_headed(spec), small_task) == bytes);
    CHECK(test::code_of([&] { plain->load(both); }) == Errc::data);
  }
}

TEST_CASE("heads: a head alone learns, and nothing else moves, BatchNorm statistics included") {
  for (const ModelSpec& spec : small_networks()) {
    for (const Head head : {Head::first, Head::second}) {
      const auto model = make_model(two_headed(spec), small_task, Seed(1));
      const std::string prefix = model->head_prefix(head);
      const StateDict before = model->state();
      {
        const auto view = view_of_head(*model, head, Trains::head);
        CHECK(bitwise_equal(view->state(), before));
        CHECK(view->parameters().size() == (head == Head::first ? 2 : 6));
        train_quickly(*view);
        CHECK(has_changed(before, view->state(), prefix, true));
        CHECK_FALSE(has_changed(before, view->state(), prefix, false));
      }
      // Afterwards the whole model trains again.
      for (const Tensor& parameter : model->parameters()) CHECK(parameter.requires_grad());
      train_quickly(*model);
      const bool has_more = spec.name != "linear" || head == Head::second;
      CHECK(has_changed(before, model->state(), prefix, false) == has_more);
    }
  }
}

TEST_CASE("heads: everything through the second head trains all but the first, which is then stale") {
  const auto model = make_model(two_headed(test::small_spec(Norm::batch)), small_task, Seed(1));
  train_quickly(*model);
  const StateDict before = model->state();
  const Samples test = separable_samples(300, Seed(5));
  const double first_before = evaluate_heads(*model, test, 4)[0].accuracy();
  CHECK(first_before > 0.9);
  train_quickly(*view_of_head(*model, Head::second, Trains::all));
  const StateDict after = model->state();
  CHECK_FALSE(has_changed(before, after, model->head_prefix(Head::first), true));
  CHECK(has_changed(before, after, model->head_prefix(Head::second), true));
  CHECK_FALSE(torch::equal(before.at("conv1.weight"), after.at("conv1.weight")));
  CHECK_FALSE(torch::equal(before.at("norm1.running_mean"), after.at("norm1.running_mean")));
  CHECK(evaluate_heads(*model, test, 4)[1].accuracy() > 0.9);
}

TEST_CASE("heads: both are evaluated in one pass, each as its view is alone") {
  const auto model = make_model(two_headed(test::small_spec(Norm::batch)), small_task, Seed(1));
  train_quickly(*model);
  const Samples test = separable_samples(130, Seed(5));
  const std::vector<Evaluation> both = evaluate_heads(*model, test, 4, 64);
  REQUIRE(both.size() == 2);
  CHECK(both[0].correct == evaluate(*model, test, 4, 64).correct);
  CHECK(both[0].loss_sum == evaluate(*model, test, 4, 64).loss_sum);
  const auto second = view_of_head(*model, Head::second, Trains::all);
  CHECK(both[1].loss_sum == evaluate(*second, test, 4, 64).loss_sum);
  CHECK(both[0].loss_sum != both[1].loss_sum);
  CHECK(evaluate_heads(*make_model(test::small_spec(Norm::none), small_task, Seed(1)), test, 4).size() == 1);
}

TEST_CASE("heads: a second head is distilled from teachers while the first keeps what it knows") {
  const auto model = make_model(two_headed(test::small_spec(Norm::batch)), small_task, Seed(1));
  train_quickly(*model);
  const Samples transfer = separable_samples(200, Seed(7)).without_labels();
  const Samples test = separable_samples(300, Seed(5));
  DistillOptions options{.measure = "kl", .epochs = 20, .batch_size = 16};
  options.optimizer.lr = 5e-3;
  const Guidance guided = guidance(logits_of(*model, transfer.x).unsqueeze(0), equal_weights(1, 4), options);
  const double first = evaluate_heads(*model, test, 4)[0].loss_sum;
  distill(*view_of_head(*model, Head::second, Trains::head), transfer, guided, options, Seed(3));
  const std::vector<Evaluation> after = evaluate_heads(*model, test, 4);
  CHECK(after[0].loss_sum == first);
  CHECK(after[1].accuracy() > 0.9);
}

TEST_CASE("heads: a script with a submodule head2 that returns two logits has two") {
  const auto model = scripted("Pair");
  CHECK(model->num_heads() == 2);
  CHECK(model->head_prefix(Head::second) == "head2.");
  CHECK(test::code_of([&] { (void)model->head_prefix(Head::first); }) == Errc::usage);
  CHECK(test::code_of([&] { (void)model->features(torch::zeros({1, 1, 12, 12})); }) == Errc::usage);
  const Tensor x = separable_samples(6, Seed(3)).x;
  model->set_training(false);
  const std::vector<Tensor> logits = model->forward_heads(x);
  REQUIRE(logits.size() == 2);
  CHECK(torch::equal(logits[0], model->forward(x)));
  CHECK_FALSE(torch::equal(logits[0], logits[1]));
  const StateDict before = model->state();
  {
    const auto view = view_of_head(*model, Head::second, Trains::head);
    CHECK(view->parameters().size() == 2);
    train_quickly(*view);
    CHECK(has_changed(before, view->state(), "head2.", true));
    CHECK_FALSE(has_changed(before, view->state(), "head2.", false));
  }
  train_quickly(*model);
  CHECK(has_changed(before, model->state(), "head2.", false));
  // The head alone was trained with the rest in evaluation mode.
  CHECK(model->state().at("backbone.2.num_batches_tracked").item<std::int64_t>() == 60);
  CHECK(evaluate_heads(*model, separable_samples(100, Seed(5)), 4).size() == 2);
}

TEST_CASE("heads: a script that returns another tuple, or a second head of other classes, is refused") {
  const auto refusal = [](const std::string& name) {
    return test::error_of(Errc::data, [&] { (void)scripted(name); });
  };
  const std::string unnamed = refusal("Unnamed");
  CHECK(unnamed.find("to float32 logits [2, 4], got a tuple of 2 values") != std::string::npos);
  CHECK(unnamed.find("a pair of logits of which a submodule head2 makes the second") != std::string::npos);
  CHECK(refusal("Three").find("got a tuple of 3 values; return the logits alone") != std::string::npos);
  CHECK(refusal("Wide").find("to two float32 logits [2, 4], got float32 [2, 12]") != std::string::npos);
  // A submodule of that name alone makes no second head.
  CHECK(scripted("Sum")->num_heads() == 1);
  const ModelSpec with_setting = two_headed(script_spec("Pair"));
  CHECK(test::code_of([&] { make_model(with_setting, small_task, Seed(1)); }) == Errc::usage);
}

}  // namespace headstart::learn
