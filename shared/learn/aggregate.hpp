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

/// Of all updates of one sum together.
inline constexpr std::int64_t max_total_examples = std::int64_t{1} << 50;

/// FedAvg's mean, w = sum_i n_i w_i / sum_i n_i over the accepted updates i, as exact sums of integers: each
/// floating-point value x of a client with n examples adds rint(x * n * 2^36). Integer sums do not depend on order, so
/// the result does not depend on arrival; nor does it depend on who else was expected. Before it is rounded to the
/// tensor's type, the mean is within 2^-37 + 2^-51 * max |x| of the true one. Integer and boolean tensors take the
/// element-wise maximum. Memory: 8 bytes a value, however many clients; 16 where sums may exceed 62 bits.
///
/// Use: for each client offence_in() and fold(), both over the update's raw bytes in schema order (in blocks that need
/// not align with tensors but with elements), then accept(); at the end report().
class Aggregator {
 public:
  explicit Aggregator(Schema schema);
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

  /// Adds a validated block with weight `num_examples`. Blocks of one update may come in any order. Not thread-safe.
  /// Throws Error(internal): examples not in 1..(max_total_examples - accepted), a block outside of the state or that
  /// cuts an element.
  void fold(std::uint64_t offset, std::span<const std::byte> block, std::int64_t num_examples);

  /// Counts an update as accepted, after all of its blocks were folded.
  void accept(std::int64_t num_examples);

  [[nodiscard]] std::int64_t accepted_examples() const;
  [[nodiscard]] const Schema& schema() const;

  /// The mean over what was accepted. The aggregator is spent.
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
