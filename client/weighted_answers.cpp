#include "client/weighted_answers.hpp"

#include <algorithm>

#include <torch/types.h>

#include "shared/learn/distill/experts.hpp"

namespace headstart::client {

at::Tensor weighted_answers(const at::Tensor& logits, const at::Tensor& log_odds, const plan::AnswerSettings& settings,
                            std::int64_t num_examples) {
  at::Tensor answers = (logits / settings.temperature).softmax(1);
  if (settings.weighs_by_density) {
    answers = answers * learn::density_weights(log_odds, learn::Density::bounded).unsqueeze(1);
  }
  if (settings.most_examples > 0) {
    const double share = static_cast<double>(num_examples) / static_cast<double>(settings.most_examples);
    answers = answers * std::min(share, 1.0);
  }
  return learn::packed_answers(answers, settings.bits);
}

}  // namespace headstart::client
