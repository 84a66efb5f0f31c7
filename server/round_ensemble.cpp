#include "server/round_ensemble.hpp"

#include <torch/torch.h>

#include "shared/base/log.hpp"
#include "shared/learn/platform.hpp"

namespace headstart::server {

void RoundEnsemble::add(const std::string& client, const wire::PackedState& model) {
  const TimePoint begun = context_.clock();
  const auto network = context_.make_global_model();
  network->load(model.state());
  learn::Tensor logits = learn::logits_of(*network, context_.data.transfer.x.to(context_.device), 256, context_.stop);
  const bool is_finite = at::isfinite(logits).all().item<bool>();
  if (!is_finite) spdlog::warn("round {}: {}'s model does not teach, its logits are not finite", round_, client);
  const std::scoped_lock lock(mutex_);
  teaching_seconds_ += seconds_between(begun, context_.clock());
  if (is_finite) logits_[client] = std::move(logits);
}

wire::PackedState RoundEnsemble::distil_into(const wire::PackedState& average) const {
  if (logits_.empty()) return average;
  const learn::KeepFreedMemory keep_freed_memory;
  const learn::DistillOptions& options = context_.options().feddf;
  std::vector<learn::Tensor> teachers;
  for (const auto& [client, logits] : logits_) teachers.push_back(logits);
  const learn::Tensor weights = learn::equal_weights(std::ssize(teachers), context_.data.task.num_classes);
  const learn::Tensor targets = learn::soft_targets(torch::stack(teachers), weights, options);
  const auto student = context_.make_global_model();
  student->load(average.state());
  const Seed seed = context_.terms().seeds().child("feddf").child(round_);
  const auto lease = learn::lease_for(*student, seed.child("layers"));
  const learn::Samples samples{context_.data.transfer.x.to(context_.device), {}};
  learn::distill(*student, samples, targets, options, seed, {}, context_.stop);
  return wire::PackedState(student->state());
}

}  // namespace headstart::server
