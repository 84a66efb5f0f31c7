#include "shared/learn/core/parts.hpp"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

std::string prefix_of(const std::string& part) { return part + "/"; }

/// Throws where a tensor of the model would be taken for one of a part.
template <class Tensors, class PartsByName>
void require_distinct(const Tensors& model, const PartsByName& parts) {
  for (const auto& tensor : model) {
    for (const auto& [part, content] : parts) {
      if (!tensor.name.starts_with(prefix_of(part))) continue;
      throw Error(Errc::data, fmt::format("tensor '{}' of the model is named as one of the part '{}' that is "
                                          "exchanged beside it; rename it",
                                          tensor.name, part));
    }
  }
}

}  // namespace

StateDict joined(const StateDict& model, const Parts& parts) {
  if (parts.empty()) return model;
  require_distinct(model.tensors(), parts);
  std::vector<NamedTensor> all = model.tensors();
  for (const auto& [part, state] : parts) {
    for (const auto& [name, tensor] : state.tensors()) all.push_back({prefix_of(part) + name, tensor});
  }
  return StateDict(std::move(all));
}

Schema joined(const Schema& model, const PartSchemas& parts) {
  if (parts.empty()) return model;
  require_distinct(model.tensors(), parts);
  std::vector<TensorSpec> all = model.tensors();
  std::set<std::string> parameters;
  for (const TensorSpec& spec : all) {
    if (model.role_of(spec) == Role::parameter) parameters.insert(spec.name);
  }
  for (const auto& [part, schema] : parts) {
    for (TensorSpec spec : schema.tensors()) {
      spec.name.insert(0, prefix_of(part));
      all.push_back(std::move(spec));
    }
  }
  return Schema(std::move(all), std::move(parameters));
}

ModelWithParts split(const StateDict& state, std::span<const std::string> names) {
  std::vector<NamedTensor> model;
  std::map<std::string, std::vector<NamedTensor>> tensors;
  for (const std::string& name : names) tensors[name] = {};
  for (const NamedTensor& named : state.tensors()) {
    const auto owner = std::ranges::find_if(
        names, [&named](const std::string& name) { return named.name.starts_with(prefix_of(name)); });
    if (owner == names.end()) {
      model.push_back(named);
    } else {
      tensors[*owner].push_back({named.name.substr(prefix_of(*owner).size()), named.tensor});
    }
  }
  ModelWithParts result;
  for (auto& [name, of_part] : tensors) result.parts.emplace(name, StateDict(std::move(of_part)));
  result.model = StateDict(std::move(model));
  return result;
}

ModelWithParts split(const StateDict& state, const PartSchemas& parts) {
  std::vector<std::string> names;
  for (const auto& [name, schema] : parts) names.push_back(name);
  ModelWithParts result = split(state, names);
  for (const auto& [name, schema] : parts) {
    if (const auto difference = result.parts.at(name).schema().difference_from(schema)) {
      throw Error(Errc::data, fmt::format("part '{}': {}", name, *difference));
    }
  }
  return result;
}

}  // namespace headstart::learn
