// What travels beside a model: further states, each a part under a name. In one state with the model (an update, a
// checkpoint) the tensors of part PART are "PART/NAME"; the model's keep their names.
#pragma once

#include <map>
#include <span>
#include <string>

#include "shared/learn/core/state.hpp"

namespace headstart::learn {

/// By name: lower-case letters and '_'.
using Parts = std::map<std::string, StateDict>;
using PartSchemas = std::map<std::string, Schema>;

/// A model's state and what goes with it.
struct ModelWithParts {
  StateDict model;
  Parts parts;
};

/// All in one. The tensors are shared. Throws Error(data) where a tensor of the model is named as one of a part.
StateDict joined(const StateDict& model, const Parts& parts);
/// The schema of joined(). What belongs to a part is no parameter of the model: a buffer.
Schema joined(const Schema& model, const PartSchemas& parts);
/// The inverse of joined(). Throws Error(data), naming part and tensor, where a part lacks a tensor, has one too many,
/// or one of another type or shape. All other tensors are the model's.
ModelWithParts split(const StateDict& state, const PartSchemas& parts);
/// Likewise, where nobody knows the schemas: a part is whatever stands under its name, and may be empty.
ModelWithParts split(const StateDict& state, std::span<const std::string> names);

}  // namespace headstart::learn
