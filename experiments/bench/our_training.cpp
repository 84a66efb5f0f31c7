// Local training as a client does it, for comparison with floor_training.
//   our_training SAMPLES BATCH EPOCHS     prints images/s
#include <chrono>
#include <cstdlib>
#include <iostream>

#include <torch/types.h>

#include "shared/learn/core/platform.hpp"
#include "shared/learn/train/train.hpp"

int main(int argc, char** argv) {
  using namespace headstart;
  if (argc != 4) return std::cerr << "usage: our_training SAMPLES BATCH EPOCHS\n", 2;
  const std::int64_t num_samples = std::atoll(argv[1]);
  learn::TrainOptions options{.epochs = std::atoll(argv[3]), .batch_size = std::atoll(argv[2])};
  learn::use_threads(1);
  const learn::KeepFreedMemory keep_freed_memory;
  const learn::Samples samples{torch::randn({num_samples, 1, 28, 28}), torch::randint(10, {num_samples}, torch::kLong)};
  const auto model = learn::make_model({}, {}, Seed(1));
  const auto progress = [](const learn::Progress&) {};
  learn::train(*model, samples, options, learn::epoch_orders(num_samples, 1, Seed(2)), progress);
  const auto begin = std::chrono::steady_clock::now();
  learn::train(*model, samples, options, learn::epoch_orders(num_samples, options.epochs, Seed(3)), progress);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::cout << static_cast<double>(num_samples * options.epochs) / seconds.count() << '\n';
}
