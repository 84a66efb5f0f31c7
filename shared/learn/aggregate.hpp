// Weighted averaging of client updates, one at a time, with the same result in any order.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "shared/learn/state.hpp"

namespace headstart::learn {

/// Of the values that are accepted; a sum of larger ones could overflow.
inline constexpr double max_magnitude = 0x1p24;

/// FedAvg's sum, w = sum_i (n_i / N) w_i, as sums of scaled integers: each floating-point value x of a client with n_i
/// of the announced N samples adds rint(x * (n_i / N) * 2^36) to an int64. Integer sums do not depend on order, so the
/// result does not depend on arrival; the resolution is 2^-36 per value. Integer and boolean tensors take the
/// element-wise maximum. Memory: 8 bytes a value, however many clients.
///
/// Use: announce N, then for each client offence_in() and fold(), both over the update's raw bytes in schema order
/// (in blocks that need not align with tensors but with elements), then report().
class Aggregator {
 public:
  /// `announced` is N: the examples of all clients expected in this round, > 0.
  Aggregator(Schema schema, std::int64_t announced);
  ~Aggregator();
  Aggregator(Aggregator&&) noexcept;
  Aggregator& operator=(Aggregator&&) noexcept;

  /// Checks a block before any of the update is folded: finite, magnitude at most max_magnitude. `offset` is the byte
  /// offset of the block in the state. Returns a sentence naming tensor and index of the first offence; thread-safe.
  [[nodiscard]] std::optional<std::string> offence_in(std::uint64_t offset, std::span<const std::byte> block) const;

  /// Sum over the block's floating-point values of (value - origin)^2, `origin` being the same block of another state
  /// of this schema. Thread-safe.
  [[nodiscard]] double squared_distance(std::uint64_t offset, std::span<const std::byte> block,
                                        std::span<const std::byte> origin) const;

  /// Adds a validated block with weight n / N. Blocks of one update may come in any order. Not thread-safe.
  /// Throws Error(internal): examples not in 1..(N - accepted), a block outside of the state or that cuts an element.
  void fold(std::uint64_t offset, std::span<const std::byte> block, std::int64_t num_examples);

  /// Counts an update as accepted, after all of its blocks were folded.
  void accept(std::int64_t num_examples);

  [[nodiscard]] std::int64_t accepted_examples() const;
  [[nodiscard]] const Schema& schema() const;

  /// The average over what was accepted: sum / 2^36 * (N / accepted). The aggregator is spent.
  /// Throws Error(run_failed) where nothing was accepted.
  [[nodiscard]] StateDict report() &&;

 private:
  struct Sums;
  std::unique_ptr<Sums> sums_;
};

/// Validates, folds and accepts a whole state: Aggregator over tensors in memory. Returns the offence (another schema
/// or a value refused), the sum then untouched.
std::optional<std::string> add_update(Aggregator& aggregator, const StateDict& update, std::int64_t num_examples);

}  // namespace headstart::learn
