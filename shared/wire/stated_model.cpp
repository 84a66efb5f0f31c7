#include "shared/wire/stated_model.hpp"

#include <set>

#include <ATen/Functions.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "shared/base/error.hpp"
#include "shared/base/printable.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::wire {

namespace {

std::set<std::string> trained_in(const ModelFile& file, const std::string& name) {
  std::set<std::string> floating;
  for (const auto& [tensor_name, tensor] : file.model.state().tensors()) {
    if (tensor.is_floating_point()) floating.insert(tensor_name);
  }
  const auto said = file.metadata.find(trained_key);
  if (said == file.metadata.end()) return floating;
  const nlohmann::json list = nlohmann::json::parse(said->second, nullptr, /*allow_exceptions=*/false);
  const auto is_text = [](const nlohmann::json& entry) { return entry.is_string(); };
  if (!list.is_array() || !std::all_of(list.begin(), list.end(), is_text)) {
    throw Error(Errc::data, fmt::format("{}: its metadata {} is no JSON list of names", name, trained_key));
  }
  std::set<std::string> trained;
  for (const nlohmann::json& entry : list) {
    const auto tensor = entry.get<std::string>();
    if (!floating.contains(tensor)) {
      throw Error(Errc::data, fmt::format("{}: {} names {}, which is no floating-point tensor of the file", name,
                                          trained_key, quotation(tensor)));
    }
    trained.insert(tensor);
  }
  return trained;
}

}  // namespace

void read_stated_model(learn::ModelSpec& spec) {
  if (!spec.is_stated()) return;
  const std::string name = spec.state_file();
  const ModelFile file = load_safetensors(name);
  const std::set<std::string> trained = trained_in(file, name);
  if (trained.empty()) {
    throw Error(Errc::data, fmt::format("{}: no tensor of it is trained, so there is nothing to average", name));
  }
  std::vector<learn::TensorSpec> specs;
  for (const auto& [tensor_name, tensor] : file.model.state().tensors()) {
    if (tensor.is_floating_point() && !at::isfinite(tensor).all().item<bool>()) {
      throw Error(Errc::data, fmt::format("{}: tensor '{}' has values that are not finite; round 1 starts from this "
                                          "file",
                                          name, printable(tensor_name, 100)));
    }
    specs.push_back({tensor_name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  spec.stated = std::make_shared<const learn::StatedModel>(
      learn::StatedModel{file.model.state(), learn::Schema(std::move(specs), trained), {}});
}

}  // namespace headstart::wire
