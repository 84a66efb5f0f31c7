#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"
#include "shared/learn/core/random.hpp"
#include "tests/support/throws.hpp"

using namespace headstart;
using namespace headstart::learn;

namespace {

using Bytes = std::vector<std::byte>;

struct Update {
  StateDict state;
  std::int64_t num_examples;
};

Bytes raw_bytes(const StateDict& state) {
  Bytes bytes;
  for (const NamedTensor& named : state.tensors()) {
    const auto* data = static_cast<const std::byte*>(named.tensor.data_ptr());
    bytes.insert(bytes.end(), data, data + named.tensor.nbytes());
  }
  return bytes;
}

/// A state of several types and odd sizes; magnitudes from 1e-6 to 1e6, so that both ways of rounding are taken.
StateDict random_state(std::uint64_t seed) {
  auto generator = learn::generator(Seed(seed).child("state"));
  const auto spread = [&](std::vector<std::int64_t> shape) {
    const Tensor exponent = torch::rand(shape, generator, torch::kFloat64) * 12 - 6;
    return torch::randn(shape, generator, torch::kFloat64) * torch::pow(10.0, exponent);
  };
  return StateDict({{"conv.weight", spread({7, 3, 5, 5}).to(torch::kFloat32)},
                    {"conv.bias", spread({4099}).to(torch::kFloat32)},
                    {"double", spread({33})},
                    {"empty", torch::zeros({0, 3})},
                    {"half", torch::randn({130}, generator).to(torch::kFloat16)},
                    {"brain", spread({61}).to(torch::kBFloat16)},
                    {"norm.num_batches_tracked", torch::randint(-5, 1000, {}, generator, torch::kInt64)},
                    {"bytes", torch::randint(0, 256, {17}, generator, torch::kUInt8)},
                    {"signed", torch::randint(-128, 128, {5}, generator, torch::kInt8)},
                    {"mask", torch::randint(0, 2, {13}, generator, torch::kInt64).to(torch::kBool)}});
}

std::vector<Update> random_updates(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Update> updates;
  for (std::uint64_t client = 0; client < 5; ++client) {
    updates.push_back({random_state(seed * 100 + client), static_cast<std::int64_t>(random() % 900 + 1)});
  }
  return updates;
}

StateDict average(const std::vector<Update>& updates) {
  WeightedMean aggregator(updates.front().state.schema());
  for (const Update& update : updates) {
    REQUIRE_FALSE(add_update(aggregator, update.state, update.num_examples).has_value());
  }
  return std::move(aggregator).report();
}

double largest_difference(const Tensor& a, const Tensor& b) {
  return (a.to(torch::kFloat64) - b.to(torch::kFloat64)).abs().max().item<double>();
}

StateDict one_tensor(const Tensor& tensor, const std::string& name = "w") { return StateDict({{name, tensor}}); }

}  // namespace

TEST_CASE("WeightedMean: the weighted mean in float64 within 2^-30") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    auto generator = learn::generator(Seed(seed));
    std::vector<Update> updates;
    const std::vector<std::int64_t> examples = {1, 17, 400, 3, 250};
    Tensor expected = torch::zeros({3001}, torch::kFloat64);
    for (const std::int64_t n : examples) {
      const Tensor w = torch::randn({3001}, generator, torch::kFloat64) * 10;
      expected += w * static_cast<double>(n);
      updates.push_back({one_tensor(w), n});
    }
    const StateDict mean = average(updates);
    CHECK(largest_difference(mean.at("w"), expected / 671) < std::ldexp(1, -30));
  }
}

TEST_CASE("WeightedMean: a single client gets its own float32 values back") {
  auto generator = learn::generator(Seed(3));
  const Tensor w = torch::randn({5000}, generator).clamp_(-100, 100);
  const Tensor exact = torch::where(w.abs() < 0x1p-12, torch::zeros_like(w), w);
  for (const std::int64_t n : {std::int64_t{1}, std::int64_t{41}, std::int64_t{1} << 40}) {
    CHECK(torch::equal(average({{one_tensor(exact), n}}).at("w"), exact));
  }
}

TEST_CASE("WeightedMean: any order of clients gives the same bits") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<Update> updates = random_updates(seed);
    const StateDict reference = average(updates);
    std::mt19937_64 random(seed);
    for (int order = 0; order < 5; ++order) {
      std::shuffle(updates.begin(), updates.end(), random);
      CHECK(bitwise_equal(average(updates), reference));
    }
  }
}

namespace {

/// Cuts a state at random element boundaries, some blocks spanning tensors, and shuffles the blocks.
std::vector<std::pair<std::uint64_t, std::uint64_t>> random_blocks(const Schema& schema, std::mt19937_64& random,
                                                                   std::uint64_t one_in) {
  std::vector<std::uint64_t> cuts = {0};
  std::uint64_t offset = 0;
  for (const TensorSpec& spec : schema.tensors()) {
    const std::uint64_t width = c10::elementSize(spec.dtype);
    for (std::uint64_t i = 0; i < spec.num_elements(); ++i, offset += width) {
      if (offset > cuts.back() && random() % one_in == 0) cuts.push_back(offset);
    }
  }
  cuts.push_back(offset);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> blocks;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) blocks.emplace_back(cuts[i], cuts[i + 1] - cuts[i]);
  std::shuffle(blocks.begin(), blocks.end(), random);
  return blocks;
}

}  // namespace

TEST_CASE("WeightedMean: any cut into blocks, at any address, gives the same bits") {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const std::vector<Update> updates = random_updates(seed);
    const StateDict reference = average(updates);
    // With blocks of one element each value is rounded by its own size, in long blocks by the largest among them:
    // equality shows that both ways of rounding agree.
    for (const std::uint64_t one_in : {1, 2, 50, 3000, 1'000'000}) {
      CAPTURE(seed);
      CAPTURE(one_in);
      std::mt19937_64 random(seed * 31 + one_in);
      WeightedMean aggregator(updates.front().state.schema());
      for (const Update& update : updates) {
        Bytes shifted(3);
        const Bytes bytes = raw_bytes(update.state);
        shifted.insert(shifted.end(), bytes.begin(), bytes.end());
        for (const auto& [offset, size] : random_blocks(aggregator.blocks().schema(), random, one_in)) {
          const std::span<const std::byte> block(shifted.data() + 3 + offset, size);
          REQUIRE_FALSE(aggregator.blocks().violation_in(offset, block).has_value());
          aggregator.fold(offset, block, update.num_examples);
        }
        aggregator.accept(update.num_examples);
      }
      CHECK(bitwise_equal(std::move(aggregator).report(), reference));
    }
  }
}

TEST_CASE("WeightedMean: every way of rounding is rint, halves to even") {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> exponent(-40, 24);
  std::vector<double> values = {0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.0, -0.0};
  // In units of 2^-36, with one example.
  for (double& value : values) value *= 0x1p-36;
  for (int i = 0; i < 4000; ++i) {
    const double value = std::exp2(exponent(random));
    values.push_back(random() % 2 == 0 ? value : -value);
  }
  for (const double companion : {0.0, 0x1p14, 0x1p24}) {
    CAPTURE(companion);
    std::vector<double> all;
    for (const double value : values) all.insert(all.end(), {companion, value});
    for (const std::int64_t n : {std::int64_t{1}, std::int64_t{12345}, std::int64_t{1} << 20}) {
      const double scale = static_cast<double>(n) * 0x1p36;
      const StateDict mean = average({{one_tensor(torch::tensor(all, torch::kFloat64)), n}});
      const auto* got = mean.at("w").data_ptr<double>();
      for (std::size_t i = 0; i < all.size(); ++i) REQUIRE(got[i] == std::rint(all[i] * scale) / scale);
    }
  }
}

namespace {

__extension__ using Wide = __int128;

/// What the aggregator promises of float64 tensors, in integers that hold any sum.
std::vector<double> exact_mean(const std::vector<Update>& updates) {
  std::vector<Wide> sums(static_cast<std::size_t>(updates.front().state.at("w").numel()));
  std::int64_t examples = 0;
  for (const auto& [state, n] : updates) {
    const auto* values = state.at("w").data_ptr<double>();
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] += static_cast<Wide>(std::rint(values[i] * (static_cast<double>(n) * 0x1p36)));
    }
    examples += n;
  }
  std::vector<double> mean;
  for (const Wide sum : sums) mean.push_back(static_cast<double>(sum) / (static_cast<double>(examples) * 0x1p36));
  return mean;
}

Tensor values_between(double smallest_exponent, double largest_exponent, std::int64_t count, std::uint64_t seed) {
  auto generator = learn::generator(Seed(seed));
  const Tensor exponent =
      torch::rand({count}, generator, torch::kFloat64) * (largest_exponent - smallest_exponent) + smallest_exponent;
  return torch::pow(2.0, exponent) * (torch::randint(0, 2, {count}, generator, torch::kFloat64) * 2 - 1);
}

}  // namespace

TEST_CASE("WeightedMean: the sums are exact whatever the counts, the magnitudes and the order") {
  std::mt19937_64 random(17);
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    CAPTURE(seed);
    std::vector<Update> updates;
    for (std::uint64_t client = 0; client < 12; ++client) {
      // Stretches of moderate values beside others of all magnitudes up to the bound.
      const std::uint64_t stream = seed * 100 + client;
      const Tensor w = torch::cat({values_between(-30, 1, 5000, stream), values_between(-40, 24, 3001, stream + 50)});
      updates.push_back(
          {one_tensor(w), static_cast<std::int64_t>(std::exp2(static_cast<double>(random() % 4001) * 0.01))});
    }
    const std::vector<double> expected = exact_mean(updates);
    for (int order = 0; order < 4; ++order) {
      std::shuffle(updates.begin(), updates.end(), random);
      const StateDict mean = average(updates);
      const auto* got = mean.at("w").data_ptr<double>();
      for (std::size_t i = 0; i < expected.size(); ++i) REQUIRE(got[i] == expected[i]);
    }
  }
}

TEST_CASE("WeightedMean: float32 precision whatever share of all examples the accepted ones are") {
  const Tensor small = values_between(-12, 4, 3000, 5).to(torch::kFloat32);
  const Tensor large = values_between(-12, 4, 3000, 6).to(torch::kFloat32);
  for (int power = 0; power <= 40; ++power) {
    CAPTURE(power);
    const std::int64_t n = std::int64_t{1} << power;
    // Of the two silos one is lost: what the other trained is the mean, to the last bit.
    CHECK(torch::equal(average({{one_tensor(small), 1}}).at("w"), small));
    CHECK(torch::equal(average({{one_tensor(large), n}}).at("w"), large));
    // Both are accepted: half a unit of float32's last place, and of 2^-36.
    const StateDict mean = average({{one_tensor(small), 3}, {one_tensor(large), n}});
    const float* got = mean.at("w").data_ptr<float>();
    for (std::int64_t i = 0; i < small.numel(); ++i) {
      const long double a = small.data_ptr<float>()[i];
      const long double b = large.data_ptr<float>()[i];
      const long double expected = (3 * a + static_cast<long double>(n) * b) / (3 + static_cast<long double>(n));
      REQUIRE(std::abs(static_cast<double>(got[i] - expected)) <=
              std::abs(static_cast<double>(expected)) * 0x1.00001p-24 + 0x1p-37);
    }
  }
}

TEST_CASE("WeightedMean: values at the bound 2^24 of every client neither overflow nor lose the mean") {
  const Tensor w = torch::tensor({0x1p24, -0x1p24, 0x1p24 - 1, 1.0});
  std::vector<Update> updates;
  for (std::int64_t n = 1; n <= 1000; ++n) updates.push_back({one_tensor(w), n});
  CHECK(torch::equal(average(updates).at("w"), w));
  for (Update& update : updates) update.num_examples = max_total_examples / 1000;
  CHECK(torch::equal(average(updates).at("w"), w));
}

TEST_CASE("WeightedMean: integers and booleans take the element-wise maximum of the accepted updates") {
  const auto state = [](std::vector<std::int64_t> counts, std::vector<std::int64_t> mask) {
    return StateDict({{"counts", torch::tensor(counts)},
                      {"bytes", torch::tensor(counts).abs().to(torch::kUInt8)},
                      {"small", torch::tensor(counts).to(torch::kInt16)},
                      {"mask", torch::tensor(mask).to(torch::kBool)}});
  };
  const StateDict mean = average({{state({-7, 4, -9}, {0, 1, 0}), 5}, {state({-3, 2, -30}, {1, 0, 0}), 90}});
  CHECK(torch::equal(mean.at("counts"), torch::tensor({-3, 4, -9}, torch::kInt64)));
  CHECK(torch::equal(mean.at("small"), torch::tensor({-3, 4, -9}, torch::kInt16)));
  CHECK(torch::equal(mean.at("bytes"), torch::tensor({7, 4, 30}, torch::kUInt8)));
  CHECK(torch::equal(mean.at("mask"), torch::tensor({1, 1, 0}, torch::kInt64).to(torch::kBool)));
}

TEST_CASE("WeightedMean: any byte but zero counts as true") {
  WeightedMean aggregator(one_tensor(torch::zeros({3}, torch::kBool)).schema());
  const Bytes bytes = {std::byte{2}, std::byte{0}, std::byte{255}};
  aggregator.fold(0, bytes, 1);
  aggregator.accept(1);
  const StateDict mask = std::move(aggregator).report();
  CHECK((raw_bytes(mask) == Bytes{std::byte{1}, std::byte{0}, std::byte{1}}));
}

TEST_CASE("WeightedMean: half and bfloat16 are averaged at full precision and rounded once") {
  for (const auto dtype : {torch::kFloat16, torch::kBFloat16}) {
    auto generator = learn::generator(Seed(5));
    const Tensor a = torch::randn({999}, generator).to(dtype);
    const Tensor b = torch::randn({999}, generator).to(dtype);
    const Tensor expected = (a.to(torch::kFloat64) + b.to(torch::kFloat64)) / 2;
    const Tensor mean = average({{one_tensor(a), 8}, {one_tensor(b), 8}}).at("w");
    CHECK((mean.scalar_type() == dtype));
    CHECK(torch::equal(mean, expected.to(torch::kFloat32).to(dtype)));
  }
}

TEST_CASE("WeightedMean: refuses what is not finite or above 2^24, by tensor and index, and keeps the sum") {
  struct Bad {
    double value;
    std::string word;
  };
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<Bad> bad = {{std::numeric_limits<double>::quiet_NaN(), "nan"},
                                {-std::numeric_limits<double>::quiet_NaN(), "nan"},
                                {inf, "inf"},
                                {-inf, "-inf"},
                                {0x1.000002p24, "16777218"},
                                {-0x1p30, "-1.07374182e+09"}};
  for (const auto dtype : {torch::kFloat32, torch::kFloat64}) {
    for (const std::int64_t index : {0, 1, 2047, 2048, 4999}) {
      for (const Bad& violation : bad) {
        CAPTURE(index);
        CAPTURE(violation.word);
        const StateDict good({{"first", torch::ones({3}, dtype)}, {"layer.weight", torch::ones({50, 100}, dtype)}});
        const StateDict broken = good.clone();
        broken.at("layer.weight").view({-1})[index] = violation.value;
        WeightedMean aggregator(good.schema());
        REQUIRE_FALSE(add_update(aggregator, good, 4).has_value());
        const auto refused = add_update(aggregator, broken, 12);
        REQUIRE(refused.has_value());
        CHECK(refused->find("tensor 'layer.weight'") != std::string::npos);
        CHECK(refused->find(violation.word + " at index " + std::to_string(index)) != std::string::npos);
        CHECK(aggregator.accepted_examples() == 4);
        CHECK(bitwise_equal(std::move(aggregator).report(), good));
      }
    }
  }
}

TEST_CASE("WeightedMean: half has no finite value above the bound, infinity and NaN are refused") {
  const WeightedMean aggregator(one_tensor(torch::zeros({2}, torch::kFloat16)).schema());
  const auto violation = [&](double value) {
    const StateDict state = one_tensor(torch::tensor({1.0, value}).to(torch::kFloat16));
    return aggregator.blocks().violation_in(0, raw_bytes(state));
  };
  CHECK_FALSE(violation(-65504).has_value());
  CHECK(violation(1e6).value().find("inf at index 1") != std::string::npos);
  CHECK(violation(std::nan("")).value().find("nan at index 1") != std::string::npos);
}

TEST_CASE("WeightedMean: the squared distance is of the floating-point values alone, in any cut into blocks") {
  const StateDict state = random_state(3);
  const StateDict origin = random_state(4);
  double expected = 0;
  for (std::size_t i = 0; i < state.tensors().size(); ++i) {
    const Tensor& a = state.tensors()[i].tensor;
    if (!a.is_floating_point()) continue;
    expected += (a.to(torch::kFloat64) - origin.tensors()[i].tensor.to(torch::kFloat64)).square().sum().item<double>();
  }
  const WeightedMean aggregator(state.schema());
  const Bytes bytes = raw_bytes(state);
  std::mt19937_64 random(5);
  const auto distance_from = [&](const StateBlocks::Origin& place, int one_in) {
    double sum = 0;
    for (const auto& [offset, size] : random_blocks(aggregator.blocks().schema(), random, one_in)) {
      sum += aggregator.blocks().squared_distance(offset, std::span(bytes).subspan(offset, size), place);
    }
    return sum;
  };
  const StateBlocks::Origin place = aggregator.blocks().origin_in(origin);
  for (const int one_in : {1, 50}) CHECK(distance_from(place, one_in) == doctest::Approx(expected).epsilon(1e-12));
  // A part beside the model has no origin, and does not count.
  const StateDict one({origin.tensors().front()});
  const Tensor& first = state.tensors().front().tensor;
  const double of_one =
      first.is_floating_point()
          ? (first.to(torch::kFloat64) - one.tensors().front().tensor.to(torch::kFloat64)).square().sum().item<double>()
          : 0;
  CHECK(distance_from(aggregator.blocks().origin_in(one), 50) == doctest::Approx(of_one).epsilon(1e-12));
}

TEST_CASE("WeightedMean: the first violation counts from the tensor's begin in any block") {
  const StateDict state({{"a", torch::zeros({10})}, {"b", torch::zeros({10})}});
  state.at("b")[7] = std::nan("");
  const Bytes bytes = raw_bytes(state);
  const WeightedMean aggregator(state.schema());
  CHECK(aggregator.blocks().violation_in(32, std::span(bytes).subspan(32)).value().find("'b' holds nan at index 7") !=
        std::string::npos);
  CHECK_FALSE(aggregator.blocks().violation_in(0, std::span(bytes).first(68)).has_value());
}

TEST_CASE("WeightedMean: an update of another schema is refused with the difference") {
  WeightedMean aggregator(one_tensor(torch::zeros({3})).schema());
  CHECK(add_update(aggregator, one_tensor(torch::zeros({4})), 5).value().find("tensor 'w'") != std::string::npos);
  CHECK(add_update(aggregator, one_tensor(torch::zeros({3}), "v"), 5).has_value());
  CHECK(aggregator.accepted_examples() == 0);
}

TEST_CASE("WeightedMean: nothing accepted is a failed round") {
  WeightedMean aggregator(one_tensor(torch::zeros({3})).schema());
  try {
    (void)std::move(aggregator).report();
    FAIL("a mean of nothing");
  } catch (const Error& error) {
    CHECK(error.code() == Errc::run_failed);
  }
}

TEST_CASE("WeightedMean: blocks and example counts that cannot be are bugs of the caller") {
  const Schema schema = one_tensor(torch::zeros({3})).schema();
  WeightedMean aggregator(schema);
  const Bytes bytes(16);
  CHECK(test::code_of([&] { aggregator.fold(0, bytes, 1); }) == Errc::internal);
  CHECK(test::code_of([&] { aggregator.fold(~std::uint64_t{3}, bytes, 1); }) == Errc::internal);
  CHECK(test::code_of([&] { aggregator.fold(2, std::span(bytes).first(4), 1); }) == Errc::internal);
  CHECK(test::code_of([&] { aggregator.fold(4, std::span(bytes).first(3), 1); }) == Errc::internal);
  CHECK(test::code_of([&] { (void)aggregator.blocks().violation_in(12, std::span(bytes).first(4)); }) ==
        Errc::internal);
  CHECK(test::code_of([&] { aggregator.fold(0, std::span(bytes).first(4), 0); }) == Errc::internal);
  CHECK(test::code_of([&] { aggregator.fold(0, std::span(bytes).first(4), max_total_examples + 1); }) ==
        Errc::internal);
  aggregator.accept(7);
  CHECK(test::code_of([&] { aggregator.accept(max_total_examples - 6); }) == Errc::internal);
}
