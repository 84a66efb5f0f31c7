// The head of a model fitted to the training samples of all silos, by sums over them: start.head=sums,
// rounds.head=sums. Source of the steps: see learn::HeadFit.
#pragma once

#include <nlohmann/json.hpp>

#include "server/phases/feature_sums.hpp"
#include "server/phases/run_context.hpp"

namespace headstart::server {

struct FittedHead {
  wire::PackedState state;  ///< The model with the head that is kept.
  nlohmann::json report;    ///< How it was fitted, for summary.json and rounds.jsonl.
};

/// `state` with its head as head.method says: every silo sends sums over its training samples, which are added as
/// integers, so that neither the order of arrival nor how samples are divided among silos matters. Of all heads on the
/// way, its own among them, the one of the lowest loss by the validation source is kept (without one, the last). A silo
/// that fails is in `without` from there on. The head stays as it is, and the report says why, with fewer than
/// quorum_of() silos, and where no head can be fitted to the sums. `round`: the one whose model it is; 0: the start.
/// Throws Error(usage) where the model does not show its features, Error(interrupted) where the run is stopped.
net::Task<FittedHead> with_head_from_sums(const RunContext& context, wire::PackedState state, WithoutSums& without,
                                          std::int64_t round = 0);

/// Where the run asks for it, that the federated model shows its features and its head. On the pool, or before there is
/// one. Throws Error(usage).
void require_named_head(const FederationOptions& options, const plan::Terms& terms, const learn::Task& task);

}  // namespace headstart::server
