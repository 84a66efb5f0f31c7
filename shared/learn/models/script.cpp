#include "shared/learn/models/script.hpp"

#include <algorithm>
#include <functional>
#include <regex>

#include <ATen/MemoryOverlap.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/models/networks.hpp"

namespace headstart::learn {

namespace {

std::string sizes_text(at::IntArrayRef shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

/// "float16 [2, 10]", "a tuple of 2 values".
std::string described(const c10::IValue& value) {
  if (value.isTuple()) return fmt::format("a tuple of {} values", value.toTupleRef().elements().size());
  if (!value.isTensor()) return "a value of type " + value.type()->repr_str();
  const Tensor tensor = value.toTensor();
  return fmt::format("{} {}", type_name(tensor.scalar_type()), sizes_text(tensor.sizes()));
}

std::string advice_for(const c10::IValue& value) {
  if (value.isTuple() && value.toTupleRef().elements().size() == 2) {
    return "; return the logits alone, or a pair of logits of which a submodule head2 makes the second";
  }
  if (!value.isTensor()) return "; return the logits alone";
  if (value.toTensor().scalar_type() != c10::kFloat) return "; end forward() with .float()";
  return "";
}

bool shares_elements(const Tensor& tensor) {
  return at::has_internal_overlap(tensor.unsafeGetTensorImpl()) == at::MemOverlap::Yes;
}

/// Whether forward() is declared to return two tensors.
bool returns_pair(const torch::jit::Module& module) {
  const auto& returned = module.get_method("forward").function().getSchema().returns();
  if (returned.size() != 1 || returned[0].type()->kind() != c10::TypeKind::TupleType) return false;
  const auto elements = returned[0].type()->expectRef<c10::TupleType>().elements();
  return elements.size() == 2 && std::ranges::all_of(elements, [](const c10::TypePtr& element) {
           return element->kind() == c10::TypeKind::TensorType;
         });
}

torch::jit::Module loaded(const std::string& file) {
  try {
    return torch::jit::load(file, c10::Device(c10::kCPU));
  } catch (const std::exception& error) {
    throw Error(Errc::data, fmt::format("{}: cannot be loaded as TorchScript (save it with torch.jit.script(model)"
                                        ".save(FILE)): {}",
                                        file, last_words(error)));
  }
}

}  // namespace

std::string last_words(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string what = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  // A message of several lines begins where its class is named; before it stands the traceback.
  static const std::regex named(R"((^|\n)([\w.]*(Error|Exception)): )");
  std::size_t begin = std::string::npos;
  for (auto found = std::sregex_iterator(what.begin(), what.end(), named); found != std::sregex_iterator(); ++found) {
    begin = static_cast<std::size_t>(found->position(2));
  }
  if (begin != std::string::npos) what = what.substr(begin);
  // What follows on further lines is where it happened, or LibTorch's advice for developers.
  what.erase(0, what.find_first_not_of('\n'));
  what = what.substr(0, what.find('\n'));
  constexpr std::size_t longest = 240;
  return what.size() > longest ? what.substr(0, longest) + "..." : what;
}

Script::Script(std::string file, const Task& task)
    : file_(std::move(file)), task_(task), module_(loaded(file_)), code_(read_code(module_)) {
  module_.eval();
  std::vector<ScriptSlot> found;
  find_slots(module_, "", found);
  keep_slots(std::move(found));
  for (const ScriptSlot& slot : slots_) check_slot(slot);
  const bool has_second = std::ranges::any_of(slots_, [](const ScriptSlot& slot) {
    return slot.kind == ScriptSlot::Kind::parameter && slot.name.starts_with(second_head_prefix);
  });
  if (has_second && returns_pair(module_)) num_heads_ = 2;
  const ScriptSlot* const weight = slot_named("head.weight");
  const ScriptSlot* const bias = slot_named("head.bias");
  shows_features_ = module_.find_method("features").has_value() && weight != nullptr && weight->tensor().dim() == 2 &&
                    bias != nullptr && bias->tensor().dim() == 1;
  const bool can_train = std::ranges::any_of(slots_, [](const ScriptSlot& slot) {
    return slot.kind == ScriptSlot::Kind::parameter && slot.tensor().requires_grad();
  });
  if (!can_train) {
    refuse(
        "has no trainable parameters; save the model with torch.jit.script before freezing, and with "
        "requires_grad");
  }
}

void Script::refuse(const std::string& fault) const { throw Error(Errc::data, file_ + ": " + fault); }

void Script::find_slots(const torch::jit::Module& module, const std::string& prefix,
                        std::vector<ScriptSlot>& found) const {
  const auto type = module.type();
  const auto object = module._ivalue();
  std::vector<std::pair<std::string, torch::jit::Module>> children;
  for (std::size_t i = 0; i < type->numAttributes(); ++i) {
    const std::string& own_name = type->getAttributeName(i);
    const std::string name = prefix + own_name;
    const c10::IValue value = object->getSlot(i);
    if (type->getAttribute(i)->is_module()) {
      children.emplace_back(name + ".", torch::jit::Module(value.toObject()));
      continue;
    }
    const ScriptAttribute attribute{type.get(), own_name};
    const bool is_assigned = code_.assigned.contains(attribute);
    const bool is_edited = code_.edited.contains(attribute);
    const bool is_read = code_.read.contains(attribute);
    if (!value.isTensor() || !value.toTensor().defined()) {
      // A layer without running statistics has None in their place.
      const bool is_changed = (is_assigned || (is_edited && !value.isNone())) && is_read;
      if (is_changed || (value.isObject() && changes_objects_of(*value.toObjectRef().type()))) {
        refuse_changing_attribute(name, type->getAttribute(i)->repr_str());
      }
      continue;
    }
    const auto kind = type->is_parameter(i) ? ScriptSlot::Kind::parameter
                      : type->is_buffer(i)  ? ScriptSlot::Kind::buffer
                                            : ScriptSlot::Kind::attribute;
    found.push_back({name, kind, object, i, is_assigned, is_edited, is_read});
  }
  for (const auto& [name, child] : children) find_slots(child, name, found);
}

void Script::keep_slots(std::vector<ScriptSlot> found) {
  const auto is_attribute = [](const ScriptSlot& slot) { return slot.kind == ScriptSlot::Kind::attribute; };
  // Attributes last: one that is a parameter or buffer by another name goes wherever that goes.
  std::ranges::stable_partition(found, std::not_fn(is_attribute));
  for (ScriptSlot& slot : found) {
    const auto first = std::ranges::find_if(slots_, [&slot](const ScriptSlot& other) {
      if (other.owner == slot.owner && other.index == slot.index) return true;
      const bool may_part = other.is_assigned || slot.is_assigned || shares_elements(slot.tensor());
      return !may_part && other.tensor().is_same(slot.tensor());
    });
    if (first == slots_.end()) {
      slots_.push_back(std::move(slot));
    } else if (!is_attribute(slot)) {
      tied_names_[slot.name] = first->name;
    }
  }
}

bool Script::changes_objects_of(const c10::ClassType& type) const {
  const auto is_of_type = [&](const ScriptAttribute& attribute) {
    return attribute.type == &type && code_.read.contains(attribute);
  };
  return std::ranges::any_of(code_.assigned, is_of_type) || std::ranges::any_of(code_.edited, is_of_type);
}

void Script::refuse_changing_attribute(const std::string& name, const std::string& type) const {
  refuse(fmt::format(
      "forward() changes attribute '{}' ({}), which is neither a parameter nor a buffer and so is not sent, "
      "saved or loaded; make it a tensor of fixed shape and register it with register_buffer()",
      name, type));
}

void Script::check_slot(const ScriptSlot& slot) const {
  const Tensor tensor = slot.tensor();
  if (slot.kind == ScriptSlot::Kind::attribute) {
    if (slot.is_written() && slot.is_read) refuse_changing_attribute(slot.name, "Tensor");
    return;
  }
  const char* kind = slot.kind == ScriptSlot::Kind::parameter ? "parameter" : "buffer";
  if (tensor.layout() != c10::kStrided || !can_hold(tensor.scalar_type())) {
    refuse(fmt::format(
        "{} '{}' is of type {}{}, which cannot be sent or saved; store it as dense tensors of real "
        "numbers (a complex one as its real and its imaginary part)",
        kind, slot.name, type_name(tensor.scalar_type()), tensor.layout() == c10::kStrided ? "" : " and not dense"));
  }
  if (slot.kind == ScriptSlot::Kind::buffer) {
    // One that was expanded cannot be written to; only its slot holds what takes its place.
    if (shares_elements(tensor)) slot.set(tensor.detach().clone(at::MemoryFormat::Contiguous));
    return;
  }
  if (shares_elements(tensor)) {
    refuse(
        fmt::format("the elements of parameter '{}' share memory (expand?), so that it cannot be trained; save it "
                    "with .clone() or .contiguous()",
                    slot.name));
  }
  if (slot.is_assigned) {
    refuse(
        fmt::format("forward() assigns parameter '{}', so that training would go on with a tensor that no optimiser "
                    "knows; change it in place under torch.no_grad(), or make it a buffer",
                    slot.name));
  }
}

std::vector<Tensor> Script::forward(const Tensor& x) {
  std::vector<std::int64_t> expected{x.size(0), task_.num_classes};
  const auto fail = [&](const std::string& fault) {
    refuse(fmt::format("the script must map float32 samples {} to {}float32 logits {}, {}", sizes_text(x.sizes()),
                       num_heads_ == 2 ? "two " : "", sizes_text(expected), fault));
  };
  const char* mode = is_training_ ? " in training mode" : "";
  // The profiling executor rewrites the graph by what its first calls looked like, and the rewritten one rounds
  // differently: on another path (resumed, evaluated first) the same training would end in other bits.
  const torch::jit::GraphOptimizerEnabledGuard no_rewriting(false);
  c10::IValue result;
  try {
    // As a call in Python, and unlike Module::forward(), this runs the hooks of the module.
    result = module_({x.clone()});
  } catch (const std::exception& error) {
    fail(fmt::format("but fails{}: {}", mode, last_words(error)));
  }
  std::vector<c10::IValue> values = {result};
  if (num_heads_ == 2) values = result.toTupleRef().elements().vec();
  std::vector<Tensor> heads;
  for (const c10::IValue& value : values) {
    const bool is_right = value.isTensor() && value.toTensor().scalar_type() == c10::kFloat &&
                          value.toTensor().sizes() == at::IntArrayRef(expected);
    if (!is_right) fail(fmt::format("got {}{}{}", described(value), mode, advice_for(value)));
    heads.push_back(value.toTensor());
  }
  return heads;
}

const ScriptSlot* Script::slot_named(const std::string& name) const {
  const auto found = std::ranges::find(slots_, name, &ScriptSlot::name);
  return found == slots_.end() ? nullptr : &*found;
}

Tensor Script::features(const Tensor& x) {
  const torch::jit::GraphOptimizerEnabledGuard no_rewriting(false);
  c10::IValue result;
  try {
    result = module_.get_method("features")({x.clone()});
  } catch (const std::exception& error) {
    refuse("features() fails: " + last_words(error));
  }
  const bool is_right = result.isTensor() && result.toTensor().dim() == 2 && result.toTensor().size(0) == x.size(0) &&
                        result.toTensor().size(1) == slot_named("head.weight")->tensor().size(1);
  if (!is_right) {
    refuse(fmt::format("features() must map samples to [{}, {}], what head.weight reads; got {}", x.size(0),
                       slot_named("head.weight")->tensor().size(1), described(result)));
  }
  if (!features_are_tried_ && !is_training_) try_features(x, result.toTensor());
  return result.toTensor();
}

void Script::try_features(const Tensor& x, const Tensor& features) {
  const at::NoGradGuard no_grad;
  const Tensor expected = forward(x).front();
  const Tensor got = at::linear(features, slot_named("head.weight")->tensor(), slot_named("head.bias")->tensor());
  if (got.sizes() != expected.sizes() || !at::allclose(got, expected, 1e-3, 1e-3)) {
    refuse(
        "forward() must return head(features(x)) for a head from sums; its logits are others. Rename features() or "
        "head "
        "where they mean something else");
  }
  features_are_tried_ = true;
}

void Script::set_training(bool training) {
  is_training_ = training;
  module_.train(training);
}

void Script::to(c10::Device device) {
  for (const ScriptSlot& slot : slots_) {
    if (!slot.holds_tensor()) continue;
    if (slot.kind == ScriptSlot::Kind::attribute) {
      slot.set(slot.tensor().to(device));
    } else {
      move_tensors({{slot.name, slot.tensor()}}, device);
    }
  }
}

}  // namespace headstart::learn
