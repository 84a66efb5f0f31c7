// The memory of large messages that are coming in, bounded over all connections together.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "shared/net/message_channel.hpp"
#include "shared/net/time.hpp"

namespace headstart::net {

/// So many blocks, each for a whole message, lent while it arrives and is looked at. Who finds none left
/// does not read meanwhile, which holds its peer back. Who has had a block for longer than `patience` when another has
/// waited so long loses it with its connection: a peer that sends byte by byte delays nobody for ever. A block takes
/// memory only as far as it is written. All calls on one executor.
class ReceiveMemory : public std::enable_shared_from_this<ReceiveMemory> {
 public:
  class Block;

  /// `bytes` for all blocks; there is at least one.
  ReceiveMemory(std::size_t bytes, std::chrono::milliseconds patience);

  /// A block as soon as there is one, in order of asking; null where the caller has ended its `timer` meanwhile.
  /// `evict` is called at most once and is to have the block given back, at once or soon.
  Task<std::unique_ptr<Block>> take(Timer& timer, std::function<void()> evict);

  [[nodiscard]] std::size_t num_blocks() const { return num_blocks_; }
  [[nodiscard]] std::size_t num_lent() const { return holders_.size(); }
  [[nodiscard]] std::size_t num_waiting() const { return waiters_.size(); }

 private:
  struct Holder {
    std::uint64_t number;         ///< Rises with time.
    std::function<void()> evict;  ///< Empty once called.
  };
  struct Waiter {
    Timer& timer;
    std::function<void()> evict;
    std::unique_ptr<Block> granted;
  };
  using Waiters = std::list<Waiter>;
  class Place;
  std::unique_ptr<Block> lend(std::function<void()> evict);
  void evict_one_lent_before(std::uint64_t number);
  void give_back(std::list<Holder>::iterator holder, std::unique_ptr<std::byte[]> bytes);

  std::size_t num_blocks_;
  std::chrono::milliseconds patience_;
  std::uint64_t num_lent_ever_ = 0;
  std::list<Holder> holders_;  ///< The oldest first.
  Waiters waiters_;
  std::vector<std::unique_ptr<std::byte[]>> spare_;  ///< Fresh pages cost more than what is done with them.
};

/// Memory of `capacity` bytes, given back when destroyed.
class ReceiveMemory::Block {
 public:
  /// A reader asks for more than the message has left as long as it does not know the message's length.
  static constexpr std::size_t capacity = max_message_bytes + 4096;

  Block(std::shared_ptr<ReceiveMemory> memory, std::list<Holder>::iterator holder, std::unique_ptr<std::byte[]> bytes);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  [[nodiscard]] std::byte* data() const { return bytes_.get(); }

 private:
  std::shared_ptr<ReceiveMemory> memory_;
  std::list<Holder>::iterator holder_;
  std::unique_ptr<std::byte[]> bytes_;
};

}  // namespace headstart::net
