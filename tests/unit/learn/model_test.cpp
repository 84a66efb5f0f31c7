#include "shared/learn/models/model.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/models/model_size.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

namespace {

const Task small_task{.shape = {1, 4, 4}, .num_classes = 3};
const Task cifar{.shape = {3, 32, 32}, .num_classes = 10};
const Task fashion{};

std::string script(const std::string& name) { return "script:tests/golden/scripted/" + name + ".pt"; }

std::int64_t num_parameters(Model& model) {
  std::int64_t sum = 0;
  for (const Tensor& parameter : model.parameters()) sum += parameter.numel();
  return sum;
}

/// The formula of tests/golden/resnet_reference.py.
Tensor wave(at::IntArrayRef shape, double phase) {
  return torch::sin(torch::arange(c10::multiply_integers(shape), torch::kDouble) * 0.7 + phase).reshape(shape);
}

void fill(Model& model) {
  std::vector<NamedTensor> state = model.named_state();
  std::ranges::sort(state, {}, &NamedTensor::name);
  const at::NoGradGuard no_grad;
  for (std::size_t t = 0; t < state.size(); ++t) {
    const auto& [name, tensor] = state[t];
    if (!tensor.is_floating_point()) continue;
    const bool around_one = tensor.dim() == 1 && (name.ends_with("weight") || name.ends_with("running_var"));
    tensor.copy_((around_one ? 1.0 : 0.0) + 0.1 * wave(tensor.sizes(), static_cast<double>(t)));
  }
}

Tensor matrix_of(const nlohmann::json& rows) {
  std::vector<float> values;
  for (const auto& row : rows) {
    for (const auto& value : row) values.push_back(value.get<float>());
  }
  return torch::tensor(values).reshape({static_cast<std::int64_t>(rows.size()), -1});
}

std::string message_of(const ModelSpec& spec, const Task& task) {
  try {
    make_model(spec, task, Seed(1));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("cnn: sizes, names and parameter count") {
  const auto model = make_model({}, fashion, Seed(1));
  // 32 (9 + 1) + 64 (32 * 9 + 1) + 128 (64 * 25 + 1) + 10 (128 + 1)
  CHECK(num_parameters(*model) == 320 + 18'496 + 204'928 + 1'290);
  CHECK(model->forward(torch::zeros({2, 1, 28, 28})).sizes() == at::IntArrayRef({2, 10}));
  const auto with_norm = make_model({.norm = Norm::batch}, fashion, Seed(1));
  CHECK(dtype_name(with_norm->state().at("norm2.num_batches_tracked").scalar_type()) == "I64");
  CHECK(with_norm->state().at("norm1.running_var").equal(torch::ones(32)));
}

TEST_CASE("cnn: the smallest images that are left anything of") {
  CHECK_NOTHROW(make_model({}, {.shape = {1, 10, 10}}, Seed(1))->forward(torch::zeros({1, 1, 10, 10})));
  const std::string message = message_of({}, {.shape = {1, 30, 9}});
  CHECK(message.find("30 x 9") != std::string::npos);
  CHECK(message.find("kernel 3") != std::string::npos);
}

TEST_CASE("specifications that name no network are refused with what is wrong") {
  CHECK(message_of({.name = "resnet81"}, cifar).find("did you mean resnet18?") != std::string::npos);
  CHECK(message_of({.channels = {32}}, fashion).find("model.channels") != std::string::npos);
  CHECK(message_of({.channels = {32, 0}}, fashion).find("model.channels") != std::string::npos);
  CHECK(message_of({.kernel = 0}, fashion).find("model.kernel") != std::string::npos);
  CHECK(message_of({.hidden = -1}, fashion).find("model.hidden") != std::string::npos);
  CHECK(message_of({.name = "resnet18", .width = 0}, cifar).find("model.width") != std::string::npos);
  const std::string layers = message_of({.name = "mlp", .hidden_layers = {}}, fashion);
  CHECK(layers.find("model.hidden_layers: mlp expects 1 to 64 numbers of units of at least 1, got []; model.name linear") !=
        std::string::npos);
  CHECK(message_of({.name = "mlp", .hidden_layers = {8, 0}}, fashion).find("got [8,0]") != std::string::npos);
  CHECK(message_of({.name = "mlp", .norm = Norm::group, .hidden_layers = {8, 1}}, fashion).find("2 units") !=
        std::string::npos);
  CHECK(message_of({.name = "mlpp"}, fashion).find("did you mean mlp?") != std::string::npos);
}

TEST_CASE("cnn and resnet18 are for images, and say so; scripts take samples of any shape") {
  const Task table{.shape = {16}, .num_classes = 3};
  const Task volume{.shape = {1, 4, 2, 2}, .num_classes = 3};
  for (const char* name : {"cnn", "resnet18"}) {
    const std::string expected = fmt::format(
        "model.name: {} expects samples of 3 dimensions, [channels, height, width]; those of the data have ", name);
    CHECK(message_of({.name = name}, table) == expected + "1: 16; mlp and linear take any");
    CHECK(message_of({.name = name}, volume) == expected + "4: 1x4x2x2; mlp and linear take any");
    CHECK(test::error_of(Errc::usage, [&] { (void)state_bytes({.name = name}, table); }) ==
          expected + "1: 16; mlp and linear take any");
  }
  const Tensor rows = torch::rand({5, 16});
  const Tensor logits = make_model({.name = script("tied")}, table, Seed(1))->forward(rows);
  CHECK(logits.sizes() == at::IntArrayRef({5, 3}));
  for (const Task& task : {small_task, Task{.shape = {4, 4}, .num_classes = 3}, volume}) {
    const auto model = make_model({.name = script("tied")}, task, Seed(1));
    std::vector<std::int64_t> sizes = task.shape;
    sizes.insert(sizes.begin(), 5);
    CHECK(torch::equal(model->forward(rows.view(sizes)), logits));
  }
}

TEST_CASE("resnet18 has 11,173,962 parameters at full width, and group norm as many") {
  CHECK(num_parameters(*make_model({.name = "resnet18"}, cifar, Seed(1))) == 11'173'962);
  const auto grouped = make_model({.name = "resnet18", .width = 12, .norm = Norm::group}, cifar, Seed(1));
  const auto batched = make_model({.name = "resnet18", .width = 12}, cifar, Seed(1));
  CHECK(num_parameters(*grouped) == num_parameters(*batched));
  CHECK(grouped->state().tensors().size() < batched->state().tensors().size());
}

TEST_CASE("resnet18 computes what PyTorch computes with weights of torchvision's names") {
  const nlohmann::json reference = read_json("tests/golden/resnet/reference.json");
  for (const Norm norm : {Norm::batch, Norm::group}) {
    const nlohmann::json& expected = reference[norm == Norm::batch ? "batch" : "group"];
    const auto model =
        make_model({.name = "resnet18", .width = reference["width"].get<std::int64_t>(), .norm = norm}, cifar, Seed(1));
    std::vector<std::string> names;
    for (const NamedTensor& named : model->named_state()) names.push_back(named.name);
    std::ranges::sort(names);
    CHECK(names == expected["names"].get<std::vector<std::string>>());
    fill(*model);
    const at::NoGradGuard no_grad;
    const Tensor x = wave({3, 3, 32, 32}, 0.5).to(torch::kFloat);
    model->set_training(false);
    CHECK(model->forward(x).allclose(matrix_of(expected["evaluation"]), 1e-4, 1e-4));
    model->set_training(true);
    CHECK(model->forward(x).allclose(matrix_of(expected["training"]), 1e-3, 1e-3));
  }
}

TEST_CASE("mlp and linear compute what plain PyTorch modules of the same names compute, samples of any rank") {
  const nlohmann::json reference = read_json("tests/golden/mlp/reference.json");
  const std::pair<const char*, ModelSpec> specs[] = {
      {"none", {.name = "mlp", .hidden_layers = {6, 4}}},
      {"batch", {.name = "mlp", .norm = Norm::batch, .hidden_layers = {6, 4}}},
      {"group", {.name = "mlp", .norm = Norm::group, .hidden_layers = {6, 4}}},
      {"linear", {.name = "linear"}}};
  for (const auto& [key, spec] : specs) {
    CAPTURE(key);
    const nlohmann::json& expected = reference[key];
    const auto model = make_model(spec, {.shape = {2, 3}, .num_classes = 3}, Seed(1));
    std::vector<std::string> names;
    for (const NamedTensor& named : model->named_state()) names.push_back(named.name);
    std::ranges::sort(names);
    CHECK(names == expected["names"].get<std::vector<std::string>>());
    fill(*model);
    const at::NoGradGuard no_grad;
    const Tensor x = (3 * wave({5, 2, 3}, 0.5)).to(torch::kFloat);
    model->set_training(false);
    CHECK(model->forward(x).allclose(matrix_of(expected["evaluation"]), 1e-5, 1e-6));
    model->set_training(true);
    CHECK(model->forward(x).allclose(matrix_of(expected["training"]), 1e-5, 1e-6));
    for (const std::vector<std::int64_t>& shape :
         {std::vector<std::int64_t>{6}, std::vector<std::int64_t>{1, 3, 2}, std::vector<std::int64_t>{1, 1, 2, 3}}) {
      const auto same = make_model(spec, {.shape = shape, .num_classes = 3}, Seed(1));
      same->load(model->state());
      std::vector<std::int64_t> sizes = shape;
      sizes.insert(sizes.begin(), 5);
      model->set_training(false);
      same->set_training(false);
      CHECK(torch::equal(same->forward(x.reshape(sizes)), model->forward(x)));
    }
  }
}

TEST_CASE("the features of linear are its inputs in a row") {
  const auto model = make_model({.name = "linear"}, small_task, Seed(1));
  const Tensor x = torch::rand({5, 1, 4, 4});
  CHECK(torch::equal(model->features(x), x.view({5, 16})));
  CHECK(model->head_prefix(Head::first) == "fc.");
  CHECK(make_model({.name = "mlp", .hidden_layers = {7}}, small_task, Seed(1))->features(x).sizes() ==
        at::IntArrayRef({5, 7}));
}

TEST_CASE("the first weights come from the seed alone") {
  for (const ModelSpec& spec : {ModelSpec{}, ModelSpec{.name = "resnet18", .width = 4}, ModelSpec{.name = "mlp"},
                                ModelSpec{.name = "linear"}}) {
    const Task& task = spec.name == "cnn" ? fashion : cifar;
    const StateDict first = make_model(spec, task, Seed(3))->state();
    torch::rand(7);
    CHECK(bitwise_equal(first, make_model(spec, task, Seed(3))->state()));
    CHECK_FALSE(bitwise_equal(first, make_model(spec, task, Seed(4))->state()));
  }
}

TEST_CASE("making a model leaves the process-wide generator as it was") {
  auto global = at::detail::getDefaultCPUGenerator();
  const Tensor before = global.get_state();
  make_model({.norm = Norm::batch}, fashion, Seed(3));
  make_model({.name = "resnet18", .width = 4}, cifar, Seed(3));
  CHECK(global.get_state().equal(before));
}

TEST_CASE("the first weights have PyTorch's distributions") {
  const StateDict cnn = make_model({}, fashion, Seed(11))->state();
  const auto uniform = [&](const std::string& name, double fan_in) {
    const Tensor values = cnn.at(name);
    const double bound = 1 / std::sqrt(fan_in);
    CHECK(values.abs().max().item<double>() <= bound);
    CHECK(values.std().item<double>() == doctest::Approx(bound / std::sqrt(3.0)).epsilon(0.05));
    CHECK(std::abs(values.mean().item<double>()) < 0.1 * bound);
  };
  uniform("conv2.weight", 32 * 9);
  uniform("fc1.weight", 1600);
  CHECK(cnn.at("fc1.bias").abs().max().item<double>() <= 1.0 / 40);
  const StateDict resnet = make_model({.name = "resnet18", .width = 16}, cifar, Seed(11))->state();
  const Tensor filters = resnet.at("layer4.1.conv1.weight");
  CHECK(filters.std().item<double>() == doctest::Approx(std::sqrt(2.0 / (128 * 9))).epsilon(0.02));
  CHECK(resnet.at("bn1.weight").equal(torch::ones(16)));
  CHECK(resnet.at("bn1.bias").equal(torch::zeros(16)));
}

TEST_CASE("no two layers start with the same values") {
  const StateDict state = make_model({.name = "resnet18", .width = 4}, cifar, Seed(11))->state();
  CHECK_FALSE(state.at("layer1.0.conv1.weight").equal(state.at("layer1.0.conv2.weight")));
  CHECK_FALSE(state.at("layer1.0.conv1.weight").equal(state.at("layer1.1.conv1.weight")));
}

TEST_CASE("a state taken is a copy, and loading it restores the model") {
  const auto model = make_model({.norm = Norm::batch}, fashion, Seed(1));
  const StateDict first = model->state();
  const StateDict other = make_model({.norm = Norm::batch}, fashion, Seed(2))->state();
  model->load(other);
  CHECK(bitwise_equal(model->state(), other));
  CHECK_FALSE(bitwise_equal(model->state(), first));
  model->load(first);
  CHECK(bitwise_equal(model->state(), first));
}

TEST_CASE("a state of another model is refused by tensor, and nothing is loaded") {
  const auto model = make_model({}, fashion, Seed(1));
  const StateDict first = model->state();
  const StateDict other = make_model({.hidden = 64}, fashion, Seed(2))->state();
  CHECK_THROWS_WITH_AS(model->load(other), doctest::Contains("tensor 'fc1.bias': expected float32 [128]"), Error);
  CHECK(bitwise_equal(model->state(), first));
}

TEST_CASE("to_type() keeps integer tensors and gives the optimiser's tensors their new type") {
  const auto model = make_model({.norm = Norm::batch}, fashion, Seed(1));
  const std::vector<Tensor> held = model->parameters();
  model->to_type(torch::kDouble);
  CHECK(dtype_name(held[0].scalar_type()) == "F64");
  CHECK(dtype_name(model->forward(torch::zeros({2, 1, 28, 28}, torch::kDouble)).scalar_type()) == "F64");
  CHECK(dtype_name(model->state().at("norm1.num_batches_tracked").scalar_type()) == "I64");
}

TEST_CASE("the architecture's line tells apart what is not interchangeable, and nothing else") {
  CHECK(ModelSpec{}.architecture() == "cnn channels=32,64 kernel=3 hidden=128 norm=none");
  CHECK(ModelSpec{.width = 5, .norm = Norm::none}.architecture() == ModelSpec{}.architecture());
  CHECK(ModelSpec{.name = "resnet18", .hidden = 9}.architecture() == "resnet18 width=64 norm=batch");
  CHECK(ModelSpec{.name = "mlp"}.architecture() == "mlp hidden_layers=64,32 norm=none");
  CHECK(ModelSpec{.name = "linear", .norm = Norm::batch}.architecture() == "linear");
  CHECK(ModelSpec{.name = "linear", .second_head = true}.architecture() == "linear second_head");
}

TEST_CASE("a script's architecture is its content, not its path") {
  const test::TemporaryFolder folder;
  std::filesystem::copy_file("tests/golden/scripted/tied.pt", folder / "elsewhere.pt");
  const ModelSpec here{.name = script("tied")};
  CHECK(here.architecture().starts_with("script sha256="));
  CHECK(here.architecture() == ModelSpec{.name = "script:" + (folder / "elsewhere.pt").string()}.architecture());
  CHECK(here.architecture() != ModelSpec{.name = script("dropout")}.architecture());
}

TEST_CASE("a scripted model has its file's weights and PyTorch's names") {
  const auto model = make_model({.name = script("batch_norm")}, small_task, Seed(1));
  const StateDict state = model->state();
  CHECK(state.at("0.weight").sizes() == at::IntArrayRef({4, 1, 3, 3}));
  CHECK(dtype_name(state.at("1.num_batches_tracked").scalar_type()) == "I64");
  CHECK(bitwise_equal(state, make_model({.name = script("batch_norm")}, small_task, Seed(2))->state()));
}

TEST_CASE("a tensor of two names is held once; a frozen one is state but not trained") {
  const auto model = make_model({.name = script("tied")}, small_task, Seed(1));
  CHECK(model->state().tensors().size() == 5);
  CHECK(model->parameters().size() == 4);
}

TEST_CASE("layers that draw from the process-wide generator are found in modules and in functions") {
  CHECK(make_model({.name = script("dropout")}, small_task, Seed(1))->draws_globally());
  CHECK(make_model({.name = script("functional_dropout")}, small_task, Seed(1))->draws_globally());
  CHECK_FALSE(make_model({.name = script("batch_norm")}, small_task, Seed(1))->draws_globally());
  CHECK_FALSE(make_model({}, fashion, Seed(1))->draws_globally());
}

TEST_CASE("a lease seeds the process-wide generator") {
  const auto draw = [](std::uint64_t seed) {
    const GlobalGeneratorLease lease{Seed(seed)};
    return torch::rand(5);
  };
  CHECK(draw(0xffff'ffff'ffff'fff0ULL).equal(draw(0xffff'ffff'ffff'fff0ULL)));
  CHECK_FALSE(draw(1).equal(draw(2)));
}

TEST_CASE("scripts that do not fit the task are refused with both shapes") {
  const std::string classes = message_of({.name = script("tied")}, {.shape = {1, 4, 4}});
  CHECK(classes.find("tied.pt") != std::string::npos);
  CHECK(classes.find("[2, 10], got float32 [2, 3]") != std::string::npos);
  const std::string input = message_of({.name = script("tied")}, {.shape = {1, 5, 5}, .num_classes = 3});
  CHECK(input.find("[2, 1, 5, 5]") != std::string::npos);
}

TEST_CASE("a file that is no script is refused by name") {
  const test::TemporaryFolder folder;
  const std::string file = (folder / "model.pt").string();
  CHECK(message_of({.name = "script:" + file}, small_task).find(file) != std::string::npos);
  std::ofstream(file) << "not a script";
  const std::string message = message_of({.name = "script:" + file}, small_task);
  CHECK(message.find(file + ": cannot be loaded as TorchScript") != std::string::npos);
  CHECK(message.find('\n') == std::string::npos);
}

TEST_CASE("devices") {
  CHECK(device_of("cpu") == c10::Device(c10::kCPU));
  CHECK_THROWS_WITH_AS(device_of("gpu"), doctest::Contains("expected cpu, cuda or auto, got 'gpu'"), Error);
  if (torch::cuda::is_available()) {
    CHECK(device_of("cuda") == c10::Device(c10::kCUDA));
    CHECK(device_of("auto") == c10::Device(c10::kCUDA));
  } else {
    CHECK_THROWS_WITH_AS(device_of("cuda"), doctest::Contains("device=cpu"), Error);
    CHECK(device_of("auto") == c10::Device(c10::kCPU));
  }
}

TEST_CASE("the size of a model is known without building it") {
  for (const Norm norm : {Norm::automatic, Norm::batch, Norm::group, Norm::none}) {
    for (const Task& task : {fashion, cifar, Task{.shape = {2, 17, 40}, .num_classes = 7}}) {
      const ModelSpec specs[] = {{.name = "cnn", .norm = norm},
                                 {.name = "cnn", .channels = {3, 5}, .kernel = 2, .hidden = 7, .norm = norm},
                                 {.name = "resnet18", .width = 4, .norm = norm},
                                 {.name = "resnet18", .width = 6, .norm = norm},
                                 {.name = "mlp", .norm = norm},
                                 {.name = "mlp", .norm = norm, .second_head = true, .hidden_layers = {9, 2, 5}},
                                 {.name = "linear", .norm = norm, .second_head = task.shape[0] == 1}};
      for (const ModelSpec& spec : specs) {
        CAPTURE(spec.architecture());
        CHECK(state_bytes(spec, task) == make_model(spec, task, Seed(1))->schema().num_bytes());
      }
    }
  }
  // As many as no machine has memory for.
  const Task large{.shape = {4096, 65536, 65536}, .num_classes = 2048};
  CHECK(state_bytes({.name = "cnn", .channels = {2048, 2048}, .hidden = 1048576}, large) > std::uint64_t{1} << 60);
  CHECK(state_bytes({.name = "resnet18", .width = 1024}, cifar) == 11426951368ULL);
  CHECK(state_bytes({.name = script("gated")}, small_task) ==
        std::filesystem::file_size("tests/golden/scripted/gated.pt"));
}

TEST_CASE("a model that cannot be has no size") {
  const auto code = [](const ModelSpec& spec) { return test::code_of([&] { (void)state_bytes(spec, cifar); }); };
  CHECK(code({.name = "vgg"}) == Errc::usage);
  CHECK(code({.name = "cnn", .channels = {3}}) == Errc::usage);
  CHECK(code({.name = "resnet18", .width = 0}) == Errc::usage);
  CHECK(code({.name = "script:nowhere.pt"}) == Errc::data);
}

}  // namespace headstart::learn
