#include "shared/learn/train/head_sums.hpp"

#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"

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

/// Of the numbers of a lower triangle.
std::int64_t side_of(std::int64_t num_values) {
  return static_cast<std::int64_t>(std::llround((std::sqrt(8.0 * static_cast<double>(num_values) + 1) - 1) / 2));
}

Tensor whole_matrix(const Tensor& triangle) {
  const std::int64_t size = side_of(triangle.size(0));
  const Tensor places = lower_triangle(size);
  Tensor matrix = torch::zeros({size, size}, triangle.options());
  matrix.index_put_({places[0], places[1]}, triangle);
  return matrix + matrix.tril(-1).t();
}

/// Cholesky factor of `matrix` [size, size] with `damping` times `scale` added to its diagonal, the bias's place aside.
Tensor damped_factor(const Tensor& matrix, double scale, double damping) {
  if (!(scale > 0) || !std::isfinite(scale)) {
    throw Error(Errc::run_failed, "the model's features are all zero or not finite: no head can be fitted to them");
  }
  const std::int64_t size = matrix.size(0);
  Tensor diagonal = torch::full({size}, damping * scale, matrix.options());
  diagonal[size - 1] = bias_damping * scale;
  const auto [factor, info] = at::linalg_cholesky_ex(matrix + diagonal.diag());
  if (info.item<std::int64_t>() != 0) {
    throw Error(Errc::run_failed, "the second moments of the features are singular: raise head.damping");
  }
  return factor;
}

/// Mean of the diagonal without the bias's place.
double scale_of(const Tensor& mean) { return mean.diagonal().narrow(0, 0, mean.size(0) - 1).mean().item<double>(); }

Tensor with_ones(const Tensor& features) {
  return torch::cat({features, torch::ones({features.size(0), 1}, features.options())}, 1);
}

void require_map(bool fits, const char* what) {
  if (!fits) throw Error(Errc::protocol, fmt::format("the {} is not for the model's features", what));
}

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

Tensor features_of(Model& model, const Tensor& x, std::int64_t batch_size, std::stop_token stop,
                   const ProgressCallback& progress) {
  const at::NoGradGuard no_grad;
  model.set_training(false);
  std::vector<Tensor> parts;
  for (std::int64_t begin = 0; begin < x.size(0); begin += batch_size) {
    if (stop.stop_requested()) throw Error(Errc::interrupted, "stopped while features were computed");
    const Tensor features = model.features(x.narrow(0, begin, std::min(batch_size, x.size(0) - begin)));
    parts.push_back(features.to(c10::kCPU, c10::kDouble));
    if (progress) progress({std::min(begin + batch_size, x.size(0)), x.size(0)});
  }
  if (parts.empty()) throw Error(Errc::data, "there are no samples to compute features of");
  return torch::cat(parts);
}

std::int64_t FeatureMap::size_of(std::int64_t num_features) const {
  const std::int64_t projected = projection.defined() ? projection.size(1) : num_features;
  return projected + (lift.defined() ? lift.size(1) : 0) + 1;
}

Tensor mapped(const Tensor& features, const FeatureMap& map) {
  Tensor z = features;
  if (map.projection.defined()) {
    require_map(map.projection.dim() == 2 && map.projection.size(0) == z.size(1) + 1, "projection");
    z = with_ones(z).matmul(map.projection);
  }
  if (map.lift.defined()) {
    require_map(map.lift.dim() == 2 && map.lift.size(0) == z.size(1) + 1, "lift");
    z = torch::cat({z, with_ones(z).matmul(map.lift).relu()}, 1);
  }
  return with_ones(z);
}

Tensor head_inputs(Model& model, const Tensor& x, std::int64_t batch_size, std::stop_token stop,
                   const ProgressCallback& progress) {
  return mapped(features_of(model, x, batch_size, std::move(stop), progress), {});
}

Tensor principal_projection(const Tensor& features, std::int64_t size) {
  if (!at::isfinite(features).all().item<bool>()) {
    throw Error(Errc::run_failed, "the models' features of the public set are not finite");
  }
  const Tensor mean = features.mean(0);
  const Tensor centred = features - mean;
  const bool is_wide = centred.size(1) > centred.size(0);
  // The smaller of the two matrices of products has all directions that vary.
  const Tensor products = is_wide ? centred.matmul(centred.t()) : centred.t().matmul(centred);
  const auto [values, vectors] = at::linalg_eigh(products);  // ascending
  const double largest = values[-1].item<double>();
  if (!(largest > 0)) throw Error(Errc::run_failed, "the models' features of the public set are all equal");
  const std::int64_t num_varying = values.gt(1e-10 * largest).sum().item<std::int64_t>();
  const std::int64_t kept = std::min(size, num_varying);
  const Tensor top = values.narrow(0, values.size(0) - kept, kept).flip(0);
  Tensor directions = vectors.narrow(1, values.size(0) - kept, kept).flip(1);
  if (is_wide) directions = centred.t().matmul(directions) / top.sqrt();
  const Tensor scaled = directions / (top / static_cast<double>(features.size(0))).sqrt();
  return torch::cat({scaled, -mean.unsqueeze(0).matmul(scaled)}).contiguous();
}

Tensor scaling_projection(const Tensor& features) {
  const Tensor deviation = features.std(0, /*unbiased=*/false);
  if (!at::isfinite(deviation).all().item<bool>() || !deviation.gt(0).any().item<bool>()) {
    throw Error(Errc::run_failed, "the model's features of the public set are not finite, or all equal");
  }
  // A feature that hardly varies here may be large where a silo's samples are others: it is not blown up without bound.
  const Tensor floor = deviation.mean() * 0.01;
  const Tensor scale = torch::where(deviation > 0, 1 / deviation.maximum(floor), torch::zeros_like(deviation));
  return torch::cat({scale.diag(), torch::zeros({1, scale.size(0)}, scale.options())}).contiguous();
}

Tensor random_lift(std::int64_t num_features, std::int64_t size, Seed seed) {
  Tensor lift = at::normal(0, 1, {num_features + 1, size}, generator(seed), at::TensorOptions(c10::kDouble));
  lift.narrow(0, 0, num_features).mul_(1.5 / std::sqrt(static_cast<double>(num_features)));
  return lift;
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

Tensor ridge_head(const Tensor& moments, const Tensor& class_sums, std::int64_t num_samples, double damping) {
  const Tensor mean = whole_matrix(moments) / static_cast<double>(num_samples);
  const Tensor factor = damped_factor(mean, scale_of(mean), damping);
  return at::cholesky_solve(class_sums / static_cast<double>(num_samples), factor);
}

Tensor gaussian_head(const Tensor& moments, const Tensor& class_sums, std::int64_t num_samples, double damping) {
  const Tensor sums = whole_matrix(moments);
  const std::int64_t num_features = sums.size(0) - 1;
  const double num_classes = static_cast<double>(class_sums.size(1));
  // sum u y^T: the bias's row of the moments is sum u.
  const Tensor by_class = class_sums + sums[num_features].unsqueeze(1) / num_classes;
  // Whole numbers but for fixed point, in which a class without samples is not exactly 0.
  const Tensor counts = by_class[num_features].round();
  const Tensor means = by_class.narrow(0, 0, num_features) / counts.clamp_min(1);
  const Tensor between = (means * counts).matmul(means.t());
  const Tensor within =
      (sums.narrow(0, 0, num_features).narrow(1, 0, num_features) - between) / static_cast<double>(num_samples);
  const double scale = within.diagonal().mean().item<double>();
  if (!(scale > 0) || !std::isfinite(scale)) {
    throw Error(Errc::run_failed,
                "the model's features do not vary within the classes: no Gaussian head can be fitted");
  }
  const Tensor damped = within + damping * scale * torch::eye(num_features, within.options());
  const auto [factor, info] = at::linalg_cholesky_ex(damped);
  if (info.item<std::int64_t>() != 0) {
    throw Error(Errc::run_failed, "the covariance of the features is singular: raise head.damping");
  }
  const Tensor weights = at::cholesky_solve(means, factor);
  constexpr double never = -1e6;
  const Tensor bias = torch::where(counts > 0, -0.5 * (means * weights).sum(0), torch::full_like(counts, never));
  return torch::cat({weights, bias.unsqueeze(0)}).contiguous();
}

HeadFit::HeadFit(const Tensor& moments, std::int64_t num_samples, double damping, Tensor head)
    : head_(std::move(head)), point_(head_) {
  const Tensor mean = whole_matrix(moments) / static_cast<double>(num_samples);
  factor_ = damped_factor(mean, scale_of(mean), damping);
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
