// Evaluation of models on labeled samples.
#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "shared/learn/core/progress.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/metrics/evaluation.hpp"
#include "shared/learn/models/model.hpp"

namespace headstart::learn {

/// Model in evaluation mode, no gradients, batches of `batch_size`. Restores training mode off. Throws
/// Error(interrupted) when `stop` is requested.
Evaluation evaluate(Model& model, const Samples& samples, std::int64_t num_classes, std::int64_t batch_size = 256,
                    std::stop_token stop = {}, const ProgressCallback& progress = {});

/// The same, measuring more than counts.
Evaluation evaluate(Model& model, const Samples& samples, std::int64_t num_classes, Measures measures,
                    std::int64_t batch_size = 256, std::stop_token stop = {}, const ProgressCallback& progress = {});

/// Counts of each head of the model, from one pass over the samples.
std::vector<Evaluation> evaluate_heads(Model& model, const Samples& samples, std::int64_t num_classes,
                                       std::int64_t batch_size = 256, std::stop_token stop = {},
                                       const ProgressCallback& progress = {});

/// Logits of all samples: [n, C] on the CPU, float32. Evaluation mode, no gradients. Throws as evaluate() does.
Tensor logits_of(Model& model, const Tensor& x, std::int64_t batch_size = 256, std::stop_token stop = {},
                 const ProgressCallback& progress = {});

}  // namespace headstart::learn
