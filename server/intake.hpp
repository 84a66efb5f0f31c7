// What a client uploaded, taken in: inspected on the pool, recorded in the audit log, then used or refused.
#pragma once

#include <functional>
#include <string>

#include "server/received.hpp"
#include "server/run_context.hpp"

namespace headstart::server {

/// Has `use` called, on the pool, with the upload as a state of `schema`, and returns its digest. In one job: as many
/// states are in memory at a time as the pool has threads, however many uploads wait for it. `what`: for the record.
/// Throws Error(run_failed) where a value is not finite.
net::Task<std::string> take_state(const RunContext& context, const ClientSession& client, Upload& upload,
                                  learn::Schema schema, std::string what, std::function<void(wire::PackedState)> use);

/// Inspects what is to be added to `sum` and records whether it counts.
net::Task<Inspection> inspect(const RunContext& context, const ClientSession& client, Upload& upload,
                              const UploadSum& sum, NormBound bound, std::string what);

}  // namespace headstart::server
