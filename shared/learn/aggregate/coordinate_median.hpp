// The coordinate-wise median: a rule that a minority of wrong updates moves little.
// Source: Yin et al. 2018 (arXiv 1803.01498).
#pragma once

#include <mutex>
#include <vector>

#include "shared/learn/aggregate/aggregator.hpp"

namespace headstart::learn {

/// Of each floating-point value the median over the updates; of an even number the mean of the two middle ones, in
/// double, rounded once. Numbers of examples play no part: a liar would name a large one. Integer and boolean tensors
/// stay as they are in `origin`: a maximum is one liar's. Memory: a block of each update, at most 1 MiB each.
class CoordinateMedian final : public Aggregator {
 public:
  static constexpr std::int64_t min_updates = 3;

  /// `origin`: the state that the updates were trained from; shared, not copied.
  explicit CoordinateMedian(StateDict origin);

  [[nodiscard]] bool keeps_updates() const override { return true; }
  void accept(StoredUpdate& update, const Contribution& contribution) override;
  /// Throws Error(run_failed) where fewer than min_updates were accepted.
  [[nodiscard]] StateDict report() && override;

 private:
  StateDict origin_;
  std::mutex mutex_;
  std::vector<StoredUpdate*> updates_;
};

}  // namespace headstart::learn
