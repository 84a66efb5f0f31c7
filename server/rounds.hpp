// One round over a cohort: send, train, validate, fold, average; under FedDF, distil.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/run_context.hpp"

namespace headstart::server {

struct RoundOutcome {
  wire::PackedState state;  ///< w = sum_i (n_i / sum_j n_j) w_i over the accepted updates; distilled, under FedDF.
  std::vector<std::string> accepted;            ///< In name order: with the seeds, all that the result depends on.
  std::map<std::string, std::string> excluded;  ///< Client and reason.
  nlohmann::json fusion;  ///< What FedDF cost: seconds of the student, teachers, and why it `failed`; null for FedAvg.
};

/// Memory: the global model, one sum of 8 bytes a value, and what the upload slots allow.
/// Throws Error(run_failed) where fewer updates than the quorum were accepted.
net::Task<RoundOutcome> run_round(const RunContext& context, const DigestedState& global, std::uint32_t round);

}  // namespace headstart::server
