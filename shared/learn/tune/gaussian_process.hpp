// Regression by a Gaussian process: what a few noisy values of a smooth function say of the others.
// Source: Rasmussen & Williams 2006, algorithm 2.1; expected improvement: Jones, Schonlau & Welch 1998.
#pragma once

#include "shared/learn/core/tensor.hpp"

namespace headstart::learn {

/// k(a, b) = deviation^2 exp(-|a - b|^2 / 2), inputs already divided by their length scales.
struct GaussianProcess {
  double deviation = 1;  ///< Of the function around its mean.
  double noise = 0.1;    ///< Deviation of what is observed around the function.
};

struct Posterior {
  Tensor mean;       ///< float64 [m].
  Tensor deviation;  ///< float64 [m], at least 0.
};

/// Of the function at `points` [m, d], given `values` [n], n > 0, at `observed` [n, d]; its prior mean is the mean of
/// the values. All float64.
Posterior posterior_of(const GaussianProcess& process, const Tensor& observed, const Tensor& values,
                       const Tensor& points);

/// E[max(0, f - best)] at each point: float64 [m], at least 0.
Tensor expected_improvement(const Posterior& posterior, double best);

}  // namespace headstart::learn
