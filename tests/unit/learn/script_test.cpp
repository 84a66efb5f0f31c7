// Scripts as users write them: tests/golden/user_scripts.py says what is in the files and made the reference.
#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <torch/torch.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/distill/pair_methods.hpp"
#include "shared/learn/models/script_trial.hpp"
#include "shared/learn/train/train.hpp"

namespace headstart::learn {

namespace {

const Task task{.shape = {1, 4, 4}, .num_classes = 3};

std::string file_of(const std::string& name) { return "tests/golden/user_scripts/" + name + ".pt"; }

std::unique_ptr<Model> made(const std::string& name) {
  return make_model({.name = "script:" + file_of(name)}, task, Seed(1));
}

/// The formula of tests/golden/user_scripts.py.
Samples samples_of(std::int64_t n, std::int64_t client) {
  const Tensor i = torch::arange(n * 16, torch::kLong);
  const Tensor x = (i * i).remainder(97).to(torch::kDouble) / 97 - 0.4 + 0.1 * static_cast<double>(client);
  return {x.reshape({n, 1, 4, 4}).to(torch::kFloat), (torch::arange(n, torch::kLong) * 2 + client).remainder(3)};
}

const std::vector<Samples>& clients() {
  static const std::vector<Samples> samples{samples_of(12, 0), samples_of(8, 1)};
  return samples;
}

const TrainOptions options{.optimizer = {.lr = 0.02, .momentum = 0.9, .weight_decay = 1e-3}, .batch_size = 4};

StateDict after_rounds(Model& model, int num_rounds) {
  StateDict global = model.state();
  for (int round = 0; round < num_rounds; ++round) {
    WeightedMean aggregator(global.schema());
    for (const Samples& samples : clients()) {
      model.load(global);
      train(model, samples, options, {torch::arange(samples.size(), torch::kLong)});
      const auto violation = add_update(aggregator, model.state(), samples.size());
      REQUIRE_MESSAGE(!violation, violation.value_or(""));
    }
    global = std::move(aggregator).report();
  }
  return global;
}

/// PyTorch's state_dict() has the names and shapes of `state`, and its values within 1e-5.
void check_near(const StateDict& state, const nlohmann::json& expected) {
  CHECK(state.tensors().size() == expected.size());
  for (const auto& [name, tensor] : expected.items()) {
    CAPTURE(name);
    const Tensor got = state.at(name).to(torch::kDouble).nan_to_num(0, 1e30, -1e30);
    REQUIRE(got.sizes() == at::IntArrayRef(tensor["shape"].get<std::vector<std::int64_t>>()));
    const auto values = tensor["values"].get<std::vector<double>>();
    CHECK(got.flatten().allclose(torch::tensor(values, torch::kDouble), 1e-5, 1e-5));
  }
}

void check_rounds(const std::string& folder, const std::string& name, const nlohmann::json& expected) {
  CAPTURE(name);
  const auto model = make_model({.name = "script:tests/golden/" + folder + "/" + name + ".pt"}, task, Seed(1));
  const StateDict global = after_rounds(*model, 10);
  model->load(global);
  check_near(model->complete(global), expected["state"]);
  const Tensor x = clients()[0].x.clone();
  const Tensor logits = logits_of(*model, x);
  const auto values = expected["logits"].get<std::vector<double>>();
  CHECK(logits.flatten().to(torch::kDouble).allclose(torch::tensor(values, torch::kDouble), 1e-5, 1e-5));
  CHECK(x.equal(clients()[0].x));
}

std::string refusal_of(const std::string& name) {
  try {
    made(name);
  } catch (const Error& error) {
    CHECK(error.code() == Errc::data);
    return error.what();
  }
  return "not refused";
}

const std::string promise = "the script must map float32 samples [2, 1, 4, 4] to float32 logits [2, 3], ";

}  // namespace

TEST_CASE("scripts train for ten rounds as PyTorch trains the same files") {
  const nlohmann::json reference = read_json("tests/golden/user_scripts/reference.json")["models"];
  for (const auto& [name, expected] : reference.items()) check_rounds("user_scripts", name, expected);
}

TEST_CASE("files of a newer PyTorch train as it trains them") {
  const nlohmann::json reference = read_json("tests/golden/user_scripts_newer/reference.json");
  CHECK(reference["torch"].get<std::string>().starts_with("2.6"));
  for (const auto& [name, expected] : reference["models"].items()) check_rounds("user_scripts_newer", name, expected);
}

TEST_CASE("an operator that this LibTorch lacks is named") {
  try {
    make_model({.name = "script:tests/golden/user_scripts_newer/Attention.pt"}, task, Seed(1));
  } catch (const Error& error) {
    const std::string message = error.what();
    CHECK(message.find("Attention.pt: cannot be loaded as TorchScript") != std::string::npos);
    CHECK(message.find("Unknown builtin op: aten::scaled_dot_product_attention") != std::string::npos);
    CHECK(message.find('\n') == std::string::npos);
  }
}

TEST_CASE("no script reaches the samples that it is evaluated, trained or distilled on") {
  for (const char* name : {"EditsInput", "EditsInputInside"}) {
    CAPTURE(name);
    const auto model = made(name);
    const auto partner = made("EditsInput");
    const Samples samples{clients()[0].x.clone(), clients()[0].y};
    const double accuracy = evaluate(*model, samples, 3).accuracy();
    CHECK(evaluate(*model, samples, 3).accuracy() == accuracy);
    const Tensor logits = logits_of(*model, samples.x);
    CHECK(logits_of(*model, samples.x).equal(logits));
    reestimate_statistics(*model, samples.x);
    distill(*model, samples, guidance_by(torch::softmax(logits, 1), {}), {.epochs = 1}, Seed(1));
    learn_mutually(*model, *partner, samples, {.epochs = 1}, Seed(1));
    pretrain(*model, samples, samples, {.max_epochs = 2}, Seed(1));
    model->forward(samples.x);
    CHECK(samples.x.equal(clients()[0].x));
  }
}

TEST_CASE("a state written is what the script uses, wherever it keeps its buffers by then") {
  for (const char* name : {"ReassignsBuffers", "ReassignsInside", "ReassignsView", "SharedModule"}) {
    CAPTURE(name);
    const auto model = made(name);
    const StateDict start = model->state();
    const auto fresh = model->forward(clients()[0].x);
    after_rounds(*model, 2);
    const StateDict trained = model->state();
    CHECK_FALSE(bitwise_equal(start, trained));
    const Tensor trained_logits = logits_of(*model, clients()[0].x);
    model->load(start);
    CHECK(bitwise_equal(model->state(), start));
    CHECK(logits_of(*model, clients()[0].x).equal(fresh.detach()));
    const auto other = made(name);
    other->load(trained);
    CHECK(logits_of(*other, clients()[0].x).equal(trained_logits));
    CHECK(other->schema() == model->schema());
  }
}

TEST_CASE("buffers that became views are written to one by one") {
  const auto model = made("ReassignsView");
  train(*model, clients()[0], options, {torch::arange(12, torch::kLong)});
  StateDict wanted = model->state().clone();
  wanted.at("first").fill_(1);
  wanted.at("part").fill_(2);
  wanted.at("level").copy_(torch::arange(16));
  model->load(wanted);
  CHECK(bitwise_equal(model->state(), wanted));
}

TEST_CASE("re-assigned statistics are re-estimated where they are") {
  // One batch: the estimates are its own mean and variance.
  const auto model = made("ReassignedNorm");
  const Tensor x = clients()[0].x;
  reestimate_statistics(*model, x);
  const StateDict state = model->state();
  CHECK(state.at("norm.running_mean").allclose(x.flatten(1).mean(0), 1e-4, 1e-5));
  CHECK(state.at("norm.running_var").allclose(x.flatten(1).var(0, false), 1e-3, 1e-4));
}

TEST_CASE("the types of all state change, and what was re-assigned is among it") {
  const auto model = made("ReassignsBuffers");
  train(*model, clients()[0], options, {torch::arange(12, torch::kLong)});
  model->to(c10::kCPU);
  CHECK(model->state().at("mean").abs().max().item<double>() > 0);
  model->to_type(torch::kDouble);
  CHECK(dtype_name(model->state().at("mean").scalar_type()) == "F64");
}

TEST_CASE("constants that averaging would change stay at home, and files have them") {
  const auto model = made("InfiniteMask");
  CHECK(model->schema().tensors().size() == 4);
  const StateDict whole = model->complete(model->state());
  CHECK(whole.tensors().size() == 6);
  CHECK(whole.at("mask").isinf().sum().item<int>() == 6);
  CHECK(whole.at("floor")[1].item<float>() == 1e-12F);
  model->load(whole);
  StateDict other = whole.clone();
  other.at("mask").fill_(0);
  CHECK_THROWS_WITH_AS(model->load(other), doctest::Contains("'mask'"), Error);
  // What an average gives back as it is travels as before.
  CHECK(made("ExpandedBuffer")->state().at("shift").equal(torch::full({16}, 0.5)));
}

TEST_CASE("tied weights travel once, and files have them by both names") {
  const auto model = made("Tied");
  CHECK(model->schema().tensors().size() == 4);
  CHECK(model->parameters().size() == 4);
  const StateDict whole = model->complete(model->state());
  CHECK(whole.tensors().size() == 5);
  CHECK(whole.at("a.weight").equal(whole.at("b.weight")));
  model->load(whole);
  StateDict other = whole.clone();
  other.at("b.weight").fill_(0);
  CHECK_THROWS_WITH_AS(model->load(other), doctest::Contains("'b.weight'"), Error);
}

TEST_CASE("trying a script leaves the process-wide generator as it was, under a lease too") {
  const auto undisturbed = [](auto action) {
    at::manual_seed(7);
    const Tensor expected = torch::rand(3);
    at::manual_seed(7);
    action();
    return torch::rand(3).equal(expected);
  };
  const std::string file = "tests/golden/scripted/dropout.pt";
  CHECK(undisturbed([&] { (void)try_script(file, task); }));
  CHECK(undisturbed([&] { CHECK_THROWS_AS((void)try_script(file_of("NoiseInEvaluation"), task), Error); }));
  const GlobalGeneratorLease lease(Seed(7));
  const Tensor expected = torch::rand(3);
  at::manual_seed(7);
  (void)try_script(file, task);
  CHECK(torch::rand(3).equal(expected));
}

TEST_CASE("a trial leaves no trace in the model that is then used") {
  const auto plain = made("ReassignsBuffers");
  CHECK(plain->state().at("mean").equal(torch::zeros(16)));
  for (const Tensor& parameter : plain->parameters()) CHECK_FALSE(parameter.grad().defined());
}

TEST_CASE("scripts that could not take part in a run are refused where they are loaded, in one sentence") {
  const std::map<std::string, std::vector<std::string>> expected = {
      {"HalfLogits", {promise + "got float16 [2, 3]", ".float()"}},
      {"BfloatLogits", {promise + "got bfloat16 [2, 3]", ".float()"}},
      {"DoubleLogits", {promise + "got float64 [2, 3]", ".float()"}},
      {"ComplexLogits", {promise + "got ComplexFloat [2, 3]"}},
      {"IntegerLogits", {promise + "got int64 [2, 3]"}},
      {"TupleInTraining", {promise + "got a tuple of 2 values in training mode", "return the logits alone"}},
      {"ListOutput", {promise + "got a value of type List[Tensor]"}},
      {"Transposed", {promise + "got float32 [3, 2]"}},
      {"SqueezesSingles", {"samples [1, 1, 4, 4] to float32 logits [1, 3], got float32 [3]"}},
      {"WrongSize", {promise + "but fails: RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x16 and 784x3)"}},
      {"Raises", {promise + "but fails", "colour images only"}},
      {"ReturnsInput", {"no gradient reaches its parameters"}},
      {"Detached", {"no gradient reaches its parameters"}},
      {"NanParameters", {"parameter 'a.weight' holds values that are not finite"}},
      {"NotFinite", {"logits are not finite"}},
      {"NanGradient", {"gradient of parameter 'a.weight' is not finite"}},
      {"AssignsAttribute", {"changes attribute 'mean' (Tensor)", "register_buffer"}},
      {"EditsAttribute", {"changes attribute 'mean' (Tensor)", "register_buffer"}},
      {"Counts", {"changes attribute 'steps' (int)", "register_buffer"}},
      {"Remembers", {"changes attribute 'history'", "register_buffer"}},
      {"Tracks", {"changes attribute 'tracker'", "register_buffer"}},
      {"LazyBuffer", {"buffer 'mean' is float32 [0] in the file and float32 [16] after a training step"}},
      {"ChangesType", {"buffer 'seen' is int64 [] in the file and float32 [] after a training step"}},
      {"Undetached", {"backward pass in training mode fails", "detached"}},
      {"LearnsInEvaluation", {"evaluation changes 'mean'", "self.training"}},
      {"NoiseInEvaluation", {"two evaluations of the same samples differ"}},
      {"AlwaysDrops", {"dropout is on in evaluation too"}},
      {"InfiniteMinimum", {"'low', which the script changes", "not finite"}},
      {"ComplexBuffer", {"buffer 'turns' is of type ComplexFloat", "cannot be sent or saved"}},
      {"ExpandedParameter", {"elements of parameter 'shift' share memory"}},
      {"AssignsParameter", {"assigns parameter 'shift'"}},
      {"NoParameters", {"has no trainable parameters"}},
      {"TracedInTraining", {"dropout is on in evaluation too", "torch.jit.script"}},
  };
  for (const auto& [name, parts] : expected) {
    const std::string message = refusal_of(name);
    CAPTURE(message);
    CHECK(message.starts_with(file_of(name) + ": "));
    for (const std::string& part : parts) {
      CAPTURE(part);
      CHECK(message.find(part) != std::string::npos);
    }
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.size() < 450);
  }
}

TEST_CASE("a script of two classes is not taken for right by the shape of its transpose") {
  CHECK_THROWS_WITH_AS(try_script(file_of("Plain"), {.shape = {1, 4, 4}, .num_classes = 2}),
                       doctest::Contains("[3, 2], got float32 [3, 3]"), Error);
}

TEST_CASE("what is probably not meant is warned of") {
  const std::map<std::string, std::string> expected = {
      {"Probabilities", "probabilities that sum to one"},
      {"Sigmoid", "come out of a sigmoid"},
      {"MixesSamples", "depends on the other samples of the batch"},
      {"OrderMatters", "depends on the other samples of the batch"},
      {"UnusedLayer", "no gradient reaches 'spare.bias', 'spare.weight'"},
      {"TrainableAttribute", "'scale' wants gradients but is no parameter"},
      {"TracedInEvaluation", "training mode changes nothing in batch_norm and dropout"},
  };
  for (const auto& [name, part] : expected) {
    CAPTURE(name);
    const std::vector<std::string> warnings = try_script(file_of(name), task).warnings;
    REQUIRE(warnings.size() == 1);
    CHECK(warnings[0].find(part) != std::string::npos);
  }
  const nlohmann::json reference = read_json("tests/golden/user_scripts/reference.json");
  for (const auto& [name, unused] : reference.at("models").items()) {
    CAPTURE(name);
    CHECK(try_script(file_of(name), task).warnings.empty());
  }
  for (const char* name : {"batch_norm", "dropout", "functional_dropout", "gated", "tied"}) {
    CAPTURE(name);
    CHECK(try_script(std::string("tests/golden/scripted/") + name + ".pt", task).warnings.empty());
  }
}

TEST_CASE("a warning is logged once in a process, with the file") {
  std::ostringstream log;
  const auto earlier = spdlog::default_logger();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
  made("Probabilities");
  made("Probabilities");
  spdlog::set_default_logger(earlier);
  const std::string text = log.str();
  const auto first = text.find(file_of("Probabilities") + ": its outputs are probabilities");
  REQUIRE(first != std::string::npos);
  CHECK(text.find("probabilities", text.find('\n', first)) == std::string::npos);
}

}  // namespace headstart::learn
