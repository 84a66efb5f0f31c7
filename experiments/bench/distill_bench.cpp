// Distillation from nine teachers with cached logits against recomputing the teachers for every batch.
//   distill_bench SAMPLES EPOCHS REPEATS     prints "cached recomputed ratio" in seconds, a line a repeat
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>

#include <torch/torch.h>

#include "shared/learn/batches.hpp"
#include "shared/learn/distill.hpp"
#include "shared/learn/platform.hpp"

namespace {

using namespace headstart;
using learn::Tensor;

constexpr std::int64_t num_teachers = 9;

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double distance(const learn::StateDict& a, const learn::StateDict& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.tensors().size(); ++i) {
    sum += (a.tensors()[i].tensor - b.tensors()[i].tensor).square().sum().item<double>();
  }
  return std::sqrt(sum);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::cerr << "usage: distill_bench SAMPLES EPOCHS REPEATS\n", 2;
  learn::use_threads(1);
  const learn::KeepFreedMemory keep_freed_memory;
  const learn::Samples transfer{torch::randn({std::atoll(argv[1]), 1, 28, 28}), {}};
  learn::DistillOptions options{.epochs = std::atoll(argv[2])};
  const Tensor weights = learn::equal_weights(num_teachers, 10);
  std::vector<std::unique_ptr<learn::Model>> teachers;
  for (std::uint64_t k = 0; k < num_teachers; ++k) teachers.push_back(learn::make_model({}, {}, Seed(k)));

  const auto cached = [&] {
    std::vector<Tensor> logits;
    for (const auto& teacher : teachers) logits.push_back(learn::logits_of(*teacher, transfer.x));
    const auto student = learn::make_model({}, {}, Seed(99));
    learn::distill(*student, transfer, learn::soft_targets(torch::stack(logits), weights, 1), options, Seed(5));
    return student->state();
  };
  const auto recomputed = [&] {
    const auto student = learn::make_model({}, {}, Seed(99));
    student->set_training(true);
    for (const auto& teacher : teachers) teacher->set_training(false);
    learn::Optimizer optimizer(student->parameters(), options.optimizer);
    for (const Tensor& order : learn::epoch_orders(transfer.size(), options.epochs, Seed(5))) {
      for (const Tensor& indices : learn::batches_of(order, options.batch_size)) {
        const Tensor x = transfer.x.index_select(0, indices);
        Tensor targets;
        {
          const torch::NoGradGuard no_grad;
          std::vector<Tensor> logits;
          for (const auto& teacher : teachers) logits.push_back(teacher->forward(x));
          targets = learn::soft_targets(torch::stack(logits), weights, 1);
        }
        optimizer.zero_grad();
        learn::distillation_objective(student->forward(x), targets, std::nullopt, options).backward();
        optimizer.step();
      }
    }
    return student->state();
  };
  for (int repeat = 0; repeat < std::atoi(argv[3]); ++repeat) {
    learn::StateDict one;
    learn::StateDict two;
    const double fast = seconds_of([&] { one = cached(); });
    const double slow = seconds_of([&] { two = recomputed(); });
    // The same students, or the comparison means nothing: they went the same way, to what rounding makes of it (a BLAS
    // rounds batches of another size differently, and Adam enlarges it).
    const learn::StateDict start = learn::make_model({}, {}, Seed(99))->state();
    const double apart = distance(one, two) / distance(start, one);
    if (apart > 0.05) return std::cerr << "different students: apart by " << apart << " of the way they went\n", 1;
    std::cout << fast << ' ' << slow << ' ' << slow / fast << std::endl;
  }
}
