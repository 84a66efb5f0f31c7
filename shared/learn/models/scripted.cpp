#include <algorithm>
#include <map>
#include <mutex>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/models/networks.hpp"
#include "shared/learn/models/script.hpp"
#include "shared/learn/models/script_trial.hpp"

namespace headstart::learn {

namespace {

class ScriptedModel final : public Model {
 public:
  ScriptedModel(Script script, std::set<std::string> constants)
      : script_(std::move(script)), constants_(std::move(constants)) {}

  Tensor forward(const Tensor& x) override { return script_.forward(x).front(); }
  [[nodiscard]] std::int64_t num_heads() const override { return script_.num_heads(); }
  std::vector<Tensor> forward_heads(const Tensor& x) override { return script_.forward(x); }
  Tensor features(const Tensor& x) override {
    return script_.shows_features() ? script_.features(x) : Model::features(x);
  }
  [[nodiscard]] bool shows_features() const override { return script_.shows_features(); }
  [[nodiscard]] std::string head_prefix(Head head) const override {
    if (head == Head::first && script_.shows_features()) return "head.";
    return head == Head::second && num_heads() == 2 ? second_head_prefix : Model::head_prefix(head);
  }
  std::vector<Tensor> parameters() override;
  std::vector<NamedTensor> named_state() override;
  void set_training(bool training) override { script_.set_training(training); }
  void to(c10::Device device) override { script_.to(device); }
  [[nodiscard]] bool draws_globally() const override { return script_.code().draws; }
  [[nodiscard]] StateDict complete(const StateDict& state) override;
  [[nodiscard]] StateDict exchanged_part(const StateDict& state) override;

 private:
  /// What a tensor that is not exchanged must be, null for those that are: `constant`, or a tensor of `state`.
  const Tensor* determined(const std::string& name, const StateDict& state, Tensor& constant) const;
  [[nodiscard]] bool is_exchanged(const ScriptSlot& slot) const {
    return slot.kind != ScriptSlot::Kind::attribute && !constants_.contains(slot.name);
  }
  /// What the script has put there may be a view of anything, or hold a graph: from here on it is its slot's own.
  Tensor own(const ScriptSlot& slot);

  Script script_;
  std::set<std::string> constants_;
  std::map<std::string, Tensor> owned_;
};

std::vector<Tensor> ScriptedModel::parameters() {
  std::vector<Tensor> trainable;
  for (const ScriptSlot& slot : script_.slots()) {
    if (slot.kind == ScriptSlot::Kind::parameter && slot.tensor().requires_grad()) trainable.push_back(slot.tensor());
  }
  return trainable;
}

Tensor ScriptedModel::own(const ScriptSlot& slot) {
  if (!slot.is_assigned) return slot.tensor();
  Tensor& owned = owned_[slot.name];
  if (!owned.defined() || !slot.tensor().is_same(owned)) {
    owned = slot.tensor().detach().clone(at::MemoryFormat::Contiguous);
    slot.set(owned);
  }
  return owned;
}

std::vector<NamedTensor> ScriptedModel::named_state() {
  std::vector<NamedTensor> state;
  for (const ScriptSlot& slot : script_.slots()) {
    if (is_exchanged(slot)) state.push_back({slot.name, own(slot)});
  }
  return state;
}

StateDict ScriptedModel::complete(const StateDict& state) {
  std::vector<NamedTensor> whole = state.tensors();
  for (const ScriptSlot& slot : script_.slots()) {
    if (constants_.contains(slot.name)) whole.push_back({slot.name, slot.tensor().detach().clone()});
  }
  const StateDict untied(whole);
  for (const auto& [name, first] : script_.tied_names()) whole.push_back({name, untied.at(first)});
  return StateDict(std::move(whole));
}

const Tensor* ScriptedModel::determined(const std::string& name, const StateDict& state, Tensor& constant) const {
  const auto tied = script_.tied_names().find(name);
  const std::string& first = tied == script_.tied_names().end() ? name : tied->second;
  if (constants_.contains(first)) {
    constant = std::ranges::find(script_.slots(), first, &ScriptSlot::name)->tensor();
    return &constant;
  }
  return first == name ? nullptr : &state.at(first);
}

StateDict ScriptedModel::exchanged_part(const StateDict& state) {
  if (constants_.empty() && script_.tied_names().empty()) return state;
  std::vector<NamedTensor> part;
  for (const NamedTensor& named : state.tensors()) {
    Tensor constant;
    const Tensor* expected = determined(named.name, state, constant);
    if (expected == nullptr) {
      part.push_back(named);
    } else if (!bitwise_equal(StateDict(std::vector<NamedTensor>{{"", named.tensor}}),
                              StateDict(std::vector<NamedTensor>{{"", *expected}}))) {
      throw Error(Errc::data, fmt::format("tensor '{}': the script has it {}, but here its values are others",
                                          named.name, constant.defined() ? "as a constant" : "tied to another"));
    }
  }
  return StateDict(std::move(part));
}

/// Once in a process for each content and task: a script may take seconds to try, and is made for every model rated.
/// Nothing is locked meanwhile: the trial may have to wait for whoever holds a GlobalGeneratorLease and comes here.
ScriptTrial trial_of(const ModelSpec& spec, const Task& task) {
  static std::mutex mutex;
  static std::map<std::string, ScriptTrial> trials;
  const std::string file = spec.script_file();
  const std::string key = fmt::format("{} {}", spec.architecture(), text_of(task));
  {
    const std::lock_guard lock(mutex);
    if (const auto known = trials.find(key); known != trials.end()) return known->second;
  }
  ScriptTrial trial = try_script(file, task);
  const std::lock_guard lock(mutex);
  if (trials.emplace(key, trial).second) {
    for (const std::string& warning : trial.warnings) spdlog::warn("{}: {}", file, warning);
  }
  return trial;
}

}  // namespace

std::unique_ptr<Model> load_script(const ModelSpec& spec, const Task& task) {
  Script script(spec.script_file(), task);
  return std::make_unique<ScriptedModel>(std::move(script), trial_of(spec, task).constants);
}

}  // namespace headstart::learn
