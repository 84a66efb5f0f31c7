// One pass over samples, as all training makes it. Private to learn.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>

#include <c10/core/Device.h>

#include "shared/learn/core/tensor.hpp"
#include "shared/learn/train/train.hpp"

namespace headstart::learn {

/// What the epochs of one training share: how an order is cut into batches, where progress stands, what ends it.
class EpochLoop {
 public:
  /// `work` opens messages ("training"); `planned`: samples of all epochs, at most, for progress. Throws Error(usage):
  /// a batch size below 1.
  EpochLoop(std::string work, std::int64_t batch_size, c10::Device device, std::int64_t planned);

  /// One optimiser step on the samples at `batch` (int64, on the device); returns the batch's mean loss, a scalar.
  using Step = std::function<Tensor(const Tensor& batch)>;

  /// One pass over `order` (int64 [n]) with gradients enabled. Returns the mean loss per sample. Throws
  /// Error(run_failed) where it is not finite, Error(interrupted) when `stop` is requested.
  double run(const Tensor& order, const Step& step, const ProgressCallback& progress, const std::stop_token& stop);

  [[nodiscard]] std::int64_t num_epochs() const { return num_epochs_; }

 private:
  std::string work_;
  std::int64_t batch_size_;
  c10::Device device_;
  std::int64_t planned_;
  std::int64_t num_epochs_ = 0;
  std::int64_t num_samples_ = 0;
};

}  // namespace headstart::learn
