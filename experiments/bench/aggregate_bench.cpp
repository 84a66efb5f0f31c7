// What one update of a ResNet-18 costs the server: checking its values, measuring its norm and adding it to the sum,
// in blocks of 1 MiB.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include "shared/learn/aggregate/weighted_mean.hpp"
#include "shared/learn/models/model.hpp"

namespace {

using namespace headstart;
using namespace headstart::learn;

constexpr std::size_t block_bytes = 1 << 20;

StateDict resnet18(std::uint64_t seed) {
  return make_model({.name = "resnet18"}, {.shape = {3, 32, 32}, .num_classes = 10}, Seed(seed))->state();
}

std::vector<std::byte> raw_bytes(const StateDict& state) {
  std::vector<std::byte> bytes;
  for (const NamedTensor& named : state.tensors()) {
    const auto* data = static_cast<const std::byte*>(named.tensor.data_ptr());
    bytes.insert(bytes.end(), data, data + named.tensor.nbytes());
  }
  return bytes;
}

template <class Action>
void for_each_block(std::span<const std::byte> bytes, Action&& action) {
  for (std::size_t offset = 0; offset < bytes.size(); offset += block_bytes) {
    action(offset, bytes.subspan(offset, std::min(block_bytes, bytes.size() - offset)));
  }
}

void count_bytes(benchmark::State& state, std::size_t bytes) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

void validate(benchmark::State& state) {
  const StateDict update = resnet18(1);
  const std::vector<std::byte> bytes = raw_bytes(update);
  const WeightedMean aggregator(update.schema());
  for (auto _ : state) {
    for_each_block(bytes, [&](std::size_t offset, auto block) {
      if (aggregator.blocks().violation_in(offset, block)) state.SkipWithError("refused");
    });
  }
  count_bytes(state, bytes.size());
}

void distance(benchmark::State& state) {
  const StateDict update = resnet18(1);
  const std::vector<std::byte> bytes = raw_bytes(update);
  const StateDict model = resnet18(2);
  const WeightedMean aggregator(update.schema());
  const auto origin = aggregator.blocks().origin_in(model);
  for (auto _ : state) {
    double sum = 0;
    for_each_block(bytes, [&](std::size_t offset, auto block) {
      sum += aggregator.blocks().squared_distance(offset, block, origin);
    });
    benchmark::DoNotOptimize(sum);
  }
  count_bytes(state, bytes.size());
}

void fold(benchmark::State& state) {
  const StateDict update = resnet18(1);
  const std::vector<std::byte> bytes = raw_bytes(update);
  WeightedMean aggregator(update.schema());
  for (auto _ : state) {
    for_each_block(bytes, [&](std::size_t offset, auto block) { aggregator.fold(offset, block, 600); });
  }
  count_bytes(state, bytes.size());
}

/// A round of ten clients from the first allocation to the mean.
void round_of_ten(benchmark::State& state) {
  const StateDict update = resnet18(1);
  for (auto _ : state) {
    WeightedMean aggregator(update.schema());
    for (int client = 0; client < 10; ++client) {
      if (add_update(aggregator, update, 600)) state.SkipWithError("refused");
    }
    benchmark::DoNotOptimize(std::move(aggregator).report());
  }
  count_bytes(state, 10 * update.schema().num_bytes());
}

void verify_mean_of_two() {
  const StateDict a = resnet18(1);
  const StateDict b = resnet18(2);
  WeightedMean aggregator(a.schema());
  if (!add_update(aggregator, a, 1) && !add_update(aggregator, b, 3)) {
    const StateDict mean = std::move(aggregator).report();
    if (at::allclose(mean.at("fc.weight"), a.at("fc.weight") * 0.25 + b.at("fc.weight") * 0.75)) return;
  }
  std::fputs("aggregate_bench: the mean of two updates is wrong\n", stderr);
  std::exit(1);
}

BENCHMARK(validate)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(distance)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(fold)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(round_of_ten)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace

int main(int argc, char** argv) {
  verify_mean_of_two();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
