// Distillation from nine teachers with cached logits against recomputing the teachers for every batch.
//   distill_bench SAMPLES EPOCHS REPEATS     prints "cached recomputed ratio" in seconds, a line a repeat
#include <chrono>
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
    // The same students to rounding, or the comparison means nothing.
    for (std::size_t i = 0; i < one.tensors().size(); ++i) {
      if (!at::allclose(one.tensors()[i].tensor, two.tensors()[i].tensor, 1e-2, 1e-3))
        return std::cerr << "different students\n", 1;
    }
    std::cout << fast << ' ' << slow << ' ' << slow / fast << std::endl;
  }
}
