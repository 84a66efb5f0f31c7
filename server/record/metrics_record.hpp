// What files say of an evaluation, beyond accuracy and loss.
#pragma once

#include <nlohmann/json.hpp>

#include "shared/learn/metrics/evaluation.hpp"

namespace headstart::server {

/// As server/run_files.md has the keys of `metrics`: of all that the evaluation has counted. What is not defined is
/// null.
nlohmann::json metrics_record(const learn::Evaluation& evaluation);
/// Values by name, of those that weigh anything.
nlohmann::json own_record(const learn::OwnMetrics& own);

}  // namespace headstart::server
