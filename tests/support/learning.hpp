// Tensors to compare, and a task that a small network learns in a moment.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/learn/core/random.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/models/model.hpp"

namespace headstart::test {

using learn::Tensor;

constexpr double golden_tolerance = 1e-10;

/// {"shape": [...], "values": [...]}, as the scripts in tests/golden write one.
inline Tensor tensor_of(const nlohmann::json& json) {
  const auto values = json.at("values").get<std::vector<double>>();
  return torch::tensor(values, torch::kFloat64).view(json.at("shape").get<std::vector<std::int64_t>>());
}

inline double largest_difference(const Tensor& a, const Tensor& b) {
  return (a.to(torch::kFloat64) - b.to(torch::kFloat64)).abs().max().item<double>();
}

inline Tensor gradient_of(const Tensor& logits, const std::function<Tensor(const Tensor&)>& loss) {
  const Tensor leaf = logits.detach().clone().requires_grad_(true);
  loss(leaf).backward();
  return leaf.grad();
}

inline Tensor random_logits(const std::vector<std::int64_t>& shape, Seed seed, double spread = 3) {
  return torch::randn(shape, learn::generator(seed), torch::kFloat64) * spread;
}

inline const learn::Task small_task{.shape = {1, 12, 12}, .num_classes = 4};

inline learn::ModelSpec small_spec(learn::Norm norm) { return {.channels = {4, 8}, .hidden = 16, .norm = norm}; }

/// Four classes, each a pattern of its own under noise.
inline learn::Samples separable_samples(std::int64_t count, Seed seed) {
  const Tensor patterns = torch::randn({4, 1, 12, 12}, learn::generator(Seed(99)));
  const Tensor labels = torch::randint(4, {count}, learn::generator(seed.child("labels")), torch::kInt64);
  const Tensor noise = torch::randn({count, 1, 12, 12}, learn::generator(seed.child("noise")));
  return {patterns.index_select(0, labels) + 0.7 * noise, labels};
}

}  // namespace headstart::test
