// What round 1 starts from: random, best local model, one-shot average, or the KD seed.
#pragma once

#include <nlohmann/json.hpp>

#include "server/phases/local_models.hpp"
#include "server/phases/run_context.hpp"

namespace headstart::server {

struct Start {
  StartModel used = StartModel::random;  ///< What the model is; differs from the configured one where the gate acted.
  wire::PackedState state;
  nlohmann::json report;  ///< How it was made, for summary.json.
};

/// The untrained global model.
net::Task<Start> random_start(const RunContext& context);
/// The best collected model by the validation source, of those that may reach other silos.
net::Task<Start> best_local_start(const RunContext& context, const LocalModels& models);
/// The collected models averaged with n_i, BatchNorm statistics re-estimated on the public set or by every client.
net::Task<Start> average_start(const RunContext& context, const LocalModels& models);
/// The KD seed, and the gate.
net::Task<Start> kd_start(const RunContext& context, const LocalModels& models, const Recovery& earlier);

}  // namespace headstart::server
