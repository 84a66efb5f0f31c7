// How a round's updates become one state: the contract of every rule.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shared/learn/core/state.hpp"

namespace headstart::learn {

/// Of the values that are accepted; a sum of larger ones could overflow.
inline constexpr double max_magnitude = 0x1p24;

/// The raw bytes of a state, block by block: which values a block holds, and whether they may be used. Thread-safe.
class StateBlocks {
 public:
  explicit StateBlocks(Schema schema);

  [[nodiscard]] const Schema& schema() const { return schema_; }

  /// Looks at a block, `offset` being its place in the state: finite, magnitude at most max_magnitude. Returns a
  /// sentence naming tensor and index of the first violation.
  [[nodiscard]] std::optional<std::string> violation_in(std::uint64_t offset, std::span<const std::byte> block) const;

  /// Where the tensors of a schema begin in another state; null for those that are not of it.
  using Origin = std::vector<const std::byte*>;
  /// The tensors of `state`, by name. It must outlive the origin, and have the types and shapes of this schema.
  [[nodiscard]] Origin origin_in(const StateDict& state) const;

  /// Sum over the block's floating-point values of (value - origin)^2, over the tensors that the origin has.
  [[nodiscard]] double squared_distance(std::uint64_t offset, std::span<const std::byte> block,
                                        const Origin& origin) const;

  /// Calls action(place of the tensor in the schema, index of its first element in the block, the bytes, count) for
  /// each tensor that the block touches, until one call returns false. Throws Error(internal): a block outside of the
  /// state or that cuts an element.
  template <class Action>
  void visit(std::uint64_t offset, std::span<const std::byte> block, Action&& action) const {
    if (block.empty()) (void)part_at(offset, 0);
    while (!block.empty()) {
      const Part part = part_at(offset, block.size());
      if (!action(part.tensor, part.first, block.data(), part.count)) return;
      block = block.subspan(part.num_bytes);
      offset += part.num_bytes;
    }
  }

 private:
  struct Part {
    std::size_t tensor;
    std::uint64_t first;      ///< Element of the tensor.
    std::uint64_t num_bytes;  ///< From there on, within the tensor and the block.
    std::size_t count;        ///< The same in elements.
  };
  [[nodiscard]] Part part_at(std::uint64_t offset, std::uint64_t num_bytes) const;

  Schema schema_;
  std::vector<std::uint64_t> begins_;
  std::uint64_t num_bytes_ = 0;
};

/// A client's update where it lies, in memory or on disk: the raw bytes of a state.
class StoredUpdate {
 public:
  using Take = std::function<bool(std::uint64_t offset, std::span<const std::byte> block)>;

  StoredUpdate() = default;
  StoredUpdate(const StoredUpdate&) = delete;
  StoredUpdate& operator=(const StoredUpdate&) = delete;
  virtual ~StoredUpdate() = default;

  [[nodiscard]] virtual std::uint64_t num_bytes() const = 0;
  /// Calls `take` over all bytes in order, in blocks of at most 1 MiB, until it returns false. Throws Error(storage).
  virtual void for_each_block(const Take& take) = 0;
  /// Fills `target` with the bytes from `offset` on. Throws Error(storage).
  virtual void read(std::uint64_t offset, std::span<std::byte> target) = 0;

 protected:
  StoredUpdate(StoredUpdate&&) = default;
  StoredUpdate& operator=(StoredUpdate&&) = default;
};

struct Contribution {
  std::string client;
  std::int64_t num_examples = 0;
};

/// One round's rule. Use: blocks().violation_in() over each update; accept() for those without a violation, both from
/// any thread; at the end report().
class Aggregator {
 public:
  explicit Aggregator(Schema schema) : blocks_(std::move(schema)) {}
  Aggregator(Aggregator&&) = default;
  Aggregator& operator=(Aggregator&&) = default;
  virtual ~Aggregator() = default;

  [[nodiscard]] const StateBlocks& blocks() const { return blocks_; }

  /// Whether report() reads the updates again: they live, where they were accepted, until it has returned.
  [[nodiscard]] virtual bool keeps_updates() const { return false; }
  /// Takes an update without a violation. From several threads at once: what must not meet is locked within.
  virtual void accept(StoredUpdate& update, const Contribution& contribution) = 0;
  /// The round's state, of the same schema. The aggregator is spent. Throws Error(run_failed) where what was accepted
  /// is not enough.
  [[nodiscard]] virtual StateDict report() && = 0;

 private:
  StateBlocks blocks_;
};

}  // namespace headstart::learn
