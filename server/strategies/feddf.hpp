// Ensemble distillation after a round: what the round's models know together, in one model.
// Source: FedDF, Lin et al. 2020 (arXiv 2006.07242), algorithm 1.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "server/strategies/strategy.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"

namespace headstart::server {

/// The mean of a round's accepted updates and their logits on the public set. Memory beside the mean's: [samples,
/// classes] a client, and one model while its logits are computed.
class TeachingMean final : public learn::Aggregator {
 public:
  /// `tools` outlives the aggregator. `round`: for the log.
  TeachingMean(learn::Schema schema, const StrategyTools& tools, std::uint32_t round);

  /// A model whose logits are not finite is part of the mean and teaches nothing, and is said to.
  void accept(learn::StoredUpdate& update, const learn::Contribution& contribution) override;
  [[nodiscard]] learn::StateDict report() && override { return std::move(mean_).report(); }

  /// By client, in name order.
  [[nodiscard]] const std::map<std::string, learn::Tensor>& logits() const { return logits_; }
  /// Of computing logits, summed over the models, also over those that do not teach.
  [[nodiscard]] double teaching_seconds() const { return teaching_seconds_; }

 private:
  learn::WeightedMean mean_;
  const StrategyTools& tools_;
  std::uint32_t round_;
  std::mutex mutex_;
  std::map<std::string, learn::Tensor> logits_;
  double teaching_seconds_ = 0;
};

}  // namespace headstart::server
