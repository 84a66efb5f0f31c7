#include "shared/learn/distill/experts.hpp"

#include <cmath>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/distill/shapes.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "shared/learn/train/head_sums.hpp"

namespace headstart::learn {

namespace {

/// Beyond it a sample counts no more, or less: one sample must not outweigh all others.
constexpr double largest_density_log_odds = 8;
/// Added to each deviation: a feature that hardly varies must not be blown up.
constexpr double deviation_floor = 0.1;

Tensor with_bias(const Tensor& features) {
  return torch::cat({features, torch::ones({features.size(0), 1}, features.options())}, 1);
}

/// Rows of weights over their sum; 1/C where that is not positive.
Tensor normalised_rows(const Tensor& rows) {
  const Tensor sum = rows.sum(1, true);
  const Tensor uniform = torch::full_like(rows, 1.0 / static_cast<double>(rows.size(1)));
  return torch::where(sum > 0, rows / sum, uniform).to(c10::kFloat);
}

/// The halved logistic loss and its penalty, which the fit lowers.
double objective(const Tensor& own_odds, const Tensor& public_odds, const Tensor& coefficients, double penalty) {
  const Tensor weights = coefficients.narrow(0, 0, coefficients.size(0) - 1);
  return (0.5 * at::softplus(-own_odds).mean() + 0.5 * at::softplus(public_odds).mean() +
          penalty * weights.square().sum())
      .item<double>();
}

}  // namespace

Tensor density_features(Model& model, const Tensor& x, std::int64_t batch_size, std::stop_token stop,
                        const ProgressCallback& progress) {
  if (model.shows_features()) {
    try {
      return features_of(model, x, batch_size, stop, progress);
    } catch (const Error& error) {
      if (error.code() != Errc::data) throw;  // a script whose features() means something else
    }
  }
  return logits_of(model, x, batch_size, std::move(stop), progress).to(c10::kCPU, c10::kDouble);
}

Tensor density_log_odds(const Tensor& own, const Tensor& open, double penalty) {
  expect_shape(own.dim() == 2 && open.dim() == 2 && own.size(1) == open.size(1), "features must be [n, F] and [m, F]");
  if (own.size(0) == 0 || open.size(0) == 0) {
    throw Error(Errc::data, "there are no samples to tell own from public ones by");
  }
  if (!at::isfinite(own).all().item<bool>() || !at::isfinite(open).all().item<bool>()) {
    throw Error(Errc::run_failed,
                "the model's features are not finite: how much a sample is like its own is not known");
  }
  const Tensor mean = open.mean(0);
  const Tensor deviation = open.std(0, /*unbiased=*/false) + deviation_floor;
  const Tensor mine = with_bias((own - mean) / deviation);
  const Tensor others = with_bias((open - mean) / deviation);

  const std::int64_t size = mine.size(1);
  Tensor ridge = torch::full({size}, 2 * penalty, mine.options());
  ridge[size - 1] = 0;
  const double own_share = 0.5 / static_cast<double>(mine.size(0));
  const double public_share = 0.5 / static_cast<double>(others.size(0));
  Tensor coefficients = torch::zeros({size}, mine.options());
  double value = objective(mine.mv(coefficients), others.mv(coefficients), coefficients, penalty);
  constexpr int max_steps = 50;
  for (int step = 0; step < max_steps; ++step) {
    const Tensor p_own = at::sigmoid(mine.mv(coefficients));
    const Tensor p_public = at::sigmoid(others.mv(coefficients));
    const Tensor gradient =
        own_share * mine.t().mv(p_own - 1) + public_share * others.t().mv(p_public) + ridge * coefficients;
    if (gradient.abs().max().item<double>() < 1e-10) break;
    const Tensor hessian = own_share * mine.t().matmul(mine * (p_own * (1 - p_own)).unsqueeze(1)) +
                           public_share * others.t().matmul(others * (p_public * (1 - p_public)).unsqueeze(1)) +
                           ridge.diag() + 1e-12 * torch::eye(size, mine.options());
    const Tensor direction = at::cholesky_solve(gradient.unsqueeze(1), at::linalg_cholesky(hessian)).squeeze(1);
    // Halved until it descends: Newton's full step may overshoot far from the optimum.
    double length = 1;
    Tensor next = coefficients - direction;
    double next_value = objective(mine.mv(next), others.mv(next), next, penalty);
    while (next_value > value && length > 1e-6) {
      length /= 2;
      next = coefficients - length * direction;
      next_value = objective(mine.mv(next), others.mv(next), next, penalty);
    }
    if (!(next_value <= value)) break;
    coefficients = next;
    value = next_value;
  }
  return others.mv(coefficients);
}

Tensor density_weights(const Tensor& log_odds, Density density) {
  if (density == Density::bounded) return at::sigmoid(log_odds).square();
  return log_odds.clamp(-largest_density_log_odds, largest_density_log_odds).exp();
}

Tensor expert_targets(const Tensor& logits, const Tensor& weights, double temperature) {
  expect_shape(
      logits.dim() == 3 && weights.dim() == 2 && logits.size(0) == weights.size(0) && logits.size(1) == weights.size(1),
      "experts' logits must be [K, N, C] and their weights [K, N]");
  const Tensor probabilities = softened(logits.to(c10::kDouble), temperature).softmax(2);
  const Tensor rows = (weights.to(logits.device(), c10::kDouble).unsqueeze(2) * probabilities).sum(0);
  return normalised_rows(rows);
}

std::int64_t answer_bytes(std::int64_t count, std::int64_t bits) { return (count * bits + 7) / 8; }

Tensor packed_answers(const Tensor& answers, std::int64_t bits) {
  const Tensor values = answers.flatten().to(c10::kCPU, c10::kDouble);
  if (!(values.ge(0).logical_and(values.le(1)).all().item<bool>())) {
    throw Error(Errc::run_failed, "an answer is not finite, or not within 0 and 1");
  }
  const Tensor rounded =
      (values * std::ldexp(1.0, static_cast<int>(bits)) - values).round().to(c10::kLong).contiguous();
  const std::int64_t count = rounded.size(0);
  Tensor packed = torch::zeros({answer_bytes(count, bits)}, c10::kByte);
  const auto* from = rounded.data_ptr<std::int64_t>();
  auto* to = packed.data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t bit = 0; bit < bits; ++bit) {
      const std::int64_t place = i * bits + bit;
      if ((from[i] >> bit & 1) != 0) to[place / 8] = static_cast<std::uint8_t>(to[place / 8] | 1U << (place % 8));
    }
  }
  return packed;
}

Tensor unpacked_answers(const Tensor& packed, std::int64_t count, std::int64_t bits) {
  expect_shape(packed.dim() == 1 && packed.size(0) == answer_bytes(count, bits), "packed answers of another size");
  const Tensor bytes = packed.contiguous();
  const auto* from = bytes.data_ptr<std::uint8_t>();
  Tensor values = torch::zeros({count}, c10::kLong);
  auto* to = values.data_ptr<std::int64_t>();
  const auto is_set = [from](std::int64_t place) { return (from[place / 8] >> (place % 8) & 1) != 0; };
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t bit = 0; bit < bits; ++bit) {
      if (is_set(i * bits + bit)) to[i] |= std::int64_t{1} << bit;
    }
  }
  for (std::int64_t place = count * bits; place < 8 * bytes.size(0); ++place) {
    if (is_set(place)) throw Error(Errc::run_failed, "packed answers end in bits that are no answer's");
  }
  return values;
}

Tensor targets_of_sum(const Tensor& sum) { return normalised_rows(sum.to(c10::kDouble)); }

}  // namespace headstart::learn
