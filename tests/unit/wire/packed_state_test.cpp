#include "shared/wire/packed_state.hpp"

#include <cstring>

#include <doctest/doctest.h>
#include <torch/types.h>

namespace headstart::wire {
namespace {

learn::StateDict mixed_state() {
  return learn::StateDict({{"b.weight", torch::arange(6, torch::kFloat).reshape({2, 3})},
                           {"a.bias", torch::tensor({1.5F, -2.5F})},
                           {"count", torch::tensor(7, torch::kLong)},
                           {"mask", torch::tensor({true, false, true})}});
}

TEST_CASE("a packed state is its tensors' bytes in canonical order, without padding") {
  const PackedState packed(mixed_state());
  CHECK(packed.bytes().size() == 8 + 2 * 4 + 6 * 4 + 3);
  std::int64_t count = 0;
  std::memcpy(&count, packed.bytes().data(), 8);
  CHECK(count == 7);
  float first_bias = 0;
  std::memcpy(&first_bias, packed.bytes().data() + 8, 4);
  CHECK(first_bias == 1.5F);
  CHECK(learn::bitwise_equal(packed.state(), mixed_state()));
}

TEST_CASE("tensors of a packed state view its bytes and keep them alive") {
  learn::Tensor tensor;
  {
    PackedState packed(mixed_state().schema());
    std::memcpy(packed.bytes().data(), PackedState(mixed_state()).bytes().data(), packed.bytes().size());
    tensor = packed.state().at("b.weight");
  }
  CHECK(at::equal(tensor, mixed_state().at("b.weight")));
}

TEST_CASE("copies share the block, a state made from another does not") {
  PackedState one(mixed_state());
  PackedState shared = one;
  const PackedState separate(one.state());
  shared.bytes()[8] ^= std::byte{1};
  CHECK(one.digest() == shared.digest());
  CHECK(one.digest() != separate.digest());
}

}  // namespace
}  // namespace headstart::wire
