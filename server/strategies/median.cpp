// The coordinate-wise median of a round's updates, whatever their numbers of examples.
// Source: Yin et al. 2018 (arXiv 1803.01498).

#include "server/strategies/strategy.hpp"
#include "shared/learn/aggregate/coordinate_median.hpp"

namespace headstart::server {

namespace {

class Median final : public Strategy {
 public:
  [[nodiscard]] std::unique_ptr<learn::Aggregator> begin(const RoundPlan& plan) const override {
    return std::make_unique<learn::CoordinateMedian>(plan.state.model.state());
  }
};

}  // namespace

std::unique_ptr<Strategy> make_median(const StrategyOptions&, StrategyTools) { return std::make_unique<Median>(); }

}  // namespace headstart::server
