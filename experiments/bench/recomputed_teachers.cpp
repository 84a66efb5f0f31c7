#include "experiments/bench/recomputed_teachers.hpp"

#include <chrono>
#include <cmath>
#include <optional>

#include <torch/types.h>

#include "shared/learn/train/batches.hpp"

namespace headstart::bench {

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double distance_ratio(const learn::StateDict& start, const learn::StateDict& one, const learn::StateDict& two) {
  const auto squared = [](const learn::StateDict& a, const learn::StateDict& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.tensors().size(); ++i) {
      sum += (a.tensors()[i].tensor - b.tensors()[i].tensor).square().sum().item<double>();
    }
    return sum;
  };
  return std::sqrt(squared(one, two) / squared(start, one));
}

Teachers make_teachers(std::int64_t count, const learn::ModelSpec& spec) {
  Teachers teachers;
  for (std::int64_t k = 0; k < count; ++k) {
    teachers.push_back(learn::make_model(spec, {}, Seed(static_cast<std::uint64_t>(k))));
  }
  return teachers;
}

learn::Tensor logits_of_all(const Teachers& teachers, const learn::Tensor& x) {
  std::vector<learn::Tensor> logits;
  for (const auto& teacher : teachers) logits.push_back(learn::logits_of(*teacher, x));
  return torch::stack(logits);
}

void distil_recomputed(learn::Model& student, const Teachers& teachers, const learn::Samples& transfer,
                       const learn::DistillOptions& options, Seed seed) {
  student.set_training(true);
  for (const auto& teacher : teachers) teacher->set_training(false);
  learn::Optimizer optimizer(student.parameters(), options.optimizer);
  const learn::Tensor weights = learn::equal_weights(std::ssize(teachers), 10);
  for (const learn::Tensor& order : learn::epoch_orders(transfer.size(), options.epochs, seed)) {
    for (const learn::Tensor& indices : learn::batches_of(order, options.batch_size)) {
      const learn::Samples batch = transfer.select(indices);
      learn::Guidance guidance;
      {
        const at::NoGradGuard no_grad;
        std::vector<learn::Tensor> logits;
        for (const auto& teacher : teachers) logits.push_back(teacher->forward(batch.x));
        guidance = learn::guidance(torch::stack(logits), weights, options);
      }
      const auto labels = batch.is_labeled() ? std::optional<learn::Tensor>(batch.y) : std::nullopt;
      optimizer.zero_grad();
      learn::distillation_objective(student.forward(batch.x), guidance, labels, options).backward();
      optimizer.step();
    }
  }
}

}  // namespace headstart::bench
