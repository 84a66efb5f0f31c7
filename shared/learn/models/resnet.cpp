#include <cmath>

#include <fmt/format.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/models/networks.hpp"

namespace headstart::learn {

namespace {

/// A convolution without bias, with torchvision's first values: normal, deviation sqrt(2 / fan_out).
struct ResidualConvolution final : Convolution {
  ResidualConvolution(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride)
      : Convolution(in, out, {.kernel = kernel, .stride = stride, .padding = kernel / 2, .has_bias = false}) {}

  void initialise(Seed seed) override {
    const at::NoGradGuard no_grad;
    const auto fan_out = static_cast<double>(weight.numel() / weight.size(1));
    weight.normal_(0, std::sqrt(2 / fan_out), generator(seed.child("weight")));
  }
};

/// The shortcut of a block that changes size; its children are named "0" and "1" as in torchvision.
struct Downsample final : torch::nn::Module {
  Downsample(std::int64_t in, std::int64_t out, std::int64_t stride, Norm norm_kind) {
    conv = register_module("0", std::make_shared<ResidualConvolution>(in, out, 1, stride));
    norm = register_module("1", std::make_shared<Normalisation>(norm_kind, out));
  }
  Tensor forward(const Tensor& x) { return norm->forward(conv->forward(x)); }

  std::shared_ptr<Convolution> conv;
  std::shared_ptr<Normalisation> norm;
};

struct BasicBlock final : torch::nn::Module {
  BasicBlock(std::int64_t in, std::int64_t out, std::int64_t stride, Norm norm) {
    conv1 = register_module("conv1", std::make_shared<ResidualConvolution>(in, out, 3, stride));
    bn1 = register_module("bn1", std::make_shared<Normalisation>(norm, out));
    conv2 = register_module("conv2", std::make_shared<ResidualConvolution>(out, out, 3, 1));
    bn2 = register_module("bn2", std::make_shared<Normalisation>(norm, out));
    if (stride != 1 || in != out) {
      downsample = register_module("downsample", std::make_shared<Downsample>(in, out, stride, norm));
    }
  }

  Tensor forward(const Tensor& x) {
    const Tensor shortcut = downsample ? downsample->forward(x) : x;
    Tensor h = bn1->forward(conv1->forward(x)).relu_();
    h = bn2->forward(conv2->forward(h));
    return h.add_(shortcut).relu_();
  }

  std::shared_ptr<Convolution> conv1, conv2;
  std::shared_ptr<Normalisation> bn1, bn2;
  std::shared_ptr<Downsample> downsample;
};

/// ResNet-18 with the stem for small images: a 3 x 3 first convolution of stride 1 and no pooling after it.
class ResNet18 final : public Network {
 public:
  ResNet18(const ModelSpec& spec, const Task& task, Norm norm)
      : layout_(norm == Norm::group ? c10::MemoryFormat::Contiguous : c10::MemoryFormat::ChannelsLast) {
    conv1_ = register_module("conv1", std::make_shared<ResidualConvolution>(task.shape[0], spec.width, 3, 1));
    bn1_ = register_module("bn1", std::make_shared<Normalisation>(norm, spec.width));
    std::int64_t in = spec.width;
    for (std::int64_t stage = 0; stage < 4; ++stage) {
      const std::int64_t out = spec.width << stage;
      torch::nn::ModuleList layer;
      for (const std::int64_t stride : {stage == 0 ? 1 : 2, 1}) {
        blocks_.push_back(std::make_shared<BasicBlock>(in, out, stride, norm));
        layer->push_back(blocks_.back());
        in = out;
      }
      register_module(fmt::format("layer{}", stage + 1), layer);
    }
    add_head("fc", in, task.num_classes);
  }

  Tensor features(const Tensor& x) override {
    Tensor h = x.contiguous(layout_);
    h = bn1_->forward(conv1_->forward(h)).relu_();
    for (const auto& block : blocks_) h = block->forward(h);
    return h.mean({2, 3});
  }

 private:
  /// Of what flows through; the weights stay as they are sent and saved. On the CPU channels last trains narrow
  /// networks a quarter faster, but slows LibTorch's GroupNorm by a third.
  c10::MemoryFormat layout_;
  std::shared_ptr<Convolution> conv1_;
  std::shared_ptr<Normalisation> bn1_;
  std::vector<std::shared_ptr<BasicBlock>> blocks_;
};

}  // namespace

namespace {

void check(const ModelSpec& spec, const Task& task) {
  constexpr std::int64_t max_width = 1024;
  if (spec.width < 1 || spec.width > max_width) {
    throw Error(Errc::usage, fmt::format("model.width: expected 1 to {}, got {}", max_width, spec.width));
  }
  require_images("resnet18", task);
}

}  // namespace

std::shared_ptr<Network> make_resnet18(const ModelSpec& spec, const Task& task, Norm norm) {
  check(spec, task);
  return std::make_shared<ResNet18>(spec, task, norm);
}

double resnet18_bytes(const ModelSpec& spec, const Task& task, Norm norm) {
  check(spec, task);
  double bytes = 0;
  const auto add_convolution = [&bytes, norm](double in, double out, double kernel) {
    bytes += in * out * kernel * kernel * sizeof(float) + normalisation_bytes(norm, out);
  };
  double in = static_cast<double>(spec.width);
  add_convolution(static_cast<double>(task.shape[0]), in, 3);
  for (int stage = 0; stage < 4; ++stage) {
    const double out = static_cast<double>(spec.width << stage);
    if (stage > 0) add_convolution(in, out, 1);  // the shortcut
    add_convolution(in, out, 3);
    for (int i = 0; i < 3; ++i) add_convolution(out, out, 3);
    in = out;
  }
  if (spec.second_head) bytes += second_head_bytes(in, static_cast<double>(task.num_classes));
  return bytes + static_cast<double>(task.num_classes) * (in + 1) * sizeof(float);
}

}  // namespace headstart::learn
