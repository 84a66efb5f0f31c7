// Jensen-Shannon divergence and the structural entropic distance, which is exp(JS) - 1, of two and of many
// distributions.
#include <cmath>

#include <torch/types.h>

#include "shared/learn/distill/dissimilarity.hpp"

namespace headstart::learn {

namespace {

/// The entropy of the mean less the mean of the entropies, of the student and its K teachers with equal weights:
/// (sum_i KL(p_i || m)) / n, n = K + 1, m their mean. log_p: [B, C], q: [K, B, C]. Returns [B].
Tensor generalised_jensen_shannon(const Tensor& log_p, const Tensor& q) {
  const auto n = static_cast<double>(q.size(0) + 1);
  const Tensor log_m = at::logsumexp(torch::cat({q.log(), log_p.unsqueeze(0)}), 0) - std::log(n);
  const Tensor of_teachers = (at::xlogy(q, q) - q * log_m).sum(0);
  const Tensor of_student = log_p.exp() * (log_p - log_m);
  return (of_teachers + of_student).sum(1) / n;
}

/// Gradient in z_student: p (log(p / m) - KL(p || m)) / (2 T).
Tensor jensen_shannon(const Tensor& log_p, const Tensor& q) {
  return generalised_jensen_shannon(log_p, q.unsqueeze(0));
}

/// C(m) / sqrt(C(p) C(q)) - 1, C = exp(entropy).
Tensor structural_entropic(const Tensor& log_p, const Tensor& q) { return at::expm1(jensen_shannon(log_p, q)); }

/// (exp(H(mean) - mean H) - 1) / (n - 1). Of one teacher it is the structural entropic distance.
Tensor multiway_entropic(const Tensor& log_p, const Tensor& q) {
  return at::expm1(generalised_jensen_shannon(log_p, q)) / static_cast<double>(q.size(0));
}

}  // namespace

const Dissimilarity jensen_shannon_measure{
    .name = "js", .words = "Jensen-Shannon divergence", .to_one = jensen_shannon, .matched = [](std::int64_t) {
      return 4.0;
    }};

const Dissimilarity structural_entropic_measure{
    .name = "sed", .words = "structural entropic distance", .to_one = structural_entropic, .matched = [](std::int64_t) {
      return 4.0;
    }};

/// Matched: where all teachers are q and the student is near it, msed is KL(q || p) / n^2.
const Dissimilarity multiway_entropic_measure{.name = "msed",
                                              .words = "structural entropic distance of all teachers and the student",
                                              .to_one = structural_entropic,
                                              .to_all = multiway_entropic,
                                              .matched = [](std::int64_t num_teachers) {
                                                const auto n = static_cast<double>(num_teachers + 1);
                                                return n * n;
                                              }};

}  // namespace headstart::learn
