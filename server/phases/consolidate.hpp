// The KD seed: the clients' pre-trained models distilled into one.
#pragma once

#include <nlohmann/json.hpp>

#include "server/phases/local_models.hpp"
#include "server/phases/run_context.hpp"

namespace headstart::server {

struct DistilledStart {
  wire::PackedState state;
  nlohmann::json report;  ///< How it was made, for summary.json.
};

/// Multi-teacher distillation as configured, tuned where that is asked for; where the student's own client cannot do
/// it, the next one by rank does. What an earlier server finished, of the trials or of the seed, is used where the
/// models are the same and its files are whole. On the disk and in the journal when it returns. Throws
/// Error(run_failed) where nobody can be the student or nobody can teach, Error(interrupted) where the run is stopped.
net::Task<DistilledStart> distilled_start(const RunContext& context, const LocalModels& models,
                                          const Recovery& earlier);

/// By the validation source: under federated validation by all clients, but for `without`, where the seed is compared
/// with the model of that one. Throws Error(interrupted) where the run is stopped meanwhile.
net::Task<learn::Evaluation> rate_start(const RunContext& context, const wire::PackedState& state,
                                        std::string without = {});

}  // namespace headstart::server
