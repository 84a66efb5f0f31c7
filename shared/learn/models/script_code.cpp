#include "shared/learn/models/script_code.hpp"

#include <optional>
#include <string_view>
#include <vector>

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

namespace headstart::learn {

namespace {

using torch::jit::Block;
using torch::jit::Node;
using torch::jit::Value;

/// Calls `action` with each node, those of nested blocks included.
template <class Action>
void visit(const Block& block, const Action& action) {
  for (const Node* node : block.nodes()) {
    action(*node);
    for (const Block* nested : node->blocks()) visit(*nested, action);
  }
}

std::string_view kind_of(const Node& node) { return node.kind().toUnqualString(); }

bool draws(const Node& node) {
  if (const torch::jit::FunctionSchema* schema = node.maybeSchema()) {
    for (const c10::Argument& argument : schema->arguments()) {
      if (argument.name() == "generator") return true;
    }
  }
  // Operators whose schema does not show that they draw.
  const std::string_view name = kind_of(node);
  return name.find("dropout") != name.npos || name.find("rrelu") != name.npos || name.starts_with("rand");
}

std::shared_ptr<torch::jit::Graph> inlined(const torch::jit::Method& method) {
  auto graph = method.graph()->copy();
  torch::jit::Inline(*graph);
  return graph;
}

bool draws(const torch::jit::Module& module) {
  bool found = false;
  for (const torch::jit::Module& part : module.modules()) {
    for (const torch::jit::Method& method : part.get_methods()) {
      const auto graph = inlined(method);
      visit(*graph->block(), [&found](const Node& node) { found = found || draws(node); });
    }
  }
  return found;
}

std::optional<ScriptAttribute> attribute_of(const Node& node) {
  const auto type = node.input(0)->type()->cast<c10::ClassType>();
  if (!type) return std::nullopt;
  return ScriptAttribute{type.get(), node.s(c10::attr::name)};
}

/// The attributes whose memory `value` may be: itself, a view of it, or the same on one of two branches.
void find_origins(const Value* value, std::set<const Value*>& seen, std::set<ScriptAttribute>& origins) {
  if (!seen.insert(value).second) return;
  const Node& node = *value->node();
  if (node.kind() == c10::prim::GetAttr) {
    if (auto attribute = attribute_of(node)) origins.insert(std::move(*attribute));
    return;
  }
  for (const Block* block : node.blocks()) {
    // A loop's body returns its condition first; an If's blocks return what the node does.
    const std::size_t first = node.kind() == c10::prim::Loop ? 1 : 0;
    if (value->offset() + first < block->outputs().size()) {
      find_origins(block->outputs()[value->offset() + first], seen, origins);
    }
  }
  if (node.kind() == c10::prim::Loop && value->offset() + 2 < node.inputs().size()) {
    find_origins(node.input(value->offset() + 2), seen, origins);
  }
  if (node.kind() == c10::prim::Param && node.owningBlock()->owningNode() != nullptr) {
    const Node& loop = *node.owningBlock()->owningNode();
    if (loop.kind() == c10::prim::Loop && value->offset() >= 1) {
      find_origins(loop.input(value->offset() + 1), seen, origins);
    }
  }
  const std::string_view kind = kind_of(node);
  if (kind == "unchecked_cast" || kind == "_unwrap_optional") return find_origins(node.input(0), seen, origins);
  const torch::jit::FunctionSchema* schema = node.maybeSchema();
  if (schema == nullptr) return;
  for (std::size_t i = 0; i < schema->arguments().size() && i < node.inputs().size(); ++i) {
    if (schema->arguments()[i].alias_info() != nullptr) find_origins(node.input(i), seen, origins);
  }
}

const Value* argument_of(const Node& node, std::string_view name) {
  const torch::jit::FunctionSchema* schema = node.maybeSchema();
  if (schema == nullptr) return nullptr;
  const std::optional<int> index = [&]() -> std::optional<int> {
    if (auto found = schema->argumentIndexWithName(std::string(name))) return *found;
    return std::nullopt;
  }();
  if (!index || static_cast<std::size_t>(*index) >= node.inputs().size()) return nullptr;
  return node.input(static_cast<std::size_t>(*index));
}

void note_writes(const Node& node, ScriptCode& code) {
  if (node.kind() == c10::prim::GetAttr) {
    if (auto attribute = attribute_of(node)) code.read.insert(std::move(*attribute));
    return;
  }
  if (node.kind() == c10::prim::SetAttr) {
    if (auto attribute = attribute_of(node)) code.assigned.insert(std::move(*attribute));
    return;
  }
  const torch::jit::FunctionSchema* schema = node.maybeSchema();
  if (schema == nullptr) return;
  for (std::size_t i = 0; i < schema->arguments().size() && i < node.inputs().size(); ++i) {
    const c10::AliasInfo* alias = schema->arguments()[i].alias_info();
    if (alias == nullptr || !alias->isWrite()) continue;
    std::set<const Value*> seen;
    find_origins(node.input(i), seen, code.edited);
  }
  // Their schemas do not say that these are written to.
  const std::string_view kind = kind_of(node);
  if (kind.find("batch_norm") == kind.npos && kind != "instance_norm") return;
  for (const char* name : {"running_mean", "running_var"}) {
    std::set<const Value*> seen;
    if (const Value* statistic = argument_of(node, name)) find_origins(statistic, seen, code.edited);
  }
}

bool drops_nothing(const Node& node) {
  for (const char* name : {"p", "dropout"}) {
    const Value* rate = argument_of(node, name);
    if (rate == nullptr) continue;
    const auto constant = torch::jit::toIValue(rate);
    if (constant && constant->isDouble() && constant->toDouble() == 0) return true;
  }
  return false;
}

void note_training_flag(const Node& node, ScriptCode& code) {
  const std::string_view kind = kind_of(node);
  const bool is_norm = kind.find("batch_norm") != kind.npos;
  const bool is_drop = kind.find("dropout") != kind.npos || kind == "lstm" || kind == "gru" || kind.starts_with("rnn_");
  if (!is_norm && !is_drop) return;
  if (is_drop && drops_nothing(node)) return;
  const Value* flag = argument_of(node, is_norm ? "training" : "train");
  if (flag == nullptr) return;
  const auto constant = torch::jit::toIValue(flag);
  if (!constant || !constant->isBool()) return;
  auto& kinds = constant->toBool() ? code.always_training : code.never_training;
  kinds.insert(is_norm ? "batch_norm" : "dropout");
}

}  // namespace

ScriptCode read_code(const torch::jit::Module& module) {
  ScriptCode code;
  code.draws = draws(module);
  const auto forward = module.find_method("forward");
  if (!forward) return code;
  const auto graph = inlined(*forward);
  visit(*graph->block(), [&code](const Node& node) {
    note_writes(node, code);
    note_training_flag(node, code);
  });
  code.ends_in_sigmoid = !graph->outputs().empty() && kind_of(*graph->outputs()[0]->node()) == "sigmoid";
  return code;
}

}  // namespace headstart::learn
