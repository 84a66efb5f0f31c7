// BatchNorm statistics of a model that was not trained, but averaged.
#pragma once

#include <cstdint>
#include <stop_token>

#include "shared/learn/core/progress.hpp"
#include "shared/learn/models/model.hpp"

namespace headstart::learn {

/// BatchNorm statistics of an averaged model, re-estimated by one pass over `x` in training mode without gradients:
/// the mean over the batches of each batch's mean and variance (PyTorch's momentum=None), whatever momentum the layers
/// have, scripted models included. The model ends in evaluation mode. Nothing happens to a model without buffers named
/// running_mean or running_var. A model that draws globally needs its lease taken by the caller. Throws
/// Error(interrupted) when `stop` is requested; the statistics are then of no use.
void reestimate_statistics(Model& model, const Tensor& x, std::int64_t batch_size = 256, std::stop_token stop = {},
                           const ProgressCallback& progress = {});

}  // namespace headstart::learn
