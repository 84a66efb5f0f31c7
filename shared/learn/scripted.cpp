#include <unordered_set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/torch.h>

#include "shared/base/error.hpp"
#include "shared/learn/networks.hpp"

namespace headstart::learn {

namespace {

/// LibTorch's exceptions carry pages of backtrace; a person needs the first line.
std::string first_line(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string what = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  return what.substr(0, what.find('\n'));
}

bool draws(const torch::jit::Node& node) {
  if (const torch::jit::FunctionSchema* schema = node.maybeSchema()) {
    for (const c10::Argument& argument : schema->arguments()) {
      if (argument.name() == "generator") return true;
    }
  }
  // Operators whose schema does not show that they draw.
  const std::string_view name = node.kind().toUnqualString();
  return name.find("dropout") != name.npos || name.find("rrelu") != name.npos || name.starts_with("rand");
}

bool draws(at::ArrayRef<const torch::jit::Block*> blocks) {
  for (const torch::jit::Block* block : blocks) {
    for (const torch::jit::Node* node : block->nodes()) {
      if (draws(*node) || draws(node->blocks())) return true;
    }
  }
  return false;
}

/// Reads the code of all submodules, called or not, with the free functions that it calls.
bool draws(const torch::jit::Module& module) {
  for (const torch::jit::Module& part : module.modules()) {
    for (const torch::jit::Method& method : part.get_methods()) {
      const auto graph = method.graph()->copy();
      torch::jit::Inline(*graph);
      const torch::jit::Block* body = graph->block();
      if (draws(at::ArrayRef<const torch::jit::Block*>(body))) return true;
    }
  }
  return false;
}

class ScriptedModel final : public Model {
 public:
  explicit ScriptedModel(torch::jit::Module module) : module_(std::move(module)), draws_(draws(module_)) {
    // A tensor that the script knows by two names is trained and sent once.
    std::unordered_set<const void*> seen;
    const auto keep = [&](const std::string& name, const Tensor& tensor) {
      if (seen.insert(tensor.unsafeGetTensorImpl()).second) state_.push_back({name, tensor});
    };
    for (const auto& named : module_.named_parameters()) keep(named.name, named.value);
    for (const auto& named : module_.named_buffers()) keep(named.name, named.value);
  }

  Tensor forward(const Tensor& x) override {
    // The profiling executor rewrites the graph by what its first calls looked like, and the rewritten one rounds
    // differently: on another path (resumed, evaluated first) the same training would end in other bits.
    const torch::jit::GraphOptimizerEnabledGuard no_rewriting(false);
    return module_.forward({x}).toTensor();
  }

  std::vector<Tensor> parameters() override {
    std::vector<Tensor> trainable;
    for (const NamedTensor& named : state_) {
      if (named.tensor.requires_grad()) trainable.push_back(named.tensor);
    }
    return trainable;
  }

  std::vector<NamedTensor> named_state() override { return state_; }
  void set_training(bool training) override { module_.train(training); }
  void to(c10::Device device) override { move_tensors(state_, device); }
  [[nodiscard]] bool draws_globally() const override { return draws_; }

 private:
  torch::jit::Module module_;
  std::vector<NamedTensor> state_;
  bool draws_;
};

/// One small batch through the model: a script is code of the user's, and its shape is known only by trying.
void probe(Model& model, const std::string& file, const Task& task) {
  const std::vector<std::int64_t> input{2, task.channels, task.height, task.width};
  const std::vector<std::int64_t> expected{2, task.num_classes};
  const auto promise = fmt::format("{}: the script must map float32 samples [{}] to logits [{}]", file,
                                   fmt::join(input, ", "), fmt::join(expected, ", "));
  const torch::NoGradGuard no_grad;
  model.set_training(false);
  Tensor logits;
  try {
    logits = model.forward(torch::zeros(input));
  } catch (const std::exception& error) {
    throw Error(Errc::data, promise + ", but fails: " + first_line(error));
  }
  if (logits.sizes() != at::IntArrayRef(expected)) {
    throw Error(Errc::data, fmt::format("{}, got [{}]", promise, fmt::join(logits.sizes().vec(), ", ")));
  }
}

}  // namespace

std::unique_ptr<Model> load_script(const ModelSpec& spec, const Task& task) {
  const std::string file = spec.script_file();
  std::unique_ptr<Model> model;
  try {
    model = std::make_unique<ScriptedModel>(torch::jit::load(file, c10::Device(c10::kCPU)));
  } catch (const std::exception& error) {
    throw Error(Errc::data, fmt::format("{}: cannot be loaded as TorchScript (save it with torch.jit.script(model)"
                                        ".save(FILE)): {}",
                                        file, first_line(error)));
  }
  if (model->parameters().empty()) {
    throw Error(Errc::data, file +
                                ": has no trainable parameters; save the model with torch.jit.script before "
                                "freezing, and with requires_grad");
  }
  probe(*model, file, task);
  return model;
}

}  // namespace headstart::learn
