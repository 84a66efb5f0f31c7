// Ensemble distillation after a round: what the round's models know together, in one model.
// Source: FedDF, Lin et al. 2020 (arXiv 2006.07242), algorithm 1.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "server/run_context.hpp"

namespace headstart::server {

/// The models of one round's accepted updates, as their logits on the public set; their average is then the student of
/// them all. Memory: [samples, classes] a client. Calls on the pool, from any thread.
class RoundEnsemble {
 public:
  RoundEnsemble(const RunContext& context, std::uint32_t round) : context_(context), round_(round) {}

  /// A model whose logits are not finite teaches nothing, and is said to.
  void add(const std::string& client, const wire::PackedState& model);

  /// The average, distilled on the public set from the models added, all of equal weight, in the order of their names.
  /// Throws Error(run_failed) where it diverges.
  [[nodiscard]] wire::PackedState distil_into(const wire::PackedState& average) const;

  [[nodiscard]] std::size_t num_teachers() const { return logits_.size(); }
  /// Of computing logits, summed over the models, also over those that do not teach.
  [[nodiscard]] double teaching_seconds() const { return teaching_seconds_; }

 private:
  const RunContext& context_;
  std::uint32_t round_;
  std::mutex mutex_;
  std::map<std::string, learn::Tensor> logits_;
  double teaching_seconds_ = 0;
};

}  // namespace headstart::server
