#include "shared/learn/aggregate/weighted_mean.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include <ATen/Functions.h>

#include "shared/base/error.hpp"
#include "shared/learn/aggregate/kernels.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::learn {

using namespace kernels;

namespace {

constexpr double units_per_one = 0x1p36;

// A double of at most 2^51 in magnitude plus this constant has the double, rounded half to even, in its low mantissa
// bits: two additions that vectorise everywhere, where a conversion to int64 needs AVX-512.
constexpr double rounder = 0x1.8p52;
constexpr double rounder_limit = 0x1p51;

// The magnitude of an addend from which it is cut in two, and of a sum that is still in 63 bits with one more addend.
constexpr double addend_limit = 0x1p61;
constexpr double sum_limit = 0x1p62;

// One of a wide sum's upper part in units of its lower part.
constexpr int upper_bits = 52;
constexpr double upper_unit = 0x1p52;

std::int64_t integer_in(double shifted) {
  return std::bit_cast<std::int64_t>(shifted) - std::bit_cast<std::int64_t>(rounder);
}

/// sums += rint(values * scale), for products below rounder_limit.
template <class T>
HEADSTART_VECTOR_CLONES void add_small(const std::byte* values, std::size_t count, double scale,
                                       std::int64_t* __restrict sums) {
  for (std::size_t i = 0; i < count; ++i) sums[i] += integer_in(widened(element<T>(values, i)) * scale + rounder);
}

/// The same, for products below addend_limit: a multiple of 2^32 and the rest, both of which `rounder` can round.
template <class T>
HEADSTART_VECTOR_CLONES void add_medium(const std::byte* values, std::size_t count, double scale,
                                        std::int64_t* __restrict sums) {
  for (std::size_t i = 0; i < count; ++i) {
    const double product = widened(element<T>(values, i)) * scale;
    const double shifted = product * 0x1p-32 + rounder;
    const double rest = product - (shifted - rounder) * 0x1p32;
    sums[i] += integer_in(shifted) * (std::int64_t{1} << 32) + integer_in(rest + rounder);
  }
}

/// upper * 2^52 + sums += rint(values * scale), for any product.
template <class T>
HEADSTART_VECTOR_CLONES void add_large(const std::byte* values, std::size_t count, double scale,
                                       std::int64_t* __restrict sums, std::int64_t* __restrict upper) {
  for (std::size_t i = 0; i < count; ++i) {
    const double product = widened(element<T>(values, i)) * scale;
    const double high = std::nearbyint(product / upper_unit);
    upper[i] += static_cast<std::int64_t>(high);
    sums[i] += static_cast<std::int64_t>(std::nearbyint(product - high * upper_unit));
  }
}

template <class T>
void keep_maximum(const std::byte* values, std::size_t count, T* maxima) {
  for (std::size_t i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<T, bool>) {
      // A peer may send any byte; reading one that is neither 0 nor 1 as bool would be undefined.
      maxima[i] = maxima[i] || element<std::uint8_t>(values, i) != 0;
    } else {
      maxima[i] = std::max(maxima[i], element<T>(values, i));
    }
  }
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Integers = std::unique_ptr<std::int64_t[], Free>;

/// calloc leaves the zeroing of large arrays to the pages' first use.
Integers zeros(std::uint64_t count) {
  auto* memory = static_cast<std::int64_t*>(std::calloc(std::max<std::uint64_t>(count, 1), sizeof(std::int64_t)));
  if (memory == nullptr) throw std::bad_alloc();
  prefer_large_pages(memory, count * sizeof(std::int64_t));
  return Integers(memory);
}

/// The sums of `stretch` values of a tensor, fewer at its end. Integers, so that neither the width nor the order of
/// additions changes the result.
struct Stretch {
  double bound = 0;  ///< On the magnitude of the sums' lower parts.
  Integers upper;    ///< Their upper parts, from when 63 bits may not hold them.

  /// Makes room in the lower parts, which are in 0..2^52 then.
  void carry(std::int64_t* sums, std::size_t count) {
    if (!upper) upper = zeros(count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t carried = sums[i] >> upper_bits;
      upper[i] += carried;
      sums[i] -= carried * (std::int64_t{1} << upper_bits);
    }
    bound = upper_unit;
  }
};

/// What is gathered for one tensor: sums where it is floating-point, else maxima.
struct Column {
  TensorSpec spec;
  Integers sums;
  std::vector<Stretch> stretches;
  Tensor maxima;

  [[nodiscard]] bool is_summed() const { return c10::isFloatingType(spec.dtype); }
  /// Of the values from `first` on, those in the stretch of the first, `count` at most.
  [[nodiscard]] static std::size_t size_in_stretch(std::uint64_t first, std::size_t count) {
    return std::min<std::size_t>(count, stretch - first % stretch);
  }
};

Column make_column(const TensorSpec& spec) {
  Column column{spec, nullptr, {}, {}};
  if (column.is_summed()) {
    column.sums = zeros(spec.num_elements());
    column.stretches.resize((spec.num_elements() + stretch - 1) / stretch);
    return column;
  }
  column.maxima = at::empty(spec.shape, at::TensorOptions().dtype(spec.dtype));
  with_integer_type(spec.dtype, [&](auto zero) {
    using T = decltype(zero);
    std::fill_n(column.maxima.template data_ptr<T>(), spec.num_elements(), std::numeric_limits<T>::lowest());
  });
  return column;
}

/// Adds rint(value * scale) for `count` values, the first of which is the column's element `first`.
template <class T>
void add_scaled(Column& column, std::uint64_t first, const std::byte* values, std::size_t count, double scale) {
  while (count > 0) {
    const std::size_t size = Column::size_in_stretch(first, count);
    const std::uint64_t begin = first - first % stretch;
    Stretch& part = column.stretches[first / stretch];
    const double largest = widened(std::bit_cast<T>(largest_magnitude_bits<T>(values, size))) * scale;
    const bool is_large = largest >= addend_limit;
    const double addend = is_large ? upper_unit : largest + 1;
    if (part.bound + addend > sum_limit || (is_large && !part.upper)) {
      part.carry(column.sums.get() + begin, Column::size_in_stretch(begin, column.spec.num_elements() - begin));
    }
    part.bound += addend;
    std::int64_t* const sums = column.sums.get() + first;
    if (is_large) {
      add_large<T>(values, size, scale, sums, part.upper.get() + (first - begin));
    } else if (largest < rounder_limit) {
      add_small<T>(values, size, scale, sums);
    } else {
      add_medium<T>(values, size, scale, sums);
    }
    first += size;
    values += size * sizeof(T);
    count -= size;
  }
}

/// Writes the column's sums divided by `divisor` and rounded to the type of `average`, or its maxima; the sums are
/// freed.
void write_average(Column column, double divisor, const Tensor& average) {
  if (!column.is_summed()) {
    if (average.nbytes() > 0) std::memcpy(average.data_ptr(), column.maxima.data_ptr(), average.nbytes());
    return;
  }
  with_floating_type(average.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    T* out = average.template data_ptr<T>();
    std::int64_t* sums = column.sums.get();
    std::size_t left = column.spec.num_elements();
    for (Stretch& part : column.stretches) {
      const std::size_t count = std::min(stretch, left);
      if (part.upper) part.carry(sums, count);
      for (std::size_t i = 0; i < count; ++i) {
        double sum = static_cast<double>(sums[i]);
        if (part.upper) sum += static_cast<double>(part.upper[i]) * upper_unit;
        if constexpr (std::is_same_v<T, double>) {
          out[i] = sum / divisor;
        } else {
          out[i] = static_cast<float>(sum / divisor);
        }
      }
      out += count;
      sums += count;
      left -= count;
    }
  });
}

}  // namespace

struct WeightedMean::Sums {
  std::mutex mutex;  ///< Of accept(StoredUpdate&).
  std::int64_t accepted = 0;
  std::vector<Column> columns;
  bool has_pages = false;

  void check_examples(std::int64_t num_examples) const;
  /// At the first fold, not where the sums are made: that is no thread for such work.
  void provide_pages_once();
};

void WeightedMean::Sums::provide_pages_once() {
  if (std::exchange(has_pages, true)) return;
  for (const Column& column : columns) {
    if (column.is_summed()) provide_pages(column.sums.get(), column.spec.num_elements() * sizeof(std::int64_t));
  }
}

void WeightedMean::Sums::check_examples(std::int64_t num_examples) const {
  if (num_examples >= 1 && num_examples <= max_total_examples - accepted) return;
  throw Error(Errc::internal, "an update of " + std::to_string(num_examples) + " examples, with " +
                                  std::to_string(accepted) + " accepted of at most " +
                                  std::to_string(max_total_examples));
}

WeightedMean::WeightedMean(Schema schema) : Aggregator(std::move(schema)), sums_(std::make_unique<Sums>()) {
  for (const TensorSpec& spec : blocks().schema().tensors()) sums_->columns.push_back(make_column(spec));
}

WeightedMean::~WeightedMean() = default;
WeightedMean::WeightedMean(WeightedMean&&) noexcept = default;
WeightedMean& WeightedMean::operator=(WeightedMean&&) noexcept = default;

void WeightedMean::fold(std::uint64_t offset, std::span<const std::byte> block, std::int64_t num_examples) {
  sums_->check_examples(num_examples);
  sums_->provide_pages_once();
  const double scale = static_cast<double>(num_examples) * units_per_one;
  blocks().visit(offset, block, [&](std::size_t tensor, std::uint64_t first, const std::byte* values, std::size_t n) {
    Column& column = sums_->columns[tensor];
    if (column.is_summed()) {
      with_floating_type(column.spec.dtype,
                         [&](auto zero) { add_scaled<decltype(zero)>(column, first, values, n, scale); });
    } else {
      with_integer_type(column.spec.dtype, [&](auto zero) {
        using T = decltype(zero);
        keep_maximum<T>(values, n, column.maxima.template data_ptr<T>() + first);
      });
    }
    return true;
  });
}

void WeightedMean::accept(StoredUpdate& update, const Contribution& contribution) {
  const std::scoped_lock lock(sums_->mutex);
  update.for_each_block([&](std::uint64_t offset, std::span<const std::byte> block) {
    fold(offset, block, contribution.num_examples);
    return true;
  });
  accept(contribution.num_examples);
}

void WeightedMean::accept(std::int64_t num_examples) {
  sums_->check_examples(num_examples);
  sums_->accepted += num_examples;
}

std::int64_t WeightedMean::accepted_examples() const { return sums_->accepted; }

StateDict WeightedMean::report() && { return std::move(*this).mean(false); }

StateDict WeightedMean::report_in_double() && { return std::move(*this).mean(true); }

StateDict WeightedMean::mean(bool is_wide) && {
  const std::unique_ptr<Sums> sums = std::move(sums_);
  if (sums->accepted == 0) throw Error(Errc::run_failed, "no update was accepted: there is nothing to average");
  const double divisor = static_cast<double>(sums->accepted) * units_per_one;
  std::vector<TensorSpec> specs = blocks().schema().tensors();
  for (TensorSpec& spec : specs) {
    if (is_wide && c10::isFloatingType(spec.dtype)) spec.dtype = c10::ScalarType::Double;
  }
  StateDict average = StateDict::in_one_block(Schema(std::move(specs)));
  for (Column& column : sums->columns) {
    const Tensor& target = average.at(column.spec.name);
    write_average(std::move(column), divisor, target);
  }
  return average;
}

std::optional<std::string> add_update(WeightedMean& mean, const StateDict& update, std::int64_t num_examples) {
  if (auto difference = update.schema().difference_from(mean.blocks().schema())) return difference;
  std::vector<std::span<const std::byte>> blocks;
  for (const NamedTensor& named : update.tensors()) {
    blocks.push_back({static_cast<const std::byte*>(named.tensor.data_ptr()), named.tensor.nbytes()});
  }
  std::uint64_t offset = 0;
  for (const auto& block : blocks) {
    if (auto violation = mean.blocks().violation_in(offset, block)) return violation;
    offset += block.size();
  }
  offset = 0;
  for (const auto& block : blocks) {
    mean.fold(offset, block, num_examples);
    offset += block.size();
  }
  mean.accept(num_examples);
  return std::nullopt;
}

}  // namespace headstart::learn
