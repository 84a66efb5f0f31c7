// Samples that the server sends along with a task.
#pragma once

#include "client/assignment.hpp"
#include "shared/plan/terms.hpp"

namespace headstart::client {

/// As a model of the run takes them, float32 on the CPU: sent so, or as uint8 as they are stored. Throws
/// Error(protocol) where they are not of the run's shape.
at::Tensor given_samples(const Input& input, const plan::Terms& terms);

}  // namespace headstart::client
