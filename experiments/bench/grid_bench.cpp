// A grid of 55 settings over cached teacher logits against as many separate distillations that recompute the teachers.
//   grid_bench TEACHERS SAMPLES EPOCHS REPEATS     prints "grid separate ratio" in seconds, a line a repeat
#include <cstdlib>
#include <iostream>

#include <torch/types.h>

#include "experiments/bench/recomputed_teachers.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/learn/tune/tune.hpp"

int main(int argc, char** argv) {
  using namespace headstart;
  if (argc != 5) return std::cerr << "usage: grid_bench TEACHERS SAMPLES EPOCHS REPEATS\n", 2;
  learn::use_threads(1);
  const learn::KeepFreedMemory keep_freed_memory;
  const std::int64_t num_teachers = std::atoll(argv[1]);
  const std::int64_t num_samples = std::atoll(argv[2]);
  const learn::ModelSpec spec{.channels = {8, 16}, .hidden = 64};
  const learn::Samples transfer{torch::randn({num_samples, 1, 28, 28}),
                                torch::randint(10, {num_samples}, torch::kLong)};
  const learn::DistillOptions options{.epochs = std::atoll(argv[3])};
  const bench::Teachers teachers = bench::make_teachers(num_teachers, spec);
  const auto make_student = [&spec] { return learn::make_model(spec, {}, Seed(99)); };
  for (int repeat = 0; repeat < std::atoi(argv[4]); ++repeat) {
    learn::TuneResult found;
    const double fast = bench::seconds_of([&] {
      const learn::Tensor logits = bench::logits_of_all(teachers, transfer.x);
      const learn::Tensor weights = learn::equal_weights(num_teachers, 10);
      const learn::TuneProblem problem{
          .make_student = make_student,
          .transfer = transfer,
          .guidance =
              [&](double temperature) {
                learn::DistillOptions at = options;
                at.temperature = temperature;
                return learn::guidance(logits, weights, at);
              },
          .options = options,
          .seed = Seed(5),
          .rate = [&transfer](learn::Model& model) { return learn::evaluate(model, transfer, 10); }};
      found = learn::tune(*learn::grid_search({}, options.epochs, true), problem);
    });
    std::unique_ptr<learn::Model> same;
    const double slow = bench::seconds_of([&] {
      for (const learn::TrialRecord& trial : found.trials) {
        learn::DistillOptions each = options;
        each.temperature = trial.setting.temperature;
        each.alpha = trial.setting.alpha;
        auto student = make_student();
        bench::distil_recomputed(*student, teachers, transfer, each, Seed(5));
        (void)learn::evaluate(*student, transfer, 10);
        if (trial.setting == found.setting) same = std::move(student);
      }
    });
    const double apart = bench::distance_ratio(make_student()->state(), found.student->state(), same->state());
    if (found.trials.size() != 55 || apart > 0.05) {
      return std::cerr << "different students: apart by " << apart << " of the way they went\n", 1;
    }
    std::cout << fast << ' ' << slow << ' ' << fast / slow << std::endl;
  }
}
