// What a federated optimisation method decides: who trains in a round, what they are sent, and how their updates become
// the next global model. One file and one row of strategies() each. Knows no sockets, no clients and no files.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "server/strategies/strategy_options.hpp"
#include "shared/base/clock.hpp"
#include "shared/base/seed.hpp"
#include "shared/learn/aggregate/aggregator.hpp"
#include "shared/learn/core/parts.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::server {

/// What the server holds from one round to the next. Both parts are checkpointed, and a failed round changes neither.
struct ServerState {
  wire::PackedState model;
  /// The strategy's own memory (momenta, control variates), under names of its choice; empty for most.
  learn::StateDict memory;
};

/// Both in one state, as a checkpoint has them: the memory under "server/NAME".
wire::PackedState packed(const ServerState& state);
ServerState unpacked(const wire::PackedState& checkpoint);

/// A client as a strategy knows it.
struct Participant {
  std::string name;
  std::int64_t num_examples = 0;
};

struct RoundPlan {
  std::uint32_t round = 0;      ///< From 1.
  const learn::Schema& schema;  ///< The model's, with the roles of its tensors.
  const ServerState& state;
};

/// What a strategy may use of the run. Lives as long as the run.
struct StrategyTools {
  /// The untrained global model, on the run's device.
  std::function<std::unique_ptr<learn::Model>()> make_model;
  learn::Tensor public_samples;  ///< [n, ...] on the run's device; empty where the strategy's row needs none.
  std::int64_t num_classes = 0;
  Seed seeds = Seed(0);  ///< Of the run; each stream is named by its place in the tree.
  Clock clock;
  std::stop_token stop;
};

class Strategy {
 public:
  Strategy() = default;
  Strategy(const Strategy&) = delete;
  Strategy& operator=(const Strategy&) = delete;
  virtual ~Strategy() = default;

  /// The clients that train in a round, by name, of those that are there. By default all.
  [[nodiscard]] virtual std::vector<std::string> select(std::uint32_t round,
                                                        std::span<const Participant> present) const;
  /// What a participant trains from. By default the global model.
  [[nodiscard]] virtual wire::PackedState download(const ServerState& state, const Participant& to) const;
  /// What all participants are sent beside the model (a control variate), by name of the part. By default nothing.
  /// Asked once a round. A local objective of the same method takes it (LocalObjectiveRow::takes).
  [[nodiscard]] virtual std::map<std::string, wire::PackedState> sent_parts(const RoundPlan& plan) const;
  /// What an update holds beside the model. By default nothing. A strategy that names parts here has a finish() of its
  /// own: what its aggregator reports is learn::joined() of model and parts.
  [[nodiscard]] virtual learn::PartSchemas returned_parts(const learn::Schema& model) const;
  /// How the round's updates are aggregated: its blocks() are of the update, parts included. By default FedAvg's
  /// weighted mean.
  [[nodiscard]] virtual std::unique_ptr<learn::Aggregator> begin(const RoundPlan& plan) const;
  /// What the next round starts from. `aggregator` is what begin() made, with the accepted updates. By default its
  /// report is the model, and the memory stays. On the pool; one round at a time. Fills `report` with what rounds.jsonl
  /// says of it beyond the model: an object, or nothing. Throws Error(run_failed) where the round cannot count.
  [[nodiscard]] virtual ServerState finish(const RoundPlan& plan, std::unique_ptr<learn::Aggregator> aggregator,
                                           nlohmann::json& report) const;
  /// What takes long in finish(), for people ("distillation from the round's models"); empty: nothing does.
  [[nodiscard]] virtual std::string finishing() const { return {}; }
};

/// One row: a method, what it needs, and how it is made.
struct StrategyRow {
  std::string_view name;      ///< The word of federation.strategy.
  std::string_view sentence;  ///< For the help, after "NAME: ".
  std::unique_ptr<Strategy> (*make)(const StrategyOptions& options, StrategyTools tools);
  std::int64_t min_updates = 1;   ///< A round with fewer cannot count.
  bool needs_public_set = false;  ///< Unlabeled samples at the server.
};

/// In the order of the help.
std::span<const StrategyRow> strategies();
/// Throws Error(usage) where there is none of that name, listing those that there are.
const StrategyRow& strategy_row(std::string_view name);

std::unique_ptr<Strategy> make_fedavg(const StrategyOptions& options, StrategyTools tools);
std::unique_ptr<Strategy> make_feddf(const StrategyOptions& options, StrategyTools tools);
std::unique_ptr<Strategy> make_fedavgm(const StrategyOptions& options, StrategyTools tools);
std::unique_ptr<Strategy> make_median(const StrategyOptions& options, StrategyTools tools);

}  // namespace headstart::server
