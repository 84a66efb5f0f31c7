// A teacher that all silos' samples make, through sums: a ridge head over random features of the student's features
// (consolidation.target lifted), or over the features of all models that may reach other silos (joint).
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/phases/local_models.hpp"
#include "server/phases/run_context.hpp"

namespace headstart::server {

struct SumsTeacher {
  learn::Tensor logits;              ///< Of the public samples: float32 [n, C].
  std::vector<std::string> clients;  ///< Whose features it reads.
  nlohmann::json report;
};

/// Damping and scale are those of the lowest loss by the validation source. Throws Error(run_failed) where fewer than
/// quorum_of() silos send their sums or no model shows features, Error(interrupted) where the run is stopped.
net::Task<SumsTeacher> teacher_from_sums(const RunContext& context, const LocalModels& models,
                                         const ConsolidationPlan& plan);

}  // namespace headstart::server
