#include "shared/learn/models/model.hpp"

#include <mutex>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/cuda.h>
#include <torch/types.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/names.hpp"
#include "shared/learn/models/networks.hpp"
#include "shared/learn/models/stated_model.hpp"

namespace headstart::learn {

namespace {

class BuiltInModel final : public Model {
 public:
  explicit BuiltInModel(std::shared_ptr<Network> network) : network_(std::move(network)) {}

  Tensor forward(const Tensor& x) override { return network_->head->forward(network_->features(x)); }
  [[nodiscard]] std::int64_t num_heads() const override { return network_->second_head ? 2 : 1; }
  std::vector<Tensor> forward_heads(const Tensor& x) override {
    const Tensor features = network_->features(x);
    std::vector<Tensor> logits = {network_->head->forward(features)};
    if (network_->second_head) logits.push_back(network_->second_head->forward(features));
    return logits;
  }
  Tensor features(const Tensor& x) override { return network_->features(x); }
  [[nodiscard]] bool shows_features() const override { return true; }
  [[nodiscard]] std::string head_prefix(Head head) const override {
    if (head == Head::first) return network_->head_name + ".";
    return network_->second_head ? second_head_prefix : Model::head_prefix(head);
  }
  std::vector<Tensor> parameters() override { return network_->parameters(); }
  std::vector<NamedTensor> named_state() override {
    std::vector<NamedTensor> state;
    for (const auto& named : network_->named_parameters()) state.push_back({named.key(), named.value()});
    for (const auto& named : network_->named_buffers()) state.push_back({named.key(), named.value()});
    return state;
  }
  void set_training(bool training) override { network_->train(training); }
  void to(c10::Device device) override { move_tensors(named_state(), device); }

 private:
  std::shared_ptr<Network> network_;
};

/// Every layer draws from a stream that its name names: adding one leaves the others as they were.
void initialise(Network& network, Seed seed) {
  for (const auto& named : network.named_modules()) {
    if (auto* layer = named.value()->as<AffineLayer>()) layer->initialise(seed.child(named.key()));
  }
}

constexpr NetworkRow networks[] = {{"cnn", make_cnn, cnn_bytes},
                                   {"resnet18", make_resnet18, resnet18_bytes},
                                   {"mlp", make_mlp, mlp_bytes},
                                   {"linear", make_linear, linear_bytes}};

std::mutex& global_generator_mutex() {
  static std::mutex mutex;
  return mutex;
}

thread_local bool holds_global_generator = false;

}  // namespace

const NetworkRow& network_row(const std::string& name) {
  std::vector<std::string> names;
  for (const NetworkRow& row : networks) {
    if (row.name == name) return row;
    names.emplace_back(row.name);
  }
  const std::string near = nearest(name, names);
  throw Error(Errc::usage,
              fmt::format("model.name: expected {}, script:FILE or state:FILE, got '{}'{}", fmt::join(names, ", "),
                          name, near.empty() ? "" : fmt::format(" (did you mean {}?)", near)));
}

Norm resolved_norm(const ModelSpec& spec) {
  if (spec.norm != Norm::automatic) return spec.norm;
  return spec.name == "resnet18" ? Norm::batch : Norm::none;
}

std::string ModelSpec::architecture() const {
  const std::string_view norm_word = word_of(Choices<Norm>(norm_words), resolved_norm(*this));
  if (is_scripted()) return "script sha256=" + sha256_hex_of_file(script_file());
  if (is_stated()) return "state schema=" + stated_of(*this).schema.digest();
  const char* head = second_head ? " second_head" : "";
  if (name == "cnn") {
    return fmt::format("cnn channels={} kernel={} hidden={} norm={}{}", fmt::join(channels, ","), kernel, hidden,
                       norm_word, head);
  }
  if (name == "mlp") {
    return fmt::format("mlp hidden_layers={} norm={}{}", fmt::join(hidden_layers, ","), norm_word, head);
  }
  if (name == "linear") return fmt::format("linear{}", head);
  (void)network_row(name);  // refuses unknown names
  return fmt::format("resnet18 width={} norm={}{}", width, norm_word, head);
}

void declare_fields(Fields& fields, const std::string& prefix, ModelSpec& spec) {
  fields.group(prefix, "The network and its sizes");
  fields.checked_text(prefix + ".name", spec.name,
                      "Network: cnn and resnet18 for images, mlp and linear for samples of any shape, script:FILE, a "
                      "TorchScript file, or state:FILE, a safetensors file: a model that silos compute in processes of "
                      "their own (--worker).",
                      require_model_path);
  fields.integers(prefix + ".channels", spec.channels, "cnn: filters of its two convolutions.",
                  {.min = 1, .max = 2048});
  fields.integer(prefix + ".kernel", spec.kernel, "cnn: side of the square filters.", {.min = 1, .max = 31});
  fields.integer(prefix + ".hidden", spec.hidden, "cnn: units of the hidden linear layer.", {.min = 1, .max = 1048576});
  fields.integer(prefix + ".width", spec.width, "resnet18: filters of the first stage.", {.min = 1, .max = 1024});
  fields.choice(
      prefix + ".norm", spec.norm,
      "Normalisation after each convolution of cnn and resnet18 and each hidden layer of mlp (auto: batch for "
      "resnet18, else none).",
      Choices<Norm>(norm_words));
  fields.flag(prefix + ".second_head", spec.second_head,
              "A second classifier of the same features, three layers deep (head2.* in the state). A script has one "
              "where it returns two logits.");
  fields.integers(prefix + ".hidden_layers", spec.hidden_layers,
                  "mlp: units of each hidden layer, from the input on, with ReLU after each.",
                  {.min = 1, .max = 1048576});
}

void require_model_path(const std::string& name) {
  const ModelSpec spec{.name = name};
  if (spec.is_scripted()) require_path(spec.script_file());
  if (spec.is_stated()) require_path(spec.state_file());
}

Tensor Model::features(const Tensor& /*x*/) {
  throw Error(Errc::usage,
              "the model does not show its features; the built-in networks do, and scripts with a method features() "
              "and a linear "
              "submodule head (client/scripts.md)");
}

std::string Model::head_prefix(Head head) const {
  throw Error(Errc::usage, fmt::format("the model does not say which tensors are its {} head",
                                       head == Head::first ? "first" : "second"));
}

StateDict Model::state() {
  std::vector<NamedTensor> copies;
  for (const auto& [name, tensor] : named_state()) {
    copies.push_back(
        {name, tensor.detach().to(c10::kCPU, tensor.scalar_type(), /*non_blocking=*/false, /*copy=*/true)});
  }
  return StateDict(std::move(copies));
}

void Model::load(const StateDict& state) {
  const StateDict exchanged = exchanged_part(state);
  if (const auto difference = exchanged.schema().difference_from(schema())) {
    throw Error(Errc::data, "state does not fit the model: " + *difference);
  }
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : named_state()) tensor.copy_(exchanged.at(name));
}

Schema Model::schema() {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : named_state()) specs.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  std::set<std::string> parameters;
  for (const NamedTensor& parameter : named_parameters()) parameters.insert(parameter.name);
  return Schema(std::move(specs), std::move(parameters));
}

std::vector<NamedTensor> Model::named_parameters() {
  std::map<const c10::TensorImpl*, std::string> names;
  for (const auto& [name, tensor] : named_state()) names.emplace(tensor.unsafeGetTensorImpl(), name);
  std::vector<NamedTensor> named;
  for (const Tensor& parameter : parameters()) {
    named.push_back({names.at(parameter.unsafeGetTensorImpl()), parameter});
  }
  return named;
}

void Model::to_type(c10::ScalarType floating) {
  for (const auto& [name, tensor] : named_state()) {
    if (!tensor.is_floating_point()) continue;
    tensor.set_data(tensor.detach().to(floating));
    tensor.mutable_grad().reset();
  }
}

void move_tensors(const std::vector<NamedTensor>& tensors, c10::Device device) {
  for (const auto& [name, tensor] : tensors) {
    tensor.set_data(tensor.detach().to(device));
    tensor.mutable_grad().reset();
  }
}

std::unique_ptr<Model> make_model(const ModelSpec& spec, const Task& task, Seed seed) {
  if (spec.is_scripted()) {
    if (spec.second_head) {
      throw Error(
          Errc::usage,
          "model.second_head is for the built-in networks; a script has a second head where it returns two logits, "
          "the second from its submodule head2");
    }
    return load_script(spec, task);
  }
  if (spec.is_stated()) return make_stated(stated_of(spec));
  std::shared_ptr<Network> network = network_row(spec.name).make(spec, task, resolved_norm(spec));
  if (spec.second_head) network->add_second_head();
  initialise(*network, seed);
  return std::make_unique<BuiltInModel>(std::move(network));
}

c10::Device device_of(const std::string& word) {
  if (word == "cpu") return c10::kCPU;
  if (word == "auto") return torch::cuda::is_available() ? c10::kCUDA : c10::kCPU;
  if (word != "cuda") throw Error(Errc::usage, fmt::format("device: expected cpu, cuda or auto, got '{}'", word));
  if (torch::cuda::is_available()) return c10::kCUDA;
  const bool built_with_cuda = at::show_config().find("USE_CUDA=ON") != std::string::npos;
  throw Error(Errc::usage,
              built_with_cuda ? "device: cuda was asked for, but LibTorch sees no CUDA device on this machine (no GPU, "
                                "or its driver is missing or too old); use device=cpu"
                              : "device: cuda was asked for, but this program was built with a LibTorch without CUDA; "
                                "use device=cpu or build with a CUDA LibTorch");
}

GlobalGeneratorLease::GlobalGeneratorLease(Seed seed) {
  global_generator_mutex().lock();
  holds_global_generator = true;
  // The high bit is dropped since some releases hand the seed on as a signed number.
  at::manual_seed(seed.value() & 0x7fff'ffff'ffff'ffffULL);
}

GlobalGeneratorLease::~GlobalGeneratorLease() {
  holds_global_generator = false;
  global_generator_mutex().unlock();
}

GeneratorLoan::GeneratorLoan(Seed seed) {
  if (!holds_global_generator) lock_ = std::unique_lock(global_generator_mutex());
  at::Generator generator = at::globalContext().defaultGenerator(c10::kCPU);
  const std::lock_guard guard(generator.mutex());
  state_ = generator.get_state();
  generator.set_current_seed(seed.value());
}

GeneratorLoan::~GeneratorLoan() {
  at::Generator generator = at::globalContext().defaultGenerator(c10::kCPU);
  const std::lock_guard guard(generator.mutex());
  generator.set_state(state_);
}

std::unique_ptr<GlobalGeneratorLease> lease_for(const Model& model, Seed seed) {
  return model.draws_globally() ? std::make_unique<GlobalGeneratorLease>(seed) : nullptr;
}

}  // namespace headstart::learn
