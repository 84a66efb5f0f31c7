#include "shared/learn/tune/gaussian_process.hpp"

#include <numbers>

#include <torch/types.h>

namespace headstart::learn {

namespace {

Tensor covariance(const GaussianProcess& process, const Tensor& a, const Tensor& b) {
  const Tensor distance = (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2);
  return torch::exp(-0.5 * distance) * (process.deviation * process.deviation);
}

}  // namespace

Posterior posterior_of(const GaussianProcess& process, const Tensor& observed, const Tensor& values,
                       const Tensor& points) {
  const Tensor noise = torch::eye(observed.size(0), torch::kFloat64) * (process.noise * process.noise);
  const Tensor factor = at::linalg_cholesky(covariance(process, observed, observed) + noise);
  const Tensor cross = covariance(process, observed, points);
  const Tensor mean = values.mean();
  const Tensor weights = at::cholesky_solve((values - mean).unsqueeze(1), factor);
  const Tensor explained = at::linalg_solve_triangular(factor, cross, /*upper=*/false).square().sum(0);
  const Tensor variance = torch::clamp_min(process.deviation * process.deviation - explained, 0);
  return {mean + cross.t().mv(weights.squeeze(1)), variance.sqrt()};
}

Tensor expected_improvement(const Posterior& posterior, double best) {
  const Tensor gain = posterior.mean - best;
  const Tensor certain = posterior.deviation <= 0;
  const Tensor deviation = torch::where(certain, torch::ones_like(posterior.deviation), posterior.deviation);
  const Tensor z = gain / deviation;
  const Tensor density = torch::exp(-0.5 * z.square()) / std::sqrt(2 * std::numbers::pi);
  const Tensor below = 0.5 * (1 + torch::erf(z / std::numbers::sqrt2));
  const Tensor uncertain = torch::clamp_min(gain * below + deviation * density, 0);
  return torch::where(certain, torch::clamp_min(gain, 0), uncertain);
}

}  // namespace headstart::learn
