// Loops over raw values, whatever their floating-point type. Private to aggregate/.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "shared/base/error.hpp"
#include "shared/learn/aggregate/aggregator.hpp"

// A second body for processors with AVX2, chosen when the program is loaded: half the time, the same bits. The loader
// chooses too early for sanitizers that instrument the choice.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define HEADSTART_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define HEADSTART_VECTOR_CLONES
#endif

namespace headstart::learn::kernels {

// Values that are looked at twice, once for their magnitude and once for their sum, while they are in the cache; they
// share one bound on the magnitude of their sums.
inline constexpr std::size_t stretch = 2048;

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

}  // namespace headstart::learn::kernels
