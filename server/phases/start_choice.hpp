// Which start round 1 has: the configured one, or the best of several candidates (start.model auto).
#pragma once

#include "server/phases/local_models.hpp"
#include "server/phases/run_context.hpp"
#include "server/phases/start.hpp"

namespace headstart::server {

/// As the configuration says; local models are collected and rated already, where a start needs them. Of auto the
/// candidate of the highest accuracy by the validation source, of equals the one of the lower loss, then the first. The
/// best local model that may reach other silos is always a candidate, so that the start is never behind it on the data
/// that decide. A candidate that cannot be made is named in the report (`candidates`: each with accuracy, loss, seconds
/// and bytes). Throws Error(run_failed) where none can be made, and as the starts do.
net::Task<Start> chosen_start(const RunContext& context, const LocalModels& models, const Recovery& earlier);

}  // namespace headstart::server
