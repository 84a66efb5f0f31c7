// The memory that a message is read into.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "shared/net/receive_memory.hpp"

namespace headstart::net {

/// Starts each message in a small buffer and moves to a large one when its length is known. The large one is kept
/// while large messages follow each other, and given back with the first small one. A block of memory that all
/// connections share, lent for a message, is given back before the next.
class Inbox {
 public:
  static constexpr std::size_t first_read = 4096;

  void begin() {
    size_ = 0;
    is_large_ = false;
    block_.reset();
  }

  /// For the rest of the message.
  void lend(std::unique_ptr<ReceiveMemory::Block> block) {
    std::memcpy(block->data(), data(), size_);
    block_ = std::move(block);
  }
  [[nodiscard]] bool has_block() const { return block_ != nullptr; }

  /// Room for the next `bytes`; what was committed stays.
  std::span<std::byte> prepare(std::size_t bytes) {
    const std::size_t needed = size_ + bytes;
    if (!block_ && needed > (is_large_ ? capacity_ : first_read)) move_to_large(needed);
    return {data() + size_, bytes};
  }
  void commit(std::size_t bytes) { size_ += bytes; }
  [[nodiscard]] std::size_t size() const { return size_; }

  /// The whole message, valid until begin().
  std::span<const std::byte> finish() {
    if (!is_large_ || block_) release();
    return {data(), size_};
  }

  /// For a connection that has fallen silent between two messages.
  void release_if_empty() {
    if (!is_large_) release();
  }

 private:
  std::byte* data() {
    if (block_) return block_->data();
    return is_large_ ? large_.get() : small_.data();
  }

  void release() {
    large_.reset();
    capacity_ = 0;
  }

  void move_to_large(std::size_t needed) {
    if (capacity_ >= needed) {
      std::memcpy(large_.get(), data(), size_);
    } else {
      // Doubling matters to messages in many fragments only; of others the length is known.
      const std::size_t capacity = std::max(needed, 2 * capacity_ * std::size_t{is_large_});
      auto larger = std::make_unique_for_overwrite<std::byte[]>(capacity);
      std::memcpy(larger.get(), data(), size_);
      large_ = std::move(larger);
      capacity_ = capacity;
    }
    is_large_ = true;
  }

  std::array<std::byte, first_read> small_;
  std::unique_ptr<std::byte[]> large_;
  std::unique_ptr<ReceiveMemory::Block> block_;
  std::size_t capacity_ = 0;
  std::size_t size_ = 0;
  bool is_large_ = false;
};

}  // namespace headstart::net
