// One round: the strategy's clients train, their updates are inspected and aggregated, the strategy makes the next
// model.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "server/phases/run_context.hpp"
#include "server/strategies/strategy.hpp"

namespace headstart::server {

struct RoundOutcome {
  ServerState state;
  Participation participation;
};

/// `global` is `state.model` with its digest. Memory: the global model, what the strategy's aggregator takes, and what
/// the upload slots allow. `suspect`: the client whose update stands out in `global`, which an honest client cannot
/// train from then; said with every update that is refused. `counted`: see RunState. Throws Error(run_failed) where
/// fewer updates than the quorum were accepted, or the strategy can make no model of them.
net::Task<RoundOutcome> run_round(const RunContext& context, const Strategy& strategy, const ServerState& state,
                                  const DigestedState& global, std::uint32_t round,
                                  const std::map<std::string, std::int64_t>& counted,
                                  std::optional<std::string> suspect);

}  // namespace headstart::server
