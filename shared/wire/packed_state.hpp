// A state in one block of memory: the form in which tensors meet bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "shared/learn/core/state.hpp"

namespace headstart::wire {

/// The raw bytes of a state (Schema: canonical order, no padding) and the tensors that view them. Copies share the
/// block. Every offset is aligned to its element, as the order is by falling element size.
class PackedState {
 public:
  PackedState() = default;
  /// Uninitialised memory for a state of `schema`.
  explicit PackedState(const learn::Schema& schema);
  /// A copy of `state`.
  explicit PackedState(const learn::StateDict& state);
  /// `state` itself, not copied, where its tensors lie one behind the other in one block of memory
  /// (learn::StateDict::in_one_block()); else a copy.
  static PackedState of(learn::StateDict state);
  /// Uninitialised memory for a state of `schema`: that of `spent` where it is one of that schema and nobody else
  /// refers to it, as fresh pages cost more than what is written to them. Else it is freed first.
  static PackedState in_place_of(PackedState spent, const learn::Schema& schema);
  /// One tensor as a state of its own (samples, logits, weights).
  static PackedState of_tensor(const std::string& name, const learn::Tensor& tensor);

  [[nodiscard]] const learn::StateDict& state() const { return state_; }
  [[nodiscard]] std::span<std::byte> bytes() { return {data_, num_bytes_}; }
  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, num_bytes_}; }
  /// SHA-256 over the raw bytes, in hexadecimal.
  [[nodiscard]] std::string digest() const;

 private:
  void view_block();

  learn::StateDict state_;
  std::byte* data_ = nullptr;
  std::size_t num_bytes_ = 0;
};

}  // namespace headstart::wire
