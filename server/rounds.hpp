// One round over a cohort: send, train, validate, fold, average; under FedDF, distil.
#pragma once

#include "server/run_context.hpp"

namespace headstart::server {

struct RoundOutcome {
  wire::PackedState state;  ///< w = sum_i (n_i / sum_j n_j) w_i over the accepted updates; distilled, under FedDF.
  Participation participation;
};

/// Memory: the global model, one sum (learn::Aggregator), and what the upload slots allow.
/// `suspect`: the client whose update stands out in `global`, which an honest client cannot train from then; said with
/// every update that is refused. Throws Error(run_failed) where fewer updates than the quorum were accepted.
net::Task<RoundOutcome> run_round(const RunContext& context, const DigestedState& global, std::uint32_t round,
                                  std::optional<std::string> suspect);

}  // namespace headstart::server
