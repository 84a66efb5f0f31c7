// An update in memory, for aggregators.
#pragma once

#include <cstring>

#include "shared/learn/aggregate/aggregator.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::test {

/// Hands its bytes out in blocks of `block_bytes`.
class UpdateInMemory final : public learn::StoredUpdate {
 public:
  explicit UpdateInMemory(wire::PackedState state, std::size_t block_bytes = 1 << 20)
      : state_(std::move(state)), block_bytes_(block_bytes) {}

  [[nodiscard]] std::uint64_t num_bytes() const override { return state_.bytes().size(); }
  void for_each_block(const Take& take) override {
    const std::span<const std::byte> bytes = state_.bytes();
    for (std::size_t at = 0; at < bytes.size(); at += block_bytes_) {
      if (!take(at, bytes.subspan(at, std::min(block_bytes_, bytes.size() - at)))) return;
    }
  }
  void read(std::uint64_t offset, std::span<std::byte> target) override {
    std::memcpy(target.data(), state_.bytes().data() + offset, target.size());
  }

 private:
  wire::PackedState state_;
  std::size_t block_bytes_;
};

}  // namespace headstart::test
