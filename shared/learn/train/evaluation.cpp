#include "shared/learn/train/evaluation.hpp"

#include <algorithm>
#include <utility>

#include <torch/types.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

/// `answers`: the logits of each head for a batch of samples.
template <class Answers>
std::vector<Evaluation> evaluations(Model& model, std::int64_t num_heads, const Answers& answers,
                                    const Samples& samples, std::int64_t num_classes, Measures measures,
                                    std::int64_t batch_size, const std::stop_token& stop,
                                    const ProgressCallback& progress) {
  if (samples.size() > 0 && !samples.is_labeled()) throw Error(Errc::internal, "samples without labels evaluated");
  const at::NoGradGuard no_grad;
  std::vector<BatchEvaluation> sums(static_cast<std::size_t>(num_heads), BatchEvaluation(num_classes, measures));
  model.set_training(false);
  batch_size = model.batch_size_for(batch_size);
  for (std::int64_t begin = 0; begin < samples.size(); begin += batch_size) {
    if (stop.stop_requested()) throw Error(Errc::interrupted, "stopped while evaluating");
    const std::int64_t count = std::min(batch_size, samples.size() - begin);
    const std::vector<Tensor> logits = answers(samples.x.narrow(0, begin, count));
    for (std::size_t head = 0; head < sums.size(); ++head) {
      sums[head].add(logits[head], samples.y.narrow(0, begin, count));
    }
    if (progress) progress({.done = begin + count, .total = samples.size()});
  }
  std::vector<Evaluation> results;
  for (const BatchEvaluation& sum : sums) results.push_back(sum.result());
  return results;
}

}  // namespace

Evaluation evaluate(Model& model, const Samples& samples, std::int64_t num_classes, Measures measures,
                    std::int64_t batch_size, std::stop_token stop, const ProgressCallback& progress) {
  const auto first_head = [&model](const Tensor& x) { return std::vector{model.forward(x)}; };
  return evaluations(model, 1, first_head, samples, num_classes, measures, batch_size, stop, progress).front();
}

Evaluation evaluate(Model& model, const Samples& samples, std::int64_t num_classes, std::int64_t batch_size,
                    std::stop_token stop, const ProgressCallback& progress) {
  return evaluate(model, samples, num_classes, Measures::counts, batch_size, std::move(stop), progress);
}

std::vector<Evaluation> evaluate_heads(Model& model, const Samples& samples, std::int64_t num_classes,
                                       std::int64_t batch_size, std::stop_token stop,
                                       const ProgressCallback& progress) {
  const auto all_heads = [&model](const Tensor& x) { return model.forward_heads(x); };
  return evaluations(model, model.num_heads(), all_heads, samples, num_classes, Measures::counts, batch_size, stop,
                     progress);
}

Tensor logits_of(Model& model, const Tensor& x, std::int64_t batch_size, std::stop_token stop,
                 const ProgressCallback& progress) {
  const at::NoGradGuard no_grad;
  model.set_training(false);
  batch_size = model.batch_size_for(batch_size);
  Tensor all;
  std::int64_t begin = 0;
  // Once even without samples: the width of the result is the model's to say.
  do {
    if (stop.stop_requested()) throw Error(Errc::interrupted, "stopped while computing logits");
    const std::int64_t count = std::min(batch_size, x.size(0) - begin);
    const Tensor logits = model.forward(x.narrow(0, begin, count));
    if (!all.defined()) all = torch::empty({x.size(0), logits.size(1)}, torch::kFloat);
    all.narrow(0, begin, count).copy_(logits);
    begin += count;
    if (progress) progress({.done = begin, .total = x.size(0)});
  } while (begin < x.size(0));
  return all;
}

}  // namespace headstart::learn
