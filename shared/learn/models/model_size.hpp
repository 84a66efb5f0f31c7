// How large a model would be, without building it.
#pragma once

#include <cstdint>

#include "shared/learn/models/model.hpp"

namespace headstart::learn {

/// Bytes of the state of the model that `spec` names for `task`, computed from the sizes alone; of a script, those of
/// its file, which holds its tensors. Saturates at 2^63. Throws Error(usage) for an unknown name or impossible sizes,
/// Error(data) for a script whose file cannot be read.
std::uint64_t state_bytes(const ModelSpec& spec, const Task& task);

}  // namespace headstart::learn
