// Peak memory of what the server computes, ResNet-18: evaluation in batches of 256, distillation in batches of 32.
//   compute_memory ours|floor evaluate|distill     prints MB above what is resident once model and data are loaded
// The floor is a bare loop over the same model and batches; each runs in a process of its own.
#include <fstream>
#include <iostream>
#include <string>

#include <torch/torch.h>

#include "shared/learn/core/platform.hpp"
#include "shared/learn/distill/distiller.hpp"

namespace {

using namespace headstart;
using learn::Tensor;

double status_mb(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (double kib = 0; word == key && status >> kib) return kib * 1024 / 1e6;
  }
  return 0;
}

void bare_evaluate(learn::Model& model, const learn::Samples& samples) {
  const at::NoGradGuard no_grad;
  model.set_training(false);
  std::int64_t num_right = 0;
  for (std::int64_t begin = 0; begin < samples.size(); begin += 256) {
    const Tensor logits = model.forward(samples.x.narrow(0, begin, 256));
    num_right += (logits.argmax(1) == samples.y.narrow(0, begin, 256)).sum().item<std::int64_t>();
  }
  std::cerr << num_right << " right\n";
}

void bare_distill(learn::Model& model, const learn::Samples& samples, const Tensor& targets) {
  model.set_training(true);
  torch::optim::Adam optimizer(model.parameters(), torch::optim::AdamOptions(1e-3).weight_decay(1e-4));
  for (const Tensor& indices : torch::randperm(samples.size()).split(32)) {
    optimizer.zero_grad();
    const Tensor logits = model.forward(samples.x.index_select(0, indices));
    const Tensor loss = -(targets.index_select(0, indices) * torch::log_softmax(logits, 1)).sum(1).mean();
    loss.backward();
    optimizer.step();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::cerr << "usage: compute_memory ours|floor evaluate|distill\n", 2;
  const bool is_ours = std::string(argv[1]) == "ours";
  const bool evaluates = std::string(argv[2]) == "evaluate";
  learn::use_threads(2);
  learn::return_freed_memory();
  const std::int64_t num_samples = evaluates ? 512 : 128;
  learn::Samples samples{torch::randn({num_samples, 3, 32, 32}), torch::randint(10, {num_samples}, torch::kLong)};
  const auto model = learn::make_model({.name = "resnet18"}, {.shape = {3, 32, 32}}, Seed(1));
  const Tensor targets = torch::softmax(torch::randn({num_samples, 10}), 1);
  const double before = status_mb("VmRSS:");
  if (is_ours) {
    const learn::KeepFreedMemory keep_freed_memory;
    if (evaluates) {
      learn::evaluate(*model, samples, 10);
    } else {
      samples.y = Tensor();
      const learn::Guidance guidance{.targets = targets, .measure = &learn::cross_entropy_measure};
      learn::distill(*model, samples, guidance, {.epochs = 1}, Seed(2));
    }
  } else if (evaluates) {
    bare_evaluate(*model, samples);
  } else {
    bare_distill(*model, samples, targets);
  }
  std::cout << status_mb("VmHWM:") - before << '\n';
}
