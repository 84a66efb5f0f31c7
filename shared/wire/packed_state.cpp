#include "shared/wire/packed_state.hpp"

#include <bit>

#include <torch/types.h>

#include "shared/base/digest.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::wire {

static_assert(std::endian::native == std::endian::little, "states travel and are kept as little-endian bytes");

PackedState::PackedState(const learn::Schema& schema) : num_bytes_(schema.num_bytes()) {
  const at::Tensor block = at::empty({static_cast<std::int64_t>(num_bytes_)}, at::kByte);
  data_ = reinterpret_cast<std::byte*>(block.data_ptr());
  learn::prefer_large_pages(data_, num_bytes_);
  std::vector<learn::NamedTensor> tensors;
  std::uint64_t offset = 0;
  for (const learn::TensorSpec& spec : schema.tensors()) {
    // The deleter holds the block: a view keeps all of it alive.
    tensors.push_back({spec.name, torch::from_blob(
                                      data_ + offset, spec.shape, [block](void*) {}, at::TensorOptions(spec.dtype))});
    offset += spec.num_bytes();
  }
  state_ = learn::StateDict(std::move(tensors));
}

PackedState::PackedState(const learn::StateDict& state) : PackedState(state.schema()) {
  at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < state.tensors().size(); ++i)
    learn::Tensor(state_.tensors()[i].tensor).copy_(state.tensors()[i].tensor);
}

PackedState PackedState::of_tensor(const std::string& name, const learn::Tensor& tensor) {
  return PackedState(learn::StateDict({{name, tensor}}));
}

std::string PackedState::digest() const { return hex(Sha256().update(bytes()).finish()); }

}  // namespace headstart::wire
