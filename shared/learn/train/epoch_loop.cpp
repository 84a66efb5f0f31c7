#include "shared/learn/train/epoch_loop.hpp"

#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/train/batches.hpp"

namespace headstart::learn {

EpochLoop::EpochLoop(std::string work, std::int64_t batch_size, c10::Device device, std::int64_t planned)
    : work_(std::move(work)), batch_size_(batch_size), device_(device), planned_(planned) {
  if (batch_size < 1) throw Error(Errc::usage, fmt::format("batch_size: expected at least 1, got {}", batch_size));
}

double EpochLoop::run(const Tensor& order, const Step& step, const ProgressCallback& progress,
                      const std::stop_token& stop) {
  const at::AutoGradMode gradients(true);
  const std::int64_t n = order.size(0);
  // Summed where the losses are: reading each one back would stall an accelerator once a batch.
  Tensor loss_sum = torch::zeros({}, torch::dtype(torch::kDouble).device(device_));
  for (const Tensor& batch : batches_of(order.to(device_), batch_size_)) {
    if (stop.stop_requested()) throw Error(Errc::interrupted, work_ + " was stopped");
    loss_sum.add_(step(batch).detach(), static_cast<double>(batch.size(0)));
    num_samples_ += batch.size(0);
    if (progress) progress({.done = num_samples_, .total = planned_});
  }
  ++num_epochs_;
  const double loss = loss_sum.item<double>() / static_cast<double>(n);
  if (!std::isfinite(loss)) {
    throw Error(Errc::run_failed,
                fmt::format("{} diverged: the mean loss of epoch {} is {}; look for values that are not finite in the "
                            "data, or lower the learning rate",
                            work_, num_epochs_, loss));
  }
  return loss;
}

}  // namespace headstart::learn
