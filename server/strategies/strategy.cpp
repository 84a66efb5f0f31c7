#include "server/strategies/strategy.hpp"

#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "shared/base/error.hpp"
#include "shared/learn/aggregate/coordinate_median.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"

namespace headstart::server {

namespace {

const std::string memory_part = "server";

std::vector<std::string> strategy_words() {
  std::vector<std::string> words;
  for (const StrategyRow& row : strategies()) words.emplace_back(row.name);
  return words;
}

class FedAvg final : public Strategy {};

}  // namespace

wire::PackedState packed(const ServerState& state) {
  if (state.memory.is_empty()) return state.model;
  return wire::PackedState(learn::joined(state.model.state(), {{memory_part, state.memory}}));
}

ServerState unpacked(const wire::PackedState& checkpoint) {
  learn::ModelWithParts found = learn::split(checkpoint.state(), std::span(&memory_part, 1));
  learn::StateDict& memory = found.parts.at(memory_part);
  if (memory.is_empty()) return {checkpoint, {}};
  return {wire::PackedState(found.model), std::move(memory)};
}

std::vector<std::string> Strategy::select(std::uint32_t, std::span<const Participant> present) const {
  std::vector<std::string> names;
  for (const Participant& participant : present) names.push_back(participant.name);
  return names;
}

wire::PackedState Strategy::download(const ServerState& state, const Participant&) const { return state.model; }

std::map<std::string, wire::PackedState> Strategy::sent_parts(const RoundPlan&) const { return {}; }

learn::PartSchemas Strategy::returned_parts(const learn::Schema&) const { return {}; }

std::unique_ptr<learn::Aggregator> Strategy::begin(const RoundPlan& plan) const {
  return std::make_unique<learn::WeightedMean>(learn::joined(plan.schema, returned_parts(plan.schema)));
}

ServerState Strategy::finish(const RoundPlan& plan, std::unique_ptr<learn::Aggregator> aggregator,
                             nlohmann::json&) const {
  return {wire::PackedState::of(std::move(*aggregator).report()), plan.state.memory};
}

std::unique_ptr<Strategy> make_fedavg(const StrategyOptions&, StrategyTools) { return std::make_unique<FedAvg>(); }

std::span<const StrategyRow> strategies() {
  static constexpr std::array rows = {
      StrategyRow{.name = "fedavg", .sentence = "their mean, weighted by training samples", .make = make_fedavg},
      StrategyRow{
          .name = "fedavgm", .sentence = "the mean update is accumulated with server.momentum", .make = make_fedavgm},
      StrategyRow{.name = "median",
                  .sentence = "the median of each value; a few wrong updates move it little",
                  .make = make_median,
                  .min_updates = learn::CoordinateMedian::min_updates},
      StrategyRow{.name = "feddf",
                  .sentence = "the mean, distilled on the public set from the round's models",
                  .make = make_feddf,
                  .needs_public_set = true}};
  return rows;
}

const StrategyRow& strategy_row(std::string_view name) {
  for (const StrategyRow& row : strategies()) {
    if (row.name == name) return row;
  }
  throw Error(Errc::usage,
              fmt::format("federation.strategy '{}': expected one of {}", name, fmt::join(strategy_words(), ", ")));
}

void declare_fields(Fields& fields, StrategyOptions& options) {
  std::string sentence = "What becomes of a round's updates.";
  for (const StrategyRow& row : strategies()) sentence += fmt::format(" {}: {}.", row.name, row.sentence);
  fields.word("federation.strategy", options.name, std::move(sentence), strategy_words());
  fields.group("server", "What federation.strategy fedavgm does with the average");
  fields.number("server.lr", options.server.lr, "fedavgm: what the accumulated update is multiplied by.", {1e-12, 1e6});
  fields.number("server.momentum", options.server.momentum,
                "fedavgm: what remains of the accumulated update from round to round.", {0, 0.999999});
  fields.group("feddf", "How federation.strategy feddf distils in each round");
  learn::declare_fields(fields, "feddf", options.feddf);
  fields.withdraw("feddf.alpha");
}

}  // namespace headstart::server
