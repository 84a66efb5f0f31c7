#include "shared/wire/packed_state.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include <torch/types.h>

#include "shared/base/digest.hpp"

namespace headstart::wire {

namespace {

static_assert(std::endian::native == std::endian::little, "states travel and are kept as little-endian bytes");

/// Whether its tensors lie as their raw bytes do. Those without elements lie nowhere.
bool is_in_one_block(const learn::StateDict& state) {
  const std::byte* end = nullptr;
  for (const learn::NamedTensor& named : state.tensors()) {
    if (named.tensor.nbytes() == 0) continue;
    const auto* begin = static_cast<const std::byte*>(named.tensor.data_ptr());
    if (end != nullptr && begin != end) return false;
    end = begin + named.tensor.nbytes();
  }
  return true;
}

/// Whether no copy of it, none of its tensors and no view of them is referred to from elsewhere.
bool is_unshared(const learn::StateDict& state) {
  return std::ranges::all_of(state.tensors(), [](const learn::NamedTensor& named) {
    return named.tensor.use_count() == 1 && named.tensor.storage().use_count() == 1;
  });
}

}  // namespace

PackedState::PackedState(const learn::Schema& schema) : state_(learn::StateDict::in_one_block(schema)) { view_block(); }

PackedState::PackedState(const learn::StateDict& state) : PackedState(state.schema()) {
  at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < state.tensors().size(); ++i)
    learn::Tensor(state_.tensors()[i].tensor).copy_(state.tensors()[i].tensor);
}

PackedState PackedState::of(learn::StateDict state) {
  if (!is_in_one_block(state)) return PackedState(state);
  PackedState packed;
  packed.state_ = std::move(state);
  packed.view_block();
  return packed;
}

PackedState PackedState::in_place_of(PackedState spent, const learn::Schema& schema) {
  if (is_unshared(spent.state_) && spent.state_.schema() == schema) return spent;
  spent = PackedState();
  return PackedState(schema);
}

void PackedState::view_block() {
  for (const learn::NamedTensor& named : state_.tensors()) {
    if (data_ == nullptr && named.tensor.nbytes() > 0) data_ = static_cast<std::byte*>(named.tensor.data_ptr());
    num_bytes_ += named.tensor.nbytes();
  }
}

PackedState PackedState::of_tensor(const std::string& name, const learn::Tensor& tensor) {
  return PackedState(learn::StateDict({{name, tensor}}));
}

std::string PackedState::digest() const { return hex(Sha256().update(bytes()).finish()); }

}  // namespace headstart::wire
