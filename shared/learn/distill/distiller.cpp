#include "shared/learn/distill/distiller.hpp"

#include <utility>

#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/distill/shapes.hpp"
#include "shared/learn/train/epoch_loop.hpp"

namespace headstart::learn {

Distiller::Distiller(Model& student, Samples transfer, const Guidance& teachers, const DistillOptions& options,
                     Seed seed)
    : student_(student),
      transfer_(std::move(transfer)),
      options_(options),
      seed_(seed),
      optimizer_(student.parameters(), options.optimizer) {
  if (transfer_.size() == 0) throw Error(Errc::data, "there are no samples to distil on");
  expect_shape(teachers.size() == transfer_.size(), "there must be one row of targets for each transfer sample");
  const c10::Device device = transfer_.x.device();
  teachers_ = teachers.to(device);
  loop_ = std::make_unique<EpochLoop>("distillation", options.batch_size, device, transfer_.size() * options.epochs);
}
Distiller::~Distiller() = default;

double Distiller::advance(std::int64_t epochs, const ProgressCallback& progress, std::stop_token stop,
                          const std::function<void(std::int64_t)>& after_epoch) {
  const auto step = [this](const Tensor& batch) {
    const Samples samples = transfer_.select(batch);
    const auto labels = samples.is_labeled() ? std::optional<Tensor>(samples.y) : std::nullopt;
    optimizer_.zero_grad();
    Tensor loss = distillation_objective(student_.forward(samples.x), teachers_.select(batch), labels, options_);
    loss.backward();
    optimizer_.step();
    return loss;
  };
  double loss = 0;
  for (std::int64_t i = 0; i < epochs; ++i) {
    student_.set_training(true);  // it may have been evaluated in between
    loss = loop_->run(permutation(transfer_.size(), seed_.child(static_cast<std::uint64_t>(num_epochs()))), step,
                      progress, stop);
    if (after_epoch) after_epoch(num_epochs());
  }
  return loss;
}

std::int64_t Distiller::num_epochs() const { return loop_->num_epochs(); }

double distill(Model& student, const Samples& transfer, const Guidance& teachers, const DistillOptions& options,
               Seed seed, const ProgressCallback& progress, std::stop_token stop,
               const std::function<void(std::int64_t)>& after_epoch) {
  return Distiller(student, transfer, teachers, options, seed).advance(options.epochs, progress, stop, after_epoch);
}

}  // namespace headstart::learn
