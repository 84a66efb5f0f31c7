// What a client uploaded, taken in: inspected on the pool, recorded in the audit log, then used or refused.
#pragma once

#include <string>

#include "server/received.hpp"
#include "server/run_context.hpp"

namespace headstart::server {

/// The upload as a state of `schema`. `what`: for the record. Throws Error(run_failed) where a value is not finite.
net::Task<DigestedState> take_state(const RunContext& context, const ClientSession& client, Upload upload,
                                    learn::Schema schema, std::string what);

/// Inspects what is to be added to `sum` and records whether it counts.
net::Task<Inspection> inspect(const RunContext& context, const ClientSession& client, Upload& upload,
                              const UploadSum& sum, NormBound bound, std::string what);

}  // namespace headstart::server
