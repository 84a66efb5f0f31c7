// Several states in one safetensors file, told apart by a prefix of their tensors' names.
#pragma once

#include <span>
#include <string>

#include "shared/wire/packed_state.hpp"

namespace headstart::wire {

struct PrefixedState {
  std::string prefix;
  const PackedState* state = nullptr;
};

/// What stands before the bytes of the states, which follow one behind the other as they are.
std::string safetensors_head(std::span<const PrefixedState> states);

}  // namespace headstart::wire
