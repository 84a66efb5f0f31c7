// The terms of a run as the server offers them: its settings, and what its data and its model add.
#pragma once

#include <vector>

#include <nlohmann/json.hpp>

#include "server/config/server_config.hpp"
#include "server/phases/central_data.hpp"
#include "shared/plan/tasks.hpp"

namespace headstart::server {

/// Throws Error(data), naming the number and its bound, where clients could not read them: more classes or
/// larger samples than a run may have, names that are none. To be called before the server listens.
plan::Terms run_terms(const ServerConfig& config, const CentralData& data);

/// What any client may be asked to do in the run. (Logits are asked of clients with an architecture of their own alone,
/// which nobody knows before they have joined.)
std::vector<std::string_view> tasks_of(const FederationOptions& options, const CentralData& data);

/// Who gets to see pre-trained models of single silos, in words, for run.json.
nlohmann::json recipients_of_local_models(const FederationOptions& options);

}  // namespace headstart::server
