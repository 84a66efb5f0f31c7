#include "shared/learn/distill/pair_methods.hpp"

#include <utility>

#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/train/epoch_loop.hpp"

namespace headstart::learn {

namespace {

/// The probability that a model gives each sample's label, or its own answer: [N].
Tensor confidence(const Tensor& logits, const std::optional<Tensor>& labels) {
  const Tensor p = torch::softmax(logits, 1);
  return labels ? p.gather(1, labels->unsqueeze(1)).squeeze(1) : p.amax(1);
}

}  // namespace

Tensor teacher_mask(const Tensor& teacher_logits, const Tensor& copy_logits, const std::optional<Tensor>& labels) {
  const at::NoGradGuard no_grad;
  return confidence(teacher_logits, labels) > confidence(copy_logits, labels);
}

Tensor partitioned_targets(const Tensor& teacher_logits, const Tensor& copy_logits, const Tensor& mask,
                           double temperature) {
  const at::NoGradGuard no_grad;
  return torch::softmax(torch::where(mask.unsqueeze(1), teacher_logits, copy_logits) / temperature, 1);
}

Tensor mutual_loss(const Tensor& logits, const Tensor& peer_logits, const std::optional<Tensor>& labels) {
  const Tensor divergence = kl_divergence(peer_logits.detach(), logits, 1);
  return labels ? at::cross_entropy_loss(logits, *labels) + divergence : divergence;
}

void learn_mutually(Model& a, Model& b, const Samples& transfer, const DistillOptions& options, Seed seed,
                    const ProgressCallback& progress, std::stop_token stop) {
  if (transfer.size() == 0) throw Error(Errc::data, "there are no samples to learn mutually on");
  EpochLoop loop("mutual learning", options.batch_size, transfer.x.device(), transfer.size() * options.epochs);
  Optimizer optimizer_a(a.parameters(), options.optimizer);
  Optimizer optimizer_b(b.parameters(), options.optimizer);
  const auto step = [&](const Tensor& batch) {
    const Samples samples = transfer.select(batch);
    const auto labels = samples.is_labeled() ? std::optional<Tensor>(samples.y) : std::nullopt;
    optimizer_a.zero_grad();
    optimizer_b.zero_grad();
    const Tensor logits_a = a.forward(samples.x);
    const Tensor logits_b = b.forward(samples.x);
    const Tensor loss = mutual_loss(logits_a, logits_b, labels) + mutual_loss(logits_b, logits_a, labels);
    loss.backward();
    optimizer_a.step();
    optimizer_b.step();
    return loss;
  };
  a.set_training(true);
  b.set_training(true);
  for (std::int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    loop.run(permutation(transfer.size(), seed.child(static_cast<std::uint64_t>(epoch))), step, progress, stop);
  }
}

}  // namespace headstart::learn
