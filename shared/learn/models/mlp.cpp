#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/models/networks.hpp"

namespace headstart::learn {

namespace {

constexpr std::size_t max_hidden_layers = 64;

void check(const ModelSpec& spec, Norm norm) {
  const std::vector<std::int64_t>& layers = spec.hidden_layers;
  const bool is_sound = !layers.empty() && layers.size() <= max_hidden_layers && std::ranges::min(layers) >= 1;
  if (!is_sound) {
    throw Error(
        Errc::usage,
        fmt::format("model.hidden_layers: mlp expects 1 to {} numbers of units of at least 1, got {}; model.name "
                    "linear has no hidden layer",
                    max_hidden_layers, nlohmann::json(layers).dump()));
  }
  if (norm == Norm::group && std::ranges::min(layers) < 2) {
    throw Error(Errc::usage,
                "model.hidden_layers: with model.norm=group a layer needs 2 units at least, as it is normalised over "
                "its own units");
  }
}

/// Linear layers fc1, fc2, ..., each but the last with normalisation norm1, norm2, ... and ReLU.
class Mlp final : public Network {
 public:
  Mlp(const ModelSpec& spec, const Task& task, Norm norm) {
    std::int64_t size = num_values(task.shape);
    for (const std::int64_t units : spec.hidden_layers) {
      const std::size_t number = layers_.size() + 1;
      layers_.push_back(register_module(fmt::format("fc{}", number), std::make_shared<Linear>(size, units)));
      norms_.push_back(
          register_module(fmt::format("norm{}", number), std::make_shared<Normalisation>(norm, units, /*groups=*/1)));
      size = units;
    }
    add_head(fmt::format("fc{}", layers_.size() + 1), size, task.num_classes);
  }

  Tensor features(const Tensor& x) override {
    Tensor h = x.flatten(1);
    for (std::size_t i = 0; i < layers_.size(); ++i) h = at::relu(norms_[i]->forward(layers_[i]->forward(h)));
    return h;
  }

 private:
  std::vector<std::shared_ptr<Linear>> layers_;
  std::vector<std::shared_ptr<Normalisation>> norms_;
};

/// One layer, fc: multinomial logistic regression.
class LinearNetwork final : public Network {
 public:
  explicit LinearNetwork(const Task& task) { add_head("fc", num_values(task.shape), task.num_classes); }

  Tensor features(const Tensor& x) override { return x.flatten(1); }
};

double layer_bytes(double in, double out) { return out * (in + 1) * sizeof(float); }

}  // namespace

std::shared_ptr<Network> make_mlp(const ModelSpec& spec, const Task& task, Norm norm) {
  check(spec, norm);
  return std::make_shared<Mlp>(spec, task, norm);
}

std::shared_ptr<Network> make_linear(const ModelSpec&, const Task& task, Norm) {
  return std::make_shared<LinearNetwork>(task);
}

double mlp_bytes(const ModelSpec& spec, const Task& task, Norm norm) {
  check(spec, norm);
  double bytes = 0;
  auto size = static_cast<double>(num_values(task.shape));
  for (const std::int64_t units : spec.hidden_layers) {
    const auto next = static_cast<double>(units);
    bytes += layer_bytes(size, next) + normalisation_bytes(norm, next);
    size = next;
  }
  const auto num_classes = static_cast<double>(task.num_classes);
  return bytes + layer_bytes(size, num_classes) + (spec.second_head ? second_head_bytes(size, num_classes) : 0);
}

double linear_bytes(const ModelSpec& spec, const Task& task, Norm) {
  const auto size = static_cast<double>(num_values(task.shape));
  const auto num_classes = static_cast<double>(task.num_classes);
  return layer_bytes(size, num_classes) + (spec.second_head ? second_head_bytes(size, num_classes) : 0);
}

}  // namespace headstart::learn
