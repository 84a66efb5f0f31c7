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

TEST_CASE("a state in one block is packed without a copy, any other is copied") {
  const learn::StateDict block = PackedState(mixed_state()).state();
  PackedState same = PackedState::of(block);
  CHECK(same.bytes().data() == block.tensors().front().tensor.data_ptr());
  CHECK(same.bytes().size() == block.schema().num_bytes());
  const learn::StateDict apart = mixed_state();
  PackedState copy = PackedState::of(apart);
  CHECK(copy.bytes().data() != apart.tensors().front().tensor.data_ptr());
  CHECK(copy.digest() == same.digest());
}

TEST_CASE("a state without elements at its beginning is packed from the first element on") {
  const learn::StateDict state(
      {{"a", torch::empty({0}, torch::kDouble)}, {"b", torch::tensor({1.5F, 2.5F})}, {"c", torch::empty({0, 3})}});
  PackedState packed(state);
  CHECK(packed.bytes().size() == 8);
  float first = 0;
  std::memcpy(&first, packed.bytes().data(), 4);
  CHECK(first == 1.5F);
  PackedState same = PackedState::of(packed.state());
  CHECK(same.bytes().data() == packed.bytes().data());
}

TEST_CASE("the memory of a spent state is used again where nobody refers to it, and never else") {
  const auto address_after = [](PackedState spent, const learn::Schema& schema) {
    return PackedState::in_place_of(std::move(spent), schema).bytes().data();
  };
  const learn::Schema schema = mixed_state().schema();
  PackedState alone(mixed_state());
  const std::byte* const address = alone.bytes().data();
  PackedState next = PackedState::in_place_of(std::move(alone), schema);
  CHECK(next.bytes().data() == address);

  const PackedState copy = next;
  CHECK(address_after(next, schema) != address);
  CHECK(learn::bitwise_equal(copy.state(), mixed_state()));

  PackedState viewed(mixed_state());
  const learn::Tensor view = viewed.state().at("b.weight").view({6}).slice(0, 2);
  const std::byte* const viewed_address = viewed.bytes().data();
  CHECK(address_after(std::move(viewed), schema) != viewed_address);
  CHECK(view[0].item<float>() == 2);

  PackedState other(mixed_state());
  const learn::Schema shorter({{"b.weight", c10::ScalarType::Float, {2, 3}}});
  CHECK(PackedState::in_place_of(std::move(other), shorter).bytes().size() == 24);
}

}  // namespace
}  // namespace headstart::wire
