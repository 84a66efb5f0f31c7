// FedAvg's weighted mean of client updates, one at a time, with the same result in any order.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "shared/learn/aggregate/aggregator.hpp"

namespace headstart::learn {

/// Of all updates of one sum together.
inline constexpr std::int64_t max_total_examples = std::int64_t{1} << 50;

/// FedAvg's mean, w = sum_i n_i w_i / sum_i n_i over the accepted updates i, as exact sums of integers: each
/// floating-point value x of a client with n examples adds rint(x * n * 2^36). Integer sums do not depend on order, so
/// the result does not depend on arrival; nor does it depend on who else was expected. Before it is rounded to the
/// tensor's type, the mean is within 2^-37 + 2^-51 * max |x| of the true one. Integer and boolean tensors take the
/// element-wise maximum. Memory: 8 bytes a value, however many clients; 16 where sums may exceed 62 bits.
///
/// Beside accept(StoredUpdate&) an update can be folded in blocks that need not align with tensors but with elements:
/// fold() for each, then accept(num_examples).
class WeightedMean final : public Aggregator {
 public:
  explicit WeightedMean(Schema schema);
  ~WeightedMean() override;
  WeightedMean(WeightedMean&&) noexcept;
  WeightedMean& operator=(WeightedMean&&) noexcept;

  void accept(StoredUpdate& update, const Contribution& contribution) override;

  /// Adds a validated block with weight `num_examples`. Blocks of one update may come in any order. Not thread-safe.
  /// Throws Error(internal): examples not in 1..(max_total_examples - accepted), a block outside of the state or that
  /// cuts an element.
  void fold(std::uint64_t offset, std::span<const std::byte> block, std::int64_t num_examples);
  /// Counts an update as accepted, after all of its blocks were folded.
  void accept(std::int64_t num_examples);

  [[nodiscard]] std::int64_t accepted_examples() const;

  /// The mean over what was accepted, in one block of memory. Throws Error(run_failed) where nothing was.
  [[nodiscard]] StateDict report() && override;
  /// The same before it is rounded: floating-point tensors as float64.
  [[nodiscard]] StateDict report_in_double() &&;

 private:
  struct Sums;
  [[nodiscard]] StateDict mean(bool is_wide) &&;

  std::unique_ptr<Sums> sums_;
};

/// Validates, folds and accepts a whole state: WeightedMean over tensors in memory. Returns the violation (another
/// schema or a value refused), the sum then untouched.
std::optional<std::string> add_update(WeightedMean& mean, const StateDict& update, std::int64_t num_examples);

}  // namespace headstart::learn
