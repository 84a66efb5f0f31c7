#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/models/networks.hpp"

namespace headstart::learn {

namespace {

/// Side of the feature map after one valid convolution and a 2 x 2 pooling; 0 where nothing is left.
std::int64_t side_after_stage(std::int64_t side, std::int64_t kernel) {
  return side < kernel ? 0 : (side - kernel + 1) / 2;
}

std::int64_t side_after_both(std::int64_t side, std::int64_t kernel) {
  return side_after_stage(side_after_stage(side, kernel), kernel);
}

void check(const ModelSpec& spec, const Task& task) {
  if (spec.channels.size() != 2 || spec.channels[0] < 1 || spec.channels[1] < 1) {
    throw Error(Errc::usage, fmt::format("model.channels: cnn expects two numbers of filters of at least 1, got {}",
                                         nlohmann::json(spec.channels).dump()));
  }
  if (spec.kernel < 1) throw Error(Errc::usage, fmt::format("model.kernel: expected at least 1, got {}", spec.kernel));
  if (spec.hidden < 1) throw Error(Errc::usage, fmt::format("model.hidden: expected at least 1, got {}", spec.hidden));
  require_images("cnn", task);
  const std::int64_t height = task.shape[1];
  const std::int64_t width = task.shape[2];
  if (side_after_both(std::min(height, width), spec.kernel) < 1) {
    throw Error(Errc::usage,
                fmt::format("model.kernel: images of {} x {} are too small for cnn with kernel {}: two convolutions "
                            "with pooling leave nothing of them; choose a smaller kernel",
                            height, width, spec.kernel));
  }
}

/// Twice convolution, normalisation, pooling and relu; then a hidden and an output layer.
class Cnn final : public Network {
 public:
  Cnn(const ModelSpec& spec, const Task& task, Norm norm) {
    const std::int64_t features =
        spec.channels[1] * side_after_both(task.shape[1], spec.kernel) * side_after_both(task.shape[2], spec.kernel);
    const Convolution::Options options{.kernel = spec.kernel};
    conv1_ = register_module("conv1", std::make_shared<Convolution>(task.shape[0], spec.channels[0], options));
    norm1_ = register_module("norm1", std::make_shared<Normalisation>(norm, spec.channels[0]));
    conv2_ = register_module("conv2", std::make_shared<Convolution>(spec.channels[0], spec.channels[1], options));
    norm2_ = register_module("norm2", std::make_shared<Normalisation>(norm, spec.channels[1]));
    fc1_ = register_module("fc1", std::make_shared<Linear>(features, spec.hidden));
    add_head("fc2", spec.hidden, task.num_classes);
  }

  Tensor features(const Tensor& x) override {
    // Channels last, LibTorch's kernels pool many times as fast on a CPU, and a step takes little more than half the
    // time. A clone, as x of one channel has either layout and would keep its own.
    const Tensor laid_out = x.is_cpu() ? x.clone(at::MemoryFormat::ChannelsLast) : x;
    // The maximum of relu is the relu of the maximum: pooled first, relu has a quarter of the values to visit.
    Tensor h = at::relu(at::max_pool2d(norm1_->forward(conv1_->forward(laid_out)), 2));
    h = at::relu(at::max_pool2d(norm2_->forward(conv2_->forward(h)), 2));
    return at::relu(fc1_->forward(h.flatten(1)));
  }

 private:
  std::shared_ptr<Convolution> conv1_, conv2_;
  std::shared_ptr<Normalisation> norm1_, norm2_;
  std::shared_ptr<Linear> fc1_;
};

}  // namespace

std::shared_ptr<Network> make_cnn(const ModelSpec& spec, const Task& task, Norm norm) {
  check(spec, task);
  return std::make_shared<Cnn>(spec, task, norm);
}

double cnn_bytes(const ModelSpec& spec, const Task& task, Norm norm) {
  check(spec, task);
  const auto number = [](std::int64_t value) { return static_cast<double>(value); };
  const double first = number(spec.channels[0]);
  const double second = number(spec.channels[1]);
  const double hidden = number(spec.hidden);
  const double filter = number(spec.kernel) * number(spec.kernel);
  const double features = second * number(side_after_both(task.shape[1], spec.kernel)) *
                          number(side_after_both(task.shape[2], spec.kernel));
  const double weights = first * (number(task.shape[0]) * filter + 1) + second * (first * filter + 1) +
                         hidden * (features + 1) + number(task.num_classes) * (hidden + 1);
  const double second_head = spec.second_head ? second_head_bytes(hidden, number(task.num_classes)) : 0;
  return second_head + weights * sizeof(float) + normalisation_bytes(norm, first) + normalisation_bytes(norm, second);
}

}  // namespace headstart::learn
