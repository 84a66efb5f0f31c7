// The head of a model, fitted to the training samples of all silos by sums over them.
#pragma once

#include <nlohmann/json.hpp>

#include "server/phases/run_context.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::server {

struct FittedHead {
  wire::PackedState state;  ///< The model, with the head that was kept.
  nlohmann::json report;    ///< For summary.json: see run_files.md.
};

/// Asks every silo once for the second moments of the model's features and then head.steps times for the gradient at a
/// head, each a sum over its training samples; what comes is added as integers, so that neither the order of arrival
/// nor how samples are divided among silos matters. Of the heads on the way, the model's own among them, the one with
/// the lowest loss by the validation source is kept; without a source the last one is. A silo that fails is left out
/// from then on. Where fewer silos answer than a round needs, the model's own head stays, and the report says why.
/// Throws Error(usage) for a model that does not show features and head, Error(interrupted) where the run is stopped.
net::Task<FittedHead> with_head_from_sums(const RunContext& context, wire::PackedState state);

}  // namespace headstart::server
