#include "shared/learn/tune/gaussian_process.hpp"

#include <cmath>

#include <doctest/doctest.h>

#include "tests/support/learning.hpp"

using namespace headstart;
using namespace headstart::learn;
using namespace headstart::test;

namespace {

Tensor numbers(const std::vector<double>& values) { return torch::tensor(values, torch::kFloat64); }

}  // namespace

TEST_CASE("Gaussian process: one observation, in closed form") {
  const GaussianProcess process{.deviation = 2, .noise = 0.5};
  const Tensor points = numbers({0, 1, 100}).unsqueeze(1);
  const Posterior posterior = posterior_of(process, numbers({0}).unsqueeze(1), numbers({3}), points);
  // The value is its own mean, so nothing moves it; the variance falls by k(x, 0)^2 / (k(0, 0) + noise^2).
  CHECK(largest_difference(posterior.mean, numbers({3, 3, 3})) < 1e-12);
  const auto deviation = [&](double k) { return std::sqrt(4 - k * k / 4.25); };
  CHECK(largest_difference(posterior.deviation, numbers({deviation(4), deviation(4 * std::exp(-0.5)), 2})) < 1e-12);
}

TEST_CASE("Gaussian process: two observations, in closed form") {
  const GaussianProcess process{.deviation = 1, .noise = 0};
  const Tensor observed = numbers({-1, 1}).unsqueeze(1);
  const Posterior posterior = posterior_of(process, observed, numbers({0, 2}), numbers({-1, 0, 1, 50}).unsqueeze(1));
  // Without noise it goes through what was seen, is halfway in the middle, and knows nothing far away.
  CHECK(largest_difference(posterior.mean, numbers({0, 1, 2, 1})) < 1e-10);
  const double k = std::exp(-0.5);
  const double c = std::exp(-2.0);
  CHECK(largest_difference(posterior.deviation, numbers({0, std::sqrt(1 - 2 * k * k / (1 + c)), 0, 1})) < 1e-6);
}

TEST_CASE("expected improvement: in closed form, and by simulation") {
  const Posterior posterior{numbers({0.5, 0.7, 0.4, 0.9}), numbers({0.1, 0, 0, 0.2})};
  const Tensor improvement = expected_improvement(posterior, 0.5);
  CHECK(improvement[0].item<double>() == doctest::Approx(0.1 / std::sqrt(2 * M_PI)));
  CHECK(improvement[1].item<double>() == doctest::Approx(0.2));
  CHECK(improvement[2].item<double>() == 0);
  const Tensor draws = torch::randn({400000}, generator(Seed(1)), torch::kFloat64) * 0.2 + 0.9 - 0.5;
  CHECK(improvement[3].item<double>() == doctest::Approx(draws.clamp_min(0).mean().item<double>()).epsilon(0.01));
}
