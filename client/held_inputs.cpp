#include "client/held_inputs.hpp"

#include <algorithm>

#include "shared/base/error.hpp"

namespace headstart::client {

std::vector<std::uint16_t> HeldInputs::begin(const std::vector<wire::Input>& inputs, bool keeps_inputs) {
  std::vector<std::string> digests;
  for (const wire::Input& input : inputs) digests.push_back(input.digest.value);
  if (keeps_inputs) kept_ = digests;
  const auto is_among = [](const std::vector<std::string>& list, const std::string& digest) {
    return std::ranges::find(list, digest) != list.end();
  };
  spent_.clear();
  std::erase_if(states_, [&](auto& entry) {
    const bool is_forgotten = !is_among(digests, entry.first) && !is_among(kept_, entry.first);
    if (is_forgotten) spent_.push_back(std::move(entry.second));
    return is_forgotten;
  });
  std::vector<std::uint16_t> missing;
  for (std::size_t place = 0; place < digests.size(); ++place) {
    const bool is_first = std::ranges::find(digests, digests[place]) == digests.begin() + std::ptrdiff_t(place);
    if (is_first && !states_.contains(digests[place])) missing.push_back(static_cast<std::uint16_t>(place));
  }
  if (missing.empty()) spent_.clear();
  return missing;
}

wire::PackedState HeldInputs::room_for(const learn::Schema& schema) {
  const auto found = std::ranges::find_if(
      spent_, [&schema](const wire::PackedState& spent) { return spent.state().schema() == schema; });
  if (found == spent_.end()) {
    spent_.clear();  // their memory is wanted
    return wire::PackedState(schema);
  }
  wire::PackedState spent = std::move(*found);
  spent_.erase(found);
  return wire::PackedState::in_place_of(std::move(spent), schema);
}

const wire::PackedState& HeldInputs::at(const std::string& digest) const {
  const auto found = states_.find(digest);
  if (found == states_.end()) throw Error(Errc::internal, "an input of the task was never received");
  return found->second;
}

}  // namespace headstart::client
