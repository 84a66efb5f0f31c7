#include "shared/learn/aggregate.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <sstream>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/Functions.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "shared/base/error.hpp"
#include "shared/learn/platform.hpp"

// A second body for processors with AVX2, chosen when the program is loaded: half the time, the same bits. The loader
// chooses too early for sanitizers that instrument the choice.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define HEADSTART_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define HEADSTART_VECTOR_CLONES
#endif

namespace headstart::learn {
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

// Values that are looked at twice, once for their magnitude and once for their sum, while they are in the cache; they
// share one bound on the magnitude of their sums.
constexpr std::size_t stretch = 2048;

/// How magnitudes of a floating-point type compare as integers: of two values without sign, the larger has the larger
/// bits, infinities and NaN above all. `largest` is max_magnitude, or the largest finite value where that is less.
template <class T>
struct Magnitude;
template <>
struct Magnitude<double> {
  using Bits = std::int64_t;
  static constexpr Bits largest = std::bit_cast<Bits>(max_magnitude);
};
template <>
struct Magnitude<float> {
  using Bits = std::int32_t;
  static constexpr Bits largest = std::bit_cast<Bits>(static_cast<float>(max_magnitude));
};
template <>
struct Magnitude<c10::BFloat16> {
  using Bits = std::int16_t;
  static constexpr Bits largest = 0x4b80;
};
template <>
struct Magnitude<c10::Half> {
  using Bits = std::int16_t;
  static constexpr Bits largest = 0x7bff;
};

/// Element `index` of raw values that need not be aligned in memory.
template <class T>
T element(const std::byte* values, std::size_t index) {
  T value;
  std::memcpy(&value, values + index * sizeof(T), sizeof(T));
  return value;
}

template <class T>
double widened(T value) {
  if constexpr (std::is_same_v<T, double>) {
    return value;
  } else {
    return static_cast<double>(static_cast<float>(value));
  }
}

template <class T>
typename Magnitude<T>::Bits magnitude_bits(const std::byte* values, std::size_t index) {
  using Bits = typename Magnitude<T>::Bits;
  return static_cast<Bits>(element<Bits>(values, index) & std::numeric_limits<Bits>::max());
}

template <class T>
HEADSTART_VECTOR_CLONES typename Magnitude<T>::Bits largest_magnitude_bits(const std::byte* values, std::size_t count) {
  typename Magnitude<T>::Bits largest = 0;
  for (std::size_t i = 0; i < count; ++i) largest = std::max(largest, magnitude_bits<T>(values, i));
  return largest;
}

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

/// The sum over `count` values of (value - origin)^2, in eight partial sums.
template <class T>
HEADSTART_VECTOR_CLONES double squared_difference(const std::byte* values, const std::byte* origin, std::size_t count) {
  constexpr std::size_t width = 8;
  double partial[width] = {};
  const std::size_t whole = count - count % width;
  for (std::size_t i = 0; i < whole; i += width) {
    for (std::size_t lane = 0; lane < width; ++lane) {
      const double difference = widened(element<T>(values, i + lane)) - widened(element<T>(origin, i + lane));
      partial[lane] += difference * difference;
    }
  }
  for (std::size_t i = whole; i < count; ++i) {
    const double difference = widened(element<T>(values, i)) - widened(element<T>(origin, i));
    partial[i - whole] += difference * difference;
  }
  double sum = 0;
  for (const double part : partial) sum += part;
  return sum;
}

/// The index of the first value that is not finite or too large, or `count`.
template <class T>
std::size_t first_offence(const std::byte* values, std::size_t count) {
  for (std::size_t begin = 0; begin < count; begin += stretch) {
    const std::size_t size = std::min(stretch, count - begin);
    const std::byte* part = values + begin * sizeof(T);
    if (largest_magnitude_bits<T>(part, size) <= Magnitude<T>::largest) continue;
    for (std::size_t i = 0;; ++i) {
      if (magnitude_bits<T>(part, i) > Magnitude<T>::largest) return begin + i;
    }
  }
  return count;
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

/// Calls `action` with a zero of the C++ type of a floating-point `dtype`.
template <class Action>
auto with_floating_type(c10::ScalarType dtype, Action&& action) {
  switch (dtype) {
    case c10::ScalarType::Double:
      return action(double{});
    case c10::ScalarType::Float:
      return action(float{});
    case c10::ScalarType::Half:
      return action(c10::Half{});
    case c10::ScalarType::BFloat16:
      return action(c10::BFloat16{});
    default:
      throw Error(Errc::internal, std::string("no sums for tensors of type ") + c10::toString(dtype));
  }
}

/// Likewise of an integer or boolean `dtype`.
template <class Action>
auto with_integer_type(c10::ScalarType dtype, Action&& action) {
  switch (dtype) {
    case c10::ScalarType::Long:
      return action(std::int64_t{});
    case c10::ScalarType::Int:
      return action(std::int32_t{});
    case c10::ScalarType::Short:
      return action(std::int16_t{});
    case c10::ScalarType::Char:
      return action(std::int8_t{});
    case c10::ScalarType::Byte:
      return action(std::uint8_t{});
    case c10::ScalarType::Bool:
      return action(bool{});
    default:
      throw Error(Errc::internal, std::string("no maximum for tensors of type ") + c10::toString(dtype));
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
  std::uint64_t begin = 0;  ///< Byte offset in the state.
  Integers sums;
  std::vector<Stretch> stretches;
  Tensor maxima;

  [[nodiscard]] bool is_summed() const { return c10::isFloatingType(spec.dtype); }
  /// Of the values from `first` on, those in the stretch of the first, `count` at most.
  [[nodiscard]] static std::size_t size_in_stretch(std::uint64_t first, std::size_t count) {
    return std::min<std::size_t>(count, stretch - first % stretch);
  }
};

Column make_column(const TensorSpec& spec, std::uint64_t begin) {
  Column column{spec, begin, nullptr, {}, {}};
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

/// The column's sums divided by `divisor`, rounded to its type; the sums are freed.
Tensor averaged(Column column, double divisor) {
  if (!column.is_summed()) return column.maxima;
  Tensor average = at::empty(column.spec.shape, at::TensorOptions().dtype(column.spec.dtype));
  prefer_large_pages(average.data_ptr(), average.nbytes());
  with_floating_type(column.spec.dtype, [&](auto zero) {
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
  return average;
}

std::string offence_sentence(const TensorSpec& spec, std::uint64_t index, double value) {
  std::ostringstream text;
  text.precision(9);
  text << "tensor '" << spec.name << "' holds " << value << " at index " << index
       << ": expected finite values of at most 2^24 in magnitude";
  return text.str();
}

}  // namespace

struct Aggregator::Sums {
  Schema schema;
  std::int64_t accepted = 0;
  std::uint64_t num_bytes = 0;
  std::vector<Column> columns;
  bool has_pages = false;

  /// Calls action(column, index of the first element, its bytes, count) for each tensor that the block touches, until
  /// one call returns false.
  template <class Action>
  void visit(std::uint64_t offset, std::span<const std::byte> block, Action&& action);
  void check_examples(std::int64_t num_examples) const;
  /// At the first fold, not where the sums are made: that is no thread for such work.
  void provide_pages_once();
};

template <class Action>
void Aggregator::Sums::visit(std::uint64_t offset, std::span<const std::byte> block, Action&& action) {
  if (offset > num_bytes || block.size() > num_bytes - offset) {
    throw Error(Errc::internal, "a block of " + std::to_string(block.size()) + " bytes at offset " +
                                    std::to_string(offset) + " exceeds the state of " + std::to_string(num_bytes));
  }
  auto column = std::upper_bound(columns.begin(), columns.end(), offset,
                                 [](std::uint64_t at, const Column& candidate) { return at < candidate.begin; });
  if (column != columns.begin()) --column;
  for (; !block.empty(); ++column) {
    const std::uint64_t inside = offset - column->begin;
    const std::uint64_t bytes = std::min<std::uint64_t>(block.size(), column->spec.num_bytes() - inside);
    const std::uint64_t width = c10::elementSize(column->spec.dtype);
    if (inside % width != 0 || bytes % width != 0) {
      throw Error(Errc::internal, "a block at offset " + std::to_string(offset) + " cuts an element of tensor '" +
                                      column->spec.name + "'");
    }
    if (!action(*column, inside / width, block.data(), static_cast<std::size_t>(bytes / width))) return;
    block = block.subspan(bytes);
    offset += bytes;
  }
}

void Aggregator::Sums::provide_pages_once() {
  if (std::exchange(has_pages, true)) return;
  for (const Column& column : columns) {
    if (column.is_summed()) provide_pages(column.sums.get(), column.spec.num_elements() * sizeof(std::int64_t));
  }
}

void Aggregator::Sums::check_examples(std::int64_t num_examples) const {
  if (num_examples >= 1 && num_examples <= max_total_examples - accepted) return;
  throw Error(Errc::internal, "an update of " + std::to_string(num_examples) + " examples, with " +
                                  std::to_string(accepted) + " accepted of at most " +
                                  std::to_string(max_total_examples));
}

Aggregator::Aggregator(Schema schema) : sums_(std::make_unique<Sums>()) {
  sums_->schema = std::move(schema);
  for (const TensorSpec& spec : sums_->schema.tensors()) {
    sums_->columns.push_back(make_column(spec, sums_->num_bytes));
    sums_->num_bytes += spec.num_bytes();
  }
}

Aggregator::~Aggregator() = default;
Aggregator::Aggregator(Aggregator&&) noexcept = default;
Aggregator& Aggregator::operator=(Aggregator&&) noexcept = default;

const Schema& Aggregator::schema() const { return sums_->schema; }

std::optional<std::string> Aggregator::offence_in(std::uint64_t offset, std::span<const std::byte> block) const {
  std::optional<std::string> offence;
  sums_->visit(offset, block, [&](const Column& column, std::uint64_t first, const std::byte* values, std::size_t n) {
    if (!column.is_summed()) return true;
    with_floating_type(column.spec.dtype, [&](auto zero) {
      using T = decltype(zero);
      const std::size_t index = first_offence<T>(values, n);
      if (index < n) offence = offence_sentence(column.spec, first + index, widened(element<T>(values, index)));
    });
    return !offence;
  });
  return offence;
}

double Aggregator::squared_distance(std::uint64_t offset, std::span<const std::byte> block,
                                    std::span<const std::byte> origin) const {
  double sum = 0;
  sums_->visit(offset, block, [&](const Column& column, std::uint64_t, const std::byte* values, std::size_t n) {
    if (!column.is_summed()) return true;
    with_floating_type(column.spec.dtype, [&](auto zero) {
      using T = decltype(zero);
      sum += squared_difference<T>(values, origin.data() + (values - block.data()), n);
    });
    return true;
  });
  return sum;
}

void Aggregator::fold(std::uint64_t offset, std::span<const std::byte> block, std::int64_t num_examples) {
  sums_->check_examples(num_examples);
  sums_->provide_pages_once();
  const double scale = static_cast<double>(num_examples) * units_per_one;
  sums_->visit(offset, block, [&](Column& column, std::uint64_t first, const std::byte* values, std::size_t n) {
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

void Aggregator::accept(std::int64_t num_examples) {
  sums_->check_examples(num_examples);
  sums_->accepted += num_examples;
}

std::int64_t Aggregator::accepted_examples() const { return sums_->accepted; }

StateDict Aggregator::report() && {
  const std::unique_ptr<Sums> sums = std::move(sums_);
  if (sums->accepted == 0) throw Error(Errc::run_failed, "no update was accepted: there is nothing to average");
  const double divisor = static_cast<double>(sums->accepted) * units_per_one;
  std::vector<NamedTensor> averages;
  averages.reserve(sums->columns.size());
  for (Column& column : sums->columns) {
    std::string name = column.spec.name;
    averages.push_back({std::move(name), averaged(std::move(column), divisor)});
  }
  return StateDict(std::move(averages));
}

std::optional<std::string> add_update(Aggregator& aggregator, const StateDict& update, std::int64_t num_examples) {
  if (auto difference = update.schema().difference_from(aggregator.schema())) return difference;
  std::vector<std::span<const std::byte>> blocks;
  for (const NamedTensor& named : update.tensors()) {
    blocks.push_back({static_cast<const std::byte*>(named.tensor.data_ptr()), named.tensor.nbytes()});
  }
  std::uint64_t offset = 0;
  for (const auto& block : blocks) {
    if (auto offence = aggregator.offence_in(offset, block)) return offence;
    offset += block.size();
  }
  offset = 0;
  for (const auto& block : blocks) {
    aggregator.fold(offset, block, num_examples);
    offset += block.size();
  }
  aggregator.accept(num_examples);
  return std::nullopt;
}

}  // namespace headstart::learn
