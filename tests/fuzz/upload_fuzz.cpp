// A client's update: raw tensor bytes in blocks. Promised: what no block offends with is folded, and the average of it
// is within its bounds.
#include <cmath>

#include <ATen/core/Tensor.h>

#include "shared/learn/aggregate/weighted_mean.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace headstart;

/// Of every type that a state may have.
const learn::Schema& schema() {
  using c10::ScalarType;
  static const learn::Schema value({{"f64", ScalarType::Double, {2}},
                                    {"f32", ScalarType::Float, {2, 2}},
                                    {"f16", ScalarType::Half, {3}},
                                    {"bf16", ScalarType::BFloat16, {3}},
                                    {"i64", ScalarType::Long, {}},
                                    {"i32", ScalarType::Int, {1}},
                                    {"i16", ScalarType::Short, {2}},
                                    {"i8", ScalarType::Char, {2}},
                                    {"u8", ScalarType::Byte, {2}},
                                    {"bool", ScalarType::Bool, {3}}});
  return value;
}

void check(const learn::StateDict& average) {
  for (const learn::NamedTensor& named : average.tensors()) {
    if (named.name == "bool") {
      const auto* bytes = static_cast<const std::uint8_t*>(named.tensor.data_ptr());
      for (std::int64_t i = 0; i < named.tensor.numel(); ++i) fuzz::require(bytes[i] <= 1, "a boolean is 0 or 1");
    }
    if (named.name != "f64") continue;
    const double* values = named.tensor.data_ptr<double>();
    for (std::int64_t i = 0; i < named.tensor.numel(); ++i) {
      fuzz::require(std::abs(values[i]) <= 0x1p24, "an average is within the bounds of its values");
    }
  }
}

}  // namespace

/// The input is updates one behind the other; each comes in two blocks.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t examples = 3;
  const std::size_t num_bytes = schema().num_bytes();
  const auto num_updates = static_cast<std::int64_t>(size / num_bytes);
  if (num_updates == 0 || num_updates > 8) return 0;
  learn::WeightedMean aggregator(schema());
  // Cut where no element is: behind the first, of eight bytes.
  constexpr std::size_t cut = 8;
  for (std::int64_t i = 0; i < num_updates; ++i) {
    const auto update = fuzz::bytes_of(data, size).subspan(static_cast<std::size_t>(i) * num_bytes, num_bytes);
    if (aggregator.blocks().violation_in(0, update.first(cut)) ||
        aggregator.blocks().violation_in(cut, update.subspan(cut)))
      continue;
    aggregator.fold(cut, update.subspan(cut), examples);
    aggregator.fold(0, update.first(cut), examples);
    aggregator.accept(examples);
  }
  if (aggregator.accepted_examples() > 0) check(std::move(aggregator).report());
  return 0;
}
