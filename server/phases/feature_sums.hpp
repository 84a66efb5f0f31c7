// Sums over silos of what their training samples' features come to, and heads that are judged by the validation source.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/phases/run_context.hpp"
#include "server/sessions/client_tasks.hpp"
#include "shared/learn/train/head_sums.hpp"

namespace headstart::server {

/// Whose features are summed, and how they are mapped.
struct SummedFeatures {
  /// The models as they are released to the silo of that name, in the order of their features.
  std::function<std::vector<ReleasedState>(const std::string& recipient)> models;
  learn::FeatureMap map;
  std::int64_t size = 0;  ///< Of u: FeatureMap::size_of().
  /// u of the server's validation samples, where that is the validation source: float64 [n, size].
  learn::Tensor validation_inputs;
};

/// A silos' sum.
struct FeatureTotal {
  learn::Tensor sum;  ///< int64 fixed point; undefined: nobody answered.
  std::int64_t num_samples = 0;
  std::int64_t num_silos = 0;
  learn::Evaluation held_out;  ///< Of the head, by the silos' held-out samples, where it was asked for.
};

/// A head and what the validation source says of it.
struct JudgedHead {
  learn::Tensor head;
  std::optional<learn::Evaluation> rating;  ///< None without a validation source, or where nobody answered.

  /// Infinite where there is no rating.
  [[nodiscard]] double loss() const;
};

/// Asks silos; one that fails once is not asked again. Borrows the context. Coroutines throw Error(interrupted) where
/// the run is stopped.
class FeatureSums {
 public:
  /// `kind`: the phase that a failure is recorded for.
  FeatureSums(const RunContext& context, SummedFeatures features, PhaseKind kind);

  /// learn::moments_of, [size (size + 1) / 2].
  net::Task<FeatureTotal> moments();
  /// learn::head_gradient at `head`, [size, C]; with federated validation also the counts of that head.
  net::Task<FeatureTotal> gradient(learn::Tensor head);
  /// `head` with its rating. Asks the silos where validation is federated.
  net::Task<JudgedHead> judge(learn::Tensor head);
  /// The same of a head whose gradient is there already.
  [[nodiscard]] JudgedHead judged(learn::Tensor head, const FeatureTotal& gradient) const;
  [[nodiscard]] bool has_quorum(const FeatureTotal& total) const;

 private:
  net::Task<FeatureTotal> total_of(learn::Tensor head, std::vector<std::int64_t> shape);
  net::Task<> add(ClientSession& client, const DigestedState& head, const std::vector<std::int64_t>& shape,
                  FeatureTotal& total);

  const RunContext& context_;
  SummedFeatures features_;
  PhaseKind kind_;
  std::optional<DigestedState> projection_, lift_;
  std::set<std::string> left_out_;  ///< Silos that are not asked any more.
};

/// The head of the lowest loss among `heads`, tried in their order; the first of equals.
net::Task<JudgedHead> best_of(FeatureSums& sums, std::vector<learn::Tensor> heads);

}  // namespace headstart::server
