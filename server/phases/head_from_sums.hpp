// The head of a model fitted to the training samples of all silos, by sums over them: start.head=sums,
// rounds.head=sums. Source of the steps: see learn::HeadFit.
#pragma once

#include <nlohmann/json.hpp>

#include "server/phases/run_context.hpp"

namespace headstart::server {

struct FittedHead {
  wire::PackedState state;  ///< The model with the head that is kept.
  nlohmann::json report;    ///< How it was fitted, for summary.json and rounds.jsonl.
};

/// `state` with its head as head.method says; of all heads on the way, its own among them, the one of the lowest loss
/// by the validation source (without one, the last). A silo that fails is left out from there on; with fewer than
/// quorum_of() silos the head stays as it is, which the report says. `round`: the one whose model it is; 0: the start.
/// Throws Error(usage | data) where the model does not show its features, Error(run_failed) where they are of no use,
/// Error(interrupted) where the run is stopped.
net::Task<FittedHead> with_head_from_sums(const RunContext& context, wire::PackedState state, std::int64_t round = 0);

}  // namespace headstart::server
