// The silo's share of the targets of public samples, as it leaves the silo.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "shared/plan/tasks.hpp"

namespace headstart::client {

/// learn::packed_answers of softmax(z / T), times the weight by density where `settings` ask for it, times the silo's
/// share of the examples. logits: float64 [n, C]; log_odds: float64 [n], not read where answers are not weighed.
at::Tensor weighted_answers(const at::Tensor& logits, const at::Tensor& log_odds, const plan::AnswerSettings& settings,
                            std::int64_t num_examples);

}  // namespace headstart::client
