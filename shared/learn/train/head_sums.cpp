#include "shared/learn/train/head_sums.hpp"

#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

/// Of the bias's place in the diagonal, in place of the damping.
constexpr double bias_damping = 1e-6;

struct HeadTensors {
  Tensor weight;  ///< [C, F]
  Tensor bias;    ///< [C]
};

HeadTensors head_tensors(Model& model) {
  const std::string prefix = model.head_prefix(Head::first);
  HeadTensors head;
  std::int64_t num_others = 0;
  for (const NamedTensor& named : model.named_state()) {
    if (!named.name.starts_with(prefix)) continue;
    if (named.name == prefix + "weight") {
      head.weight = named.tensor;
    } else if (named.name == prefix + "bias") {
      head.bias = named.tensor;
    } else {
      ++num_others;
    }
  }
  if (!head.weight.defined() || !head.bias.defined() || num_others > 0 || head.weight.dim() != 2) {
    throw Error(Errc::usage, fmt::format("the model's head '{}' is no single linear layer with a bias", prefix));
  }
  return head;
}

Tensor lower_triangle(std::int64_t size) { return torch::tril_indices(size, size); }

}  // namespace

Tensor head_of(Model& model) {
  const HeadTensors head = head_tensors(model);
  const Tensor weight = head.weight.detach().to(c10::kCPU, c10::kDouble);
  const Tensor bias = head.bias.detach().to(c10::kCPU, c10::kDouble);
  return torch::cat({weight.t(), bias.unsqueeze(0)}).contiguous();
}

void set_head(Model& model, const Tensor& head) {
  const HeadTensors tensors = head_tensors(model);
  const at::NoGradGuard no_grad;
  const std::int64_t num_features = tensors.weight.size(1);
  tensors.weight.copy_(head.narrow(0, 0, num_features).t());
  tensors.bias.copy_(head[num_features]);
}

Tensor head_inputs(Model& model, const Tensor& x, std::int64_t batch_size, std::stop_token stop,
                   const ProgressCallback& progress) {
  const at::NoGradGuard no_grad;
  model.set_training(false);
  std::vector<Tensor> inputs;
  for (std::int64_t begin = 0; begin < x.size(0); begin += batch_size) {
    if (stop.stop_requested()) throw Error(Errc::interrupted, "stopped while features were computed");
    const Tensor features = model.features(x.narrow(0, begin, std::min(batch_size, x.size(0) - begin)));
    inputs.push_back(features.to(c10::kCPU, c10::kDouble));
    if (progress) progress({std::min(begin + batch_size, x.size(0)), x.size(0)});
  }
  if (inputs.empty()) throw Error(Errc::data, "there are no samples to compute features of");
  const Tensor features = torch::cat(inputs);
  return torch::cat({features, torch::ones({features.size(0), 1}, features.options())}, 1);
}

Tensor moments_of(const Tensor& inputs) {
  const Tensor square = inputs.t().matmul(inputs);
  const Tensor places = lower_triangle(square.size(0));
  return square.index({places[0], places[1]});
}

Tensor head_gradient(const Tensor& inputs, const Tensor& labels, const Tensor& head) {
  Tensor residual = -inputs.matmul(head).softmax(1);
  residual.scatter_add_(1, labels.cpu().unsqueeze(1), torch::ones({inputs.size(0), 1}, residual.options()));
  return inputs.t().matmul(residual);
}

Tensor to_fixed_point(const Tensor& sum) {
  const Tensor scaled = sum * std::ldexp(1.0, sum_fraction_bits);
  const Tensor largest = scaled.abs().max();
  if (!std::isfinite(largest.item<double>())) throw Error(Errc::run_failed, "a sum over samples is not finite");
  if (largest.item<double>() > static_cast<double>(max_fixed_sum)) {
    throw Error(Errc::run_failed,
                fmt::format("a sum over samples is {:.3g}; {:.3g} at most can be added exactly: the model's features "
                            "are too large",
                            largest.item<double>() * std::ldexp(1.0, -sum_fraction_bits),
                            std::ldexp(static_cast<double>(max_fixed_sum), -sum_fraction_bits)));
  }
  return scaled.round().to(c10::kLong);
}

Tensor from_fixed_point(const Tensor& sum) { return sum.to(c10::kDouble) * std::ldexp(1.0, -sum_fraction_bits); }

HeadFit::HeadFit(const Tensor& moments, std::int64_t num_samples, double damping, Tensor head)
    : head_(std::move(head)), point_(head_) {
  const std::int64_t size = head_.size(0);
  const Tensor places = lower_triangle(size);
  Tensor mean = torch::zeros({size, size}, head_.options());
  mean.index_put_({places[0], places[1]}, moments / static_cast<double>(num_samples));
  mean = mean + mean.tril(-1).t();
  const double scale = mean.diagonal().narrow(0, 0, size - 1).mean().item<double>();
  if (!(scale > 0) || !std::isfinite(scale)) {
    throw Error(Errc::run_failed, "the model's features are all zero or not finite: no head can be fitted to them");
  }
  Tensor diagonal = torch::full({size}, damping * scale, head_.options());
  diagonal[size - 1] = bias_damping * scale;
  const auto [factor, info] = at::linalg_cholesky_ex(mean + diagonal.diag());
  if (info.item<std::int64_t>() != 0) {
    throw Error(Errc::run_failed, "the second moments of the features are singular: raise head.damping");
  }
  factor_ = factor;
}

void HeadFit::step(const Tensor& gradient, std::int64_t num_samples) {
  // Twice: the Hessian of the mean log-likelihood is at most half of the moments, whatever the head.
  const Tensor next = point_ + 2 * at::cholesky_solve(gradient / static_cast<double>(num_samples), factor_);
  const double momentum = (1 + std::sqrt(1 + 4 * momentum_ * momentum_)) / 2;
  point_ = next + (momentum_ - 1) / momentum * (next - head_);
  head_ = next;
  momentum_ = momentum;
}

}  // namespace headstart::learn
