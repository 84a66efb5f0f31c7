// FedAvg with server momentum: v <- beta v + D, x <- x + eta v, where D is the mean update.
// Source: Hsu et al. 2019 (arXiv 1909.06335).

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "server/strategies/strategy.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"

namespace headstart::server {

namespace {

class FedAvgM final : public Strategy {
 public:
  explicit FedAvgM(const ServerOptimizerOptions& options) : options_(options) {}

  /// Parameters alone have a momentum: running statistics would become negative with one. They are the weighted mean.
  [[nodiscard]] ServerState finish(const RoundPlan& plan, std::unique_ptr<learn::Aggregator> aggregator,
                                   nlohmann::json&) const override {
    auto& mean = static_cast<learn::WeightedMean&>(*aggregator);
    if (options_.momentum == 0 && options_.lr == 1) return {wire::PackedState(std::move(mean).report()), {}};
    const learn::StateDict means = std::move(mean).report_in_double();
    std::vector<learn::NamedTensor> model;
    std::vector<learn::NamedTensor> momenta;
    for (const learn::TensorSpec& tensor : plan.schema.tensors()) {
      const learn::Tensor& mean_value = means.at(tensor.name);
      if (plan.schema.role_of(tensor) != learn::Role::parameter) {
        model.push_back({tensor.name, mean_value.to(tensor.dtype)});
        continue;
      }
      // In double from the exact sums on: the update is small beside the model.
      const learn::Tensor start = plan.state.model.state().at(tensor.name).to(at::kDouble);
      learn::Tensor velocity = mean_value.to(at::kDouble) - start;
      if (!plan.state.memory.is_empty()) {
        velocity += plan.state.memory.at("m/" + tensor.name).to(at::kDouble) * options_.momentum;
      }
      model.push_back({tensor.name, (start + velocity * options_.lr).to(tensor.dtype)});
      momenta.push_back({"m/" + tensor.name, velocity.to(at::kFloat)});
    }
    wire::PackedState next{learn::StateDict(std::move(model))};
    // The mean of accepted updates is in bounds; what momentum makes of it need not be.
    const wire::PackedState& made = next;
    if (const auto violation = learn::StateBlocks(made.state().schema()).violation_in(0, made.bytes())) {
      throw Error(Errc::run_failed,
                  fmt::format("round {}: fedavgm steps to a model that nobody can train from: {}. Lower "
                              "server.lr or server.momentum",
                              plan.round, *violation));
    }
    return {std::move(next), learn::StateDict(std::move(momenta))};
  }

 private:
  ServerOptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Strategy> make_fedavgm(const StrategyOptions& options, StrategyTools) {
  return std::make_unique<FedAvgM>(options.server);
}

}  // namespace headstart::server
