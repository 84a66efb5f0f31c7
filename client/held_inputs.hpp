// The inputs that a client holds from one task to the next, so that they need not be sent again.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "client/assignment.hpp"
#include "shared/wire/messages.hpp"

namespace headstart::client {

/// Two sets at most: the inputs of the task under way, and those of the last task that keeps them (wire::Task). All
/// others are forgotten before new ones are received: their memory is free, or used again.
class HeldInputs {
 public:
  /// A task begins. Returns the places of `inputs` whose states are missing, one for each digest.
  std::vector<std::uint16_t> begin(const std::vector<wire::Input>& inputs, bool keeps_inputs);
  /// Memory for a state of this schema that is to come: that of a forgotten one, where there is one of this schema.
  wire::PackedState room_for(const learn::Schema& schema);
  /// A state that was missing has come.
  void put(const std::string& digest, wire::PackedState state) { states_.insert_or_assign(digest, std::move(state)); }
  /// Throws Error(internal) where it is missing.
  [[nodiscard]] const wire::PackedState& at(const std::string& digest) const;
  void clear() {
    states_.clear();
    kept_.clear();
    spent_.clear();
  }

 private:
  std::map<std::string, wire::PackedState> states_;  ///< By digest.
  std::vector<std::string> kept_;                    ///< Digests of the last task that keeps its inputs.
  std::vector<wire::PackedState> spent_;             ///< Forgotten when the task under way began.
};

}  // namespace headstart::client
