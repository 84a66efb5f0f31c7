#include "server/strategies/feddf.hpp"

#include <cstring>

#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/learn/distill/distiller.hpp"

namespace headstart::server {

TeachingMean::TeachingMean(learn::Schema schema, const StrategyTools& tools, std::uint32_t round)
    : Aggregator(schema), mean_(std::move(schema)), tools_(tools), round_(round) {}

void TeachingMean::accept(learn::StoredUpdate& update, const learn::Contribution& contribution) {
  mean_.accept(update, contribution);
  const TimePoint begun = tools_.clock();
  wire::PackedState state(blocks().schema());
  update.for_each_block([&state](std::uint64_t offset, std::span<const std::byte> block) {
    std::memcpy(state.bytes().data() + offset, block.data(), block.size());
    return true;
  });
  const auto network = tools_.make_model();
  network->load(state.state());
  learn::Tensor logits = learn::logits_of(*network, tools_.public_samples, 256, tools_.stop);
  const bool is_finite = at::isfinite(logits).all().item<bool>();
  if (!is_finite) {
    spdlog::warn("round {}: {}'s model does not teach, its logits are not finite", round_, contribution.client);
  }
  const std::scoped_lock lock(mutex_);
  teaching_seconds_ += seconds_between(begun, tools_.clock());
  if (is_finite) logits_[contribution.client] = std::move(logits);
}

namespace {

class FedDf final : public Strategy {
 public:
  FedDf(learn::DistillOptions options, StrategyTools tools) : options_(std::move(options)), tools_(std::move(tools)) {}

  [[nodiscard]] std::unique_ptr<learn::Aggregator> begin(const RoundPlan& plan) const override {
    return std::make_unique<TeachingMean>(plan.schema, tools_, plan.round);
  }

  [[nodiscard]] ServerState finish(const RoundPlan& plan, std::unique_ptr<learn::Aggregator> aggregator,
                                   nlohmann::json& report) const override {
    auto& round = static_cast<TeachingMean&>(*aggregator);
    nlohmann::json cost = {{"teachers", round.logits().size()}};
    const wire::PackedState mean(std::move(round).report());
    const TimePoint begun = tools_.clock();
    ServerState state{mean, {}};
    try {
      if (!round.logits().empty()) state.model = distilled(plan.round, mean, round.logits());
    } catch (const Error& error) {
      // The same updates would diverge again: the round keeps its average.
      if (error.code() != Errc::run_failed) throw;
      cost["failed"] = error.what();
      spdlog::warn("round {}: the average stands, {}", plan.round, error.what());
    }
    cost["seconds"] = round.teaching_seconds() + seconds_between(begun, tools_.clock());
    report["feddf"] = std::move(cost);
    return state;
  }

  [[nodiscard]] std::string finishing() const override { return "distillation from the round's models"; }

 private:
  /// The mean, distilled from models of equal weight. Throws Error(run_failed) where it diverges.
  [[nodiscard]] wire::PackedState distilled(std::uint32_t round, const wire::PackedState& mean,
                                            const std::map<std::string, learn::Tensor>& logits) const {
    const learn::KeepFreedMemory keep_freed_memory;
    std::vector<learn::Tensor> teachers;
    for (const auto& [client, of_client] : logits) teachers.push_back(of_client);
    const learn::Tensor weights = learn::equal_weights(std::ssize(teachers), tools_.num_classes);
    const learn::Guidance guidance = learn::guidance(torch::stack(teachers), weights, options_);
    const auto student = tools_.make_model();
    student->load(mean.state());
    const Seed seed = tools_.seeds.child("feddf").child(round);
    const auto lease = learn::lease_for(*student, seed.child("layers"));
    learn::distill(*student, {tools_.public_samples, {}}, guidance, options_, seed, {}, tools_.stop);
    return wire::PackedState(student->state());
  }

  learn::DistillOptions options_;
  StrategyTools tools_;
};

}  // namespace

std::unique_ptr<Strategy> make_feddf(const StrategyOptions& options, StrategyTools tools) {
  return std::make_unique<FedDf>(options.feddf, std::move(tools));
}

}  // namespace headstart::server
