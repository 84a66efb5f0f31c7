#include "shared/learn/core/state.hpp"

#include <cmath>
#include <set>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/parts.hpp"

namespace headstart::learn {

namespace {

const Schema example(
    {{"b", c10::kFloat, {2, 3}}, {"a", c10::kLong, {}}, {"c", c10::kBool, {5}}, {"aa", c10::kFloat, {4}}});

StateDict state_of_values(double first) {
  return StateDict({{"w", torch::tensor({first, 2.0}, torch::kFloat)}, {"count", torch::tensor(3, torch::kLong)}});
}

}  // namespace

TEST_CASE("a schema stands in canonical order: large elements first, then by name") {
  std::vector<std::string> names;
  for (const TensorSpec& spec : example.tensors()) names.push_back(spec.name);
  CHECK(names == std::vector<std::string>{"a", "aa", "b", "c"});
  CHECK(example.num_bytes() == 8 + 4 * 4 + 4 * 6 + 5);
}

TEST_CASE("sizes beyond 32 bits are counted") {
  const Schema schema({{"w", c10::kFloat, {70'000, 70'000}}});
  CHECK(schema.num_bytes() == 19'600'000'000ULL);
}

TEST_CASE("a name twice is refused, even with different types") {
  CHECK_THROWS_WITH_AS(Schema({{"w", c10::kFloat, {1}}, {"b", c10::kFloat, {1}}, {"w", c10::kLong, {1}}}),
                       doctest::Contains("'w'"), Error);
  CHECK_THROWS_AS(StateDict({{"w", torch::zeros(1)}, {"w", torch::zeros(1, torch::kLong)}}), Error);
}

TEST_CASE("types that no file can hold are refused by name") {
  CHECK_THROWS_WITH_AS(Schema({{"w", c10::kComplexFloat, {1}}}), doctest::Contains("tensor 'w'"), Error);
  CHECK_THROWS_AS(dtype_name(c10::kQInt8), Error);
  CHECK_FALSE(dtype_of("F8").has_value());
}

TEST_CASE("type names and types map to each other") {
  for (const auto* name : {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}) {
    const auto dtype = dtype_of(name);
    REQUIRE(dtype.has_value());
    CHECK(dtype_name(*dtype) == name);
  }
}

TEST_CASE("every change of a schema changes its digest and is told in a sentence") {
  const auto with = [](std::string name, c10::ScalarType dtype, std::vector<std::int64_t> shape) {
    return Schema({{"fc.weight", dtype, std::move(shape)}, {std::move(name), c10::kLong, {}}});
  };
  const Schema base = with("n", c10::kFloat, {10, 64});
  const std::vector<std::pair<Schema, std::string>> others = {
      {with("n", c10::kFloat, {100, 64}), "tensor 'fc.weight': expected float32 [10, 64], got float32 [100, 64]"},
      {with("n", c10::kFloat, {640}), "tensor 'fc.weight': expected float32 [10, 64], got float32 [640]"},
      {with("n", c10::kDouble, {10, 64}), "tensor 'fc.weight': expected float32 [10, 64], got float64 [10, 64]"},
      {with("m", c10::kFloat, {10, 64}), "tensor 'n': expected int64 [], got none"},
      {Schema({base.tensors()[0]}), "tensor 'fc.weight': expected float32 [10, 64], got none"},
      {Schema({base.tensors()[0], base.tensors()[1], {"x", c10::kBool, {1}}}),
       "tensor 'x': expected none of that name, got bool [1]"},
  };
  std::set<std::string> digests{base.digest()};
  for (const auto& [other, sentence] : others) {
    CHECK(other.difference_from(base) == sentence);
    CHECK(digests.insert(other.digest()).second);
    CHECK_FALSE(other == base);
  }
  CHECK_FALSE(base.difference_from(base).has_value());
}

TEST_CASE("the digest does not depend on the order of declaration") {
  const Schema turned(
      {{"aa", c10::kFloat, {4}}, {"c", c10::kBool, {5}}, {"a", c10::kLong, {}}, {"b", c10::kFloat, {2, 3}}});
  CHECK(turned.digest() == example.digest());
}

TEST_CASE("a state holds contiguous tensors without gradient") {
  const Tensor weight = torch::arange(6, torch::kFloat).reshape({2, 3}).requires_grad_();
  const StateDict state({{"w", weight.t()}});
  CHECK(state.at("w").is_contiguous());
  CHECK_FALSE(state.at("w").requires_grad());
  CHECK(state.at("w").equal(weight.detach().t()));
  CHECK_THROWS_WITH_AS((void)state.at("v"), doctest::Contains("tensor 'v'"), Error);
}

TEST_CASE("copies share memory, clones do not") {
  const StateDict original = state_of_values(1);
  const StateDict copy = original;
  const StateDict clone = original.clone();
  original.at("w").fill_(7);
  CHECK(bitwise_equal(original, copy));
  CHECK_FALSE(bitwise_equal(original, clone));
}

TEST_CASE("equality is of bits") {
  CHECK(bitwise_equal(state_of_values(1), state_of_values(1)));
  CHECK(bitwise_equal(state_of_values(std::nan("")), state_of_values(std::nan(""))));
  CHECK_FALSE(bitwise_equal(state_of_values(0.0), state_of_values(-0.0)));
  CHECK_FALSE(bitwise_equal(state_of_values(1), StateDict()));
}

TEST_CASE("empty() has the schema it is asked for") {
  CHECK(StateDict::empty(example).schema() == example);
  CHECK(StateDict().is_empty());
}

TEST_CASE("roles: what is trained is a parameter, other floats are buffers, and bytes mean the same without roles") {
  const Schema known(example.tensors(), {"b"});
  const auto role = [&known](std::size_t i) { return known.role_of(known.tensors()[i]); };
  CHECK(role(0) == Role::integer);    // a
  CHECK(role(1) == Role::buffer);     // aa
  CHECK(role(2) == Role::parameter);  // b
  CHECK(role(3) == Role::integer);    // c
  CHECK(example.role_of(example.tensors()[1]) == Role::parameter);
  CHECK(known == example);
  CHECK(known.digest() == example.digest());
}

TEST_CASE("parts beside a model join it in one state and come apart again") {
  const StateDict model = state_of_values(1);
  const Parts parts = {{"control", state_of_values(2)}, {"head", StateDict({{"w", torch::ones(3)}})}};
  const StateDict all = joined(model, parts);
  CHECK(all.tensors().size() == 5);
  CHECK(all.at("control/w")[0].item<double>() == 2);
  const PartSchemas schemas = {{"control", parts.at("control").schema()}, {"head", parts.at("head").schema()}};
  CHECK(all.schema() == joined(model.schema(), schemas));
  const ModelWithParts apart = split(all, schemas);
  CHECK(bitwise_equal(apart.model, model));
  for (const auto& [name, part] : parts) CHECK(bitwise_equal(apart.parts.at(name), part));
  CHECK(bitwise_equal(joined(model, {}), model));
  // What belongs to a part is no parameter of the model.
  const Schema roles = joined(Schema(model.schema().tensors(), {"w"}), schemas);
  for (const TensorSpec& spec : roles.tensors()) {
    CHECK((roles.role_of(spec) == Role::parameter) == (spec.name == "w"));
  }
}

TEST_CASE("a part that is missing, has a tensor too many, or is the model's name: one sentence") {
  const StateDict model = state_of_values(1);
  const PartSchemas schemas = {{"control", model.schema()}};
  CHECK_THROWS_WITH_AS(split(model, schemas), "part 'control': tensor 'count': expected int64 [], got none", Error);
  const StateDict more = joined(
      model, {{"control", StateDict({{"w", torch::ones(2)}, {"count", torch::tensor(3)}, {"x", torch::ones(1)}})}});
  CHECK_THROWS_WITH_AS(split(more, schemas), doctest::Contains("part 'control': tensor 'x'"), Error);
  // The model's own check names what stands under no part's name.
  CHECK(split(joined(model, {{"contrul", model}, {"control", model}}), schemas)
            .model.schema()
            .difference_from(model.schema()) != std::nullopt);
  CHECK_THROWS_WITH_AS(joined(StateDict({{"control/w", torch::ones(1)}}), {{"control", model}}),
                       doctest::Contains("tensor 'control/w' of the model is named as one of the part 'control'"),
                       Error);
}

}  // namespace headstart::learn
