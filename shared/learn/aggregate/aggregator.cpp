#include "shared/learn/aggregate/aggregator.hpp"

#include <map>
#include <sstream>
#include <string_view>

#include "shared/learn/aggregate/kernels.hpp"

namespace headstart::learn {

using namespace kernels;

namespace {

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
std::size_t first_violation(const std::byte* values, std::size_t count) {
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

std::string violation_sentence(const TensorSpec& spec, std::uint64_t index, double value) {
  std::ostringstream text;
  text.precision(9);
  text << "tensor '" << spec.name << "' holds " << value << " at index " << index
       << ": expected finite values of at most 2^24 in magnitude";
  return text.str();
}

}  // namespace

StateBlocks::StateBlocks(Schema schema) : schema_(std::move(schema)) {
  for (const TensorSpec& spec : schema_.tensors()) {
    begins_.push_back(num_bytes_);
    num_bytes_ += spec.num_bytes();
  }
}

StateBlocks::Part StateBlocks::part_at(std::uint64_t offset, std::uint64_t num_bytes) const {
  if (offset > num_bytes_ || num_bytes > num_bytes_ - offset) {
    throw Error(Errc::internal, "a block of " + std::to_string(num_bytes) + " bytes at offset " +
                                    std::to_string(offset) + " exceeds the state of " + std::to_string(num_bytes_));
  }
  if (num_bytes == 0) return {};
  auto begin = std::upper_bound(begins_.begin(), begins_.end(), offset);
  if (begin != begins_.begin()) --begin;
  // Tensors without elements begin where the next one does.
  auto tensor = static_cast<std::size_t>(begin - begins_.begin());
  const TensorSpec& spec = schema_.tensors()[tensor];
  const std::uint64_t inside = offset - begins_[tensor];
  const std::uint64_t bytes = std::min<std::uint64_t>(num_bytes, spec.num_bytes() - inside);
  const std::uint64_t width = c10::elementSize(spec.dtype);
  if (inside % width != 0 || bytes % width != 0) {
    throw Error(Errc::internal,
                "a block at offset " + std::to_string(offset) + " cuts an element of tensor '" + spec.name + "'");
  }
  return {tensor, inside / width, bytes, static_cast<std::size_t>(bytes / width)};
}

std::optional<std::string> StateBlocks::violation_in(std::uint64_t offset, std::span<const std::byte> block) const {
  std::optional<std::string> violation;
  visit(offset, block, [&](std::size_t tensor, std::uint64_t first, const std::byte* values, std::size_t n) {
    const TensorSpec& spec = schema_.tensors()[tensor];
    if (!c10::isFloatingType(spec.dtype)) return true;
    with_floating_type(spec.dtype, [&](auto zero) {
      using T = decltype(zero);
      const std::size_t index = first_violation<T>(values, n);
      if (index < n) violation = violation_sentence(spec, first + index, widened(element<T>(values, index)));
    });
    return !violation;
  });
  return violation;
}

StateBlocks::Origin StateBlocks::origin_in(const StateDict& state) const {
  std::map<std::string_view, const std::byte*> begins;
  for (const auto& [name, tensor] : state.tensors()) {
    begins.emplace(name, static_cast<const std::byte*>(tensor.data_ptr()));
  }
  Origin origin;
  for (const TensorSpec& spec : schema_.tensors()) {
    const auto found = begins.find(spec.name);
    origin.push_back(found == begins.end() ? nullptr : found->second);
  }
  return origin;
}

double StateBlocks::squared_distance(std::uint64_t offset, std::span<const std::byte> block,
                                     const Origin& origin) const {
  double sum = 0;
  visit(offset, block, [&](std::size_t tensor, std::uint64_t first, const std::byte* values, std::size_t n) {
    const c10::ScalarType dtype = schema_.tensors()[tensor].dtype;
    if (!c10::isFloatingType(dtype) || origin[tensor] == nullptr) return true;
    with_floating_type(dtype, [&](auto zero) {
      using T = decltype(zero);
      sum += squared_difference<T>(values, origin[tensor] + first * sizeof(T), n);
    });
    return true;
  });
  return sum;
}

}  // namespace headstart::learn
