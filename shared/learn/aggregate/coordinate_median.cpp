#include "shared/learn/aggregate/coordinate_median.hpp"

#include <memory>

#include "shared/learn/aggregate/kernels.hpp"

namespace headstart::learn {

using namespace kernels;

namespace {

constexpr std::uint64_t block_bytes = std::uint64_t{1} << 20;

double middle_of(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

}  // namespace

CoordinateMedian::CoordinateMedian(StateDict origin) : Aggregator(origin.schema()), origin_(std::move(origin)) {}

void CoordinateMedian::accept(StoredUpdate& update, const Contribution&) {
  const std::scoped_lock lock(mutex_);
  updates_.push_back(&update);
}

StateDict CoordinateMedian::report() && {
  if (std::ssize(updates_) < min_updates) {
    throw Error(Errc::run_failed, "the median takes " + std::to_string(min_updates) + " updates at least; " +
                                      std::to_string(updates_.size()) + " were accepted");
  }
  const StateDict result = origin_.clone();
  std::vector<std::vector<std::byte>> blocks_of_updates(updates_.size(), std::vector<std::byte>(block_bytes));
  std::vector<double> values(updates_.size());
  const std::uint64_t num_bytes = blocks().schema().num_bytes();
  for (std::uint64_t offset = 0; offset < num_bytes; offset += block_bytes) {
    const auto size = static_cast<std::size_t>(std::min(block_bytes, num_bytes - offset));
    for (std::size_t i = 0; i < updates_.size(); ++i) {
      updates_[i]->read(offset, std::span(blocks_of_updates[i]).first(size));
    }
    const std::span<const std::byte> first_block = std::span(blocks_of_updates[0]).first(size);
    blocks().visit(offset, first_block,
                   [&](std::size_t tensor, std::uint64_t first, const std::byte* data, std::size_t count) {
                     const Tensor& target = result.tensors()[tensor].tensor;
                     if (!c10::isFloatingType(target.scalar_type())) return true;
                     const auto inside = static_cast<std::size_t>(data - first_block.data());
                     with_floating_type(target.scalar_type(), [&](auto zero) {
                       using T = decltype(zero);
                       T* const out = static_cast<T*>(target.data_ptr()) + first;
                       for (std::size_t k = 0; k < count; ++k) {
                         for (std::size_t i = 0; i < values.size(); ++i) {
                           values[i] = widened(element<T>(blocks_of_updates[i].data() + inside, k));
                         }
                         const double middle = middle_of(values);
                         if constexpr (std::is_same_v<T, double>) {
                           out[k] = middle;
                         } else {
                           out[k] = static_cast<float>(middle);
                         }
                       }
                     });
                     return true;
                   });
  }
  return result;
}

}  // namespace headstart::learn
