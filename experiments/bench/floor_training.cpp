// Floor of local training: a bare LibTorch loop over tensors in memory. One epoch order, cross-entropy, SGD.
//   floor_training SAMPLES BATCH EPOCHS     prints images/s
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>

#include <torch/torch.h>

namespace {

using torch::Tensor;

struct Cnn : torch::nn::Module {
  torch::nn::Conv2d conv1{nullptr}, conv2{nullptr};
  torch::nn::Linear fc1{nullptr}, fc2{nullptr};
  Cnn() {
    conv1 = register_module("conv1", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 32, 3)));
    conv2 = register_module("conv2", torch::nn::Conv2d(torch::nn::Conv2dOptions(32, 64, 3)));
    fc1 = register_module("fc1", torch::nn::Linear(64 * 5 * 5, 128));
    fc2 = register_module("fc2", torch::nn::Linear(128, 10));
  }
  Tensor forward(Tensor x) {
    x = torch::relu(torch::max_pool2d(conv1(x), 2));
    x = torch::relu(torch::max_pool2d(conv2(x), 2));
    return fc2(torch::relu(fc1(x.flatten(1))));
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::cerr << "usage: floor_training SAMPLES BATCH EPOCHS\n", 2;
  const std::int64_t samples = std::atoll(argv[1]);
  const std::int64_t batch = std::atoll(argv[2]);
  const std::int64_t epochs = std::atoll(argv[3]);
  at::set_num_threads(1);
  const Tensor x = torch::randn({samples, 1, 28, 28});
  const Tensor y = torch::randint(10, {samples}, torch::kLong);
  Cnn model;
  const auto run = [&](std::int64_t passes) {
    torch::optim::SGD optimizer(model.parameters(), torch::optim::SGDOptions(0.01).weight_decay(4e-4));
    for (std::int64_t epoch = 0; epoch < passes; ++epoch) {
      const Tensor order = torch::randperm(samples);
      for (const Tensor& indices : order.split(batch)) {
        optimizer.zero_grad();
        torch::nn::functional::cross_entropy(model.forward(x.index_select(0, indices)), y.index_select(0, indices))
            .backward();
        optimizer.step();
      }
    }
  };
  run(1);
  const auto begin = std::chrono::steady_clock::now();
  run(epochs);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::cout << static_cast<double>(samples * epochs) / seconds.count() << '\n';
}
