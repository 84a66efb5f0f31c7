#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/models/networks.hpp"

namespace headstart::learn {

AffineLayer::AffineLayer(at::IntArrayRef weight_shape, bool has_bias) {
  weight = register_parameter("weight", torch::empty(weight_shape));
  if (has_bias) bias = register_parameter("bias", torch::empty({weight_shape[0]}));
}

void AffineLayer::initialise(Seed seed) {
  const at::NoGradGuard no_grad;
  const auto fan_in = static_cast<double>(weight.numel() / weight.size(0));
  const double bound = 1 / std::sqrt(fan_in);
  weight.uniform_(-bound, bound, generator(seed.child("weight")));
  if (bias.defined()) bias.uniform_(-bound, bound, generator(seed.child("bias")));
}

Convolution::Convolution(std::int64_t in, std::int64_t out, const Options& options)
    : AffineLayer({out, in, options.kernel, options.kernel}, options.has_bias),
      stride_(options.stride),
      padding_(options.padding) {}

Tensor Convolution::forward(const Tensor& x) const { return at::conv2d(x, weight, bias, stride_, padding_); }

Linear::Linear(std::int64_t in, std::int64_t out) : AffineLayer({out, in}, true) {}

Tensor Linear::forward(const Tensor& x) const { return at::linear(x, weight, bias); }

SecondHead::SecondHead(std::int64_t num_features, std::int64_t num_classes) {
  const std::int64_t half = std::max(std::int64_t{1}, num_features / 2);
  fc1 = register_module("fc1", std::make_shared<Linear>(num_features, num_features));
  fc2 = register_module("fc2", std::make_shared<Linear>(num_features, half));
  fc3 = register_module("fc3", std::make_shared<Linear>(half, num_classes));
}

Tensor SecondHead::forward(const Tensor& features) const {
  return fc3->forward(at::relu(fc2->forward(at::relu(fc1->forward(features)))));
}

double second_head_bytes(double num_features, double num_classes) {
  const double half = std::max(1.0, std::floor(num_features / 2));
  return (num_features * (num_features + 1) + half * (num_features + 1) + num_classes * (half + 1)) * sizeof(float);
}

void Network::add_head(std::string name, std::int64_t num_features, std::int64_t num_classes) {
  head_name = std::move(name);
  head = register_module(head_name, std::make_shared<Linear>(num_features, num_classes));
}

void Network::add_second_head() {
  std::string name = second_head_prefix;
  name.pop_back();
  second_head = register_module(name, std::make_shared<SecondHead>(head->weight.size(1), head->weight.size(0)));
}

Normalisation::Normalisation(Norm norm, std::int64_t channels)
    : Normalisation(norm, channels, std::gcd(channels, std::int64_t{32})) {}

Normalisation::Normalisation(Norm norm, std::int64_t channels, std::int64_t num_groups)
    : kind(norm), groups(num_groups) {
  if (kind == Norm::none) return;
  weight = register_parameter("weight", torch::ones({channels}));
  bias = register_parameter("bias", torch::zeros({channels}));
  if (kind != Norm::batch) return;
  running_mean = register_buffer("running_mean", torch::zeros({channels}));
  running_var = register_buffer("running_var", torch::ones({channels}));
  num_batches_tracked = register_buffer("num_batches_tracked", torch::zeros({}, torch::kLong));
}

void require_images(std::string_view network, const Task& task) {
  if (task.shape.size() == 3) return;
  throw Error(Errc::usage,
              fmt::format("model.name: {} expects samples of 3 dimensions, [channels, height, width]; those "
                          "of the data have {}: {}; mlp and linear take any",
                          network, task.shape.size(), shape_text(task.shape)));
}

double normalisation_bytes(Norm kind, double channels) {
  if (kind == Norm::none) return 0;
  const double vectors = kind == Norm::batch ? 4 : 2;
  return vectors * channels * sizeof(float) + (kind == Norm::batch ? sizeof(std::int64_t) : 0);
}

Tensor Normalisation::forward(const Tensor& x) {
  constexpr double eps = 1e-5;
  constexpr double momentum = 0.1;
  if (kind == Norm::none) return x;
  if (kind == Norm::group) return at::group_norm(x, groups, weight, bias, eps);
  if (is_training()) {
    if (x.numel() == x.size(1)) {
      throw Error(Errc::run_failed,
                  "batch normalisation cannot train on one value a channel (one sample, feature maps of 1 x 1): "
                  "give every client at least 2 training samples, or use model.norm=group");
    }
    num_batches_tracked += 1;
  }
  return at::batch_norm(x, weight, bias, running_mean, running_var, is_training(), momentum, eps,
                        /*cudnn_enabled=*/true);
}

}  // namespace headstart::learn
