// A model's head fitted to the samples of many silos by sums over them: neither samples nor their features leave a
// silo. Source: Boehning 1992, "Multinomial logistic regression algorithm" (a bound of the Hessian), with Nesterov's
// steps.
#pragma once

#include <cstdint>
#include <stop_token>

#include "shared/base/seed.hpp"
#include "shared/learn/core/progress.hpp"
#include "shared/learn/models/model.hpp"

namespace headstart::learn {

/// The first head of a model as one matrix W, float64 [F + 1, C]: its weight transposed, and the bias below. Logits are
/// W^T u, where u are the features of a sample with 1 appended. Throws Error(usage) where the model does not say which
/// tensors are its first head, or the head is no single linear layer.
Tensor head_of(Model& model);
/// The inverse: head_of(model) is `head` afterwards, but for rounding to the model's type.
void set_head(Model& model, const Tensor& head);

/// What the heads read of each sample: float64 [n, F] on the CPU. Evaluation mode. Throws as evaluate() does, and
/// Error(usage) for a model that does not show its features.
Tensor features_of(Model& model, const Tensor& x, std::int64_t batch_size = 256, std::stop_token stop = {},
                   const ProgressCallback& progress = {});

/// What becomes of features before sums are made of them.
struct FeatureMap {
  Tensor projection;  ///< float64 [D + 1, d]: [z, 1] P in place of features z; undefined: z stays.
  Tensor lift;        ///< float64 [d + 1, L]: relu([z, 1] M) beside z; undefined: nothing beside it.

  /// Columns of mapped() for `num_features` features.
  [[nodiscard]] std::int64_t size_of(std::int64_t num_features) const;
};
/// u of each sample: its mapped features with 1 appended. features: float64 [n, D]. Returns [n, size_of(D)]. Throws
/// Error(protocol) where the map is not for D features.
Tensor mapped(const Tensor& features, const FeatureMap& map);
/// mapped() features without a map: float64 [n, F + 1].
Tensor head_inputs(Model& model, const Tensor& x, std::int64_t batch_size = 256, std::stop_token stop = {},
                   const ProgressCallback& progress = {});

/// Projection onto the `size` directions in which features [n, D] vary most, each of them scaled to deviation 1; all
/// directions that vary at all where there are fewer. float64 [D + 1, d], d <= size. Throws Error(run_failed) where
/// the features are not finite or all equal.
Tensor principal_projection(const Tensor& features, std::int64_t size);
/// Each of the features [n, F] over its deviation, or over a hundredth of their mean where it is less; those that are
/// all equal are left out, as zeros. float64 [F + 1, F]. Throws as principal_projection() does.
Tensor scaling_projection(const Tensor& features);
/// Random rectified features of scaled features: R ~ N(0, 1) 1.5 / sqrt(F) above b ~ N(0, 1). float64 [F + 1, size].
Tensor random_lift(std::int64_t num_features, std::int64_t size, Seed seed);

/// sum u u^T over samples, as its lower triangle row by row: float64 [(F + 1)(F + 2) / 2].
Tensor moments_of(const Tensor& inputs);
/// sum u (y - softmax(W^T u))^T over samples, y one-hot: float64 [F + 1, C]. The gradient of the log-likelihood.
Tensor head_gradient(const Tensor& inputs, const Tensor& labels, const Tensor& head);

/// Heads from one exchange of sums. `moments`: see moments_of(); `class_sums`: head_gradient() at a head of zeros,
/// which is sum u (y - 1/C)^T; both over `num_samples` samples; damping as HeadFit has it. float64 [F + 1, C]. Throw
/// Error(run_failed) as HeadFit does.
/// Least squares towards y - 1/C.
Tensor ridge_head(const Tensor& moments, const Tensor& class_sums, std::int64_t num_samples, double damping);
/// The posterior of one Gaussian a class with a shared covariance and a uniform prior. A class without samples is never
/// answered.
Tensor gaussian_head(const Tensor& moments, const Tensor& class_sums, std::int64_t num_samples, double damping);

// Sums of silos as integers: adding them is exact, so that neither the order of arrival nor a mask that cancels changes
// a bit.

/// Binary places behind the point.
inline constexpr int sum_fraction_bits = 20;
/// The largest magnitude of a silo's fixed-point sum, so that 4,096 of them cannot overflow.
inline constexpr std::int64_t max_fixed_sum = std::int64_t{1} << 50;

/// Rounded to int64. Throws Error(run_failed) for values that are not finite or beyond max_fixed_sum.
Tensor to_fixed_point(const Tensor& sum);
Tensor from_fixed_point(const Tensor& sum);

/// Steps towards the head of highest likelihood. Each needs one sum over all samples, the gradient at point().
class HeadFit {
 public:
  /// `moments`: of all samples; `num_samples` of them; `damping`: times the mean of the moments' diagonal without the
  /// bias, added to that diagonal; `head`: where it begins. Throws Error(run_failed) where the moments are of no use: a
  /// diagonal that is not positive, as of features that are all zero.
  HeadFit(const Tensor& moments, std::int64_t num_samples, double damping, Tensor head);

  /// Where the gradient is wanted next; at first the head that it began with.
  [[nodiscard]] const Tensor& point() const { return point_; }
  /// Goes on with the gradient at point(), summed over `num_samples` samples.
  void step(const Tensor& gradient, std::int64_t num_samples);

 private:
  Tensor factor_;  ///< Cholesky factor of the damped mean of u u^T.
  Tensor head_;
  Tensor point_;
  double momentum_ = 1;
};

}  // namespace headstart::learn
