// The file of a model that is known by its tensors alone.
#pragma once

#include "shared/learn/models/stated_model.hpp"

namespace headstart::wire {

/// The key of a file's metadata that names its trained tensors, a JSON list; without it all floating-point ones are.
inline constexpr const char* trained_key = "headstart.trained";

/// Where the spec is state:FILE, reads the file into spec.stated; leaves others as they are. Throws Error(data), naming
/// file and tensor: no safetensors file, no tensor that is trained, a value that is not finite, a list of other names.
void read_stated_model(learn::ModelSpec& spec);

}  // namespace headstart::wire
