// Distillation from nine teachers with cached logits against recomputing the teachers for every batch.
//   distill_bench SAMPLES EPOCHS REPEATS     prints "cached recomputed ratio" in seconds, a line a repeat
#include <cstdlib>
#include <iostream>

#include <torch/types.h>

#include "experiments/bench/recomputed_teachers.hpp"
#include "shared/learn/core/platform.hpp"

int main(int argc, char** argv) {
  using namespace headstart;
  if (argc != 4) return std::cerr << "usage: distill_bench SAMPLES EPOCHS REPEATS\n", 2;
  learn::use_threads(1);
  const learn::KeepFreedMemory keep_freed_memory;
  const learn::Samples transfer{torch::randn({std::atoll(argv[1]), 1, 28, 28}), {}};
  const learn::DistillOptions options{.epochs = std::atoll(argv[2])};
  constexpr std::int64_t num_teachers = 9;
  const bench::Teachers teachers = bench::make_teachers(num_teachers, {});
  const learn::StateDict start = learn::make_model({}, {}, Seed(99))->state();
  for (int repeat = 0; repeat < std::atoi(argv[3]); ++repeat) {
    const auto one = learn::make_model({}, {}, Seed(99));
    const auto two = learn::make_model({}, {}, Seed(99));
    const double fast = bench::seconds_of([&] {
      const learn::Guidance guidance =
          learn::guidance(bench::logits_of_all(teachers, transfer.x), learn::equal_weights(num_teachers, 10), options);
      learn::distill(*one, transfer, guidance, options, Seed(5));
    });
    const double slow =
        bench::seconds_of([&] { bench::distil_recomputed(*two, teachers, transfer, options, Seed(5)); });
    // The same students, or the comparison means nothing: they went the same way, to what rounding makes of it (a BLAS
    // rounds batches of another size differently, and Adam enlarges it).
    const double apart = bench::distance_ratio(start, one->state(), two->state());
    if (apart > 0.05) return std::cerr << "different students: apart by " << apart << " of the way they went\n", 1;
    std::cout << fast << ' ' << slow << ' ' << slow / fast << std::endl;
  }
}
