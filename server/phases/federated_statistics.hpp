// Before anything is trained: what all samples of the run are normalised by, from what each silo says of its own.
#pragma once

#include "server/phases/run_context.hpp"

namespace headstart::server {

/// Asks all silos to describe their features, and merges what they say in the order of their names. A silo that fails
/// is left out; one whose features lie far from the others' is noted. Throws Error(run_failed) where nobody says
/// anything, Error(interrupted) where the run is stopped.
net::Task<StatisticsRecord> collect_statistics(const RunContext& context);

}  // namespace headstart::server
