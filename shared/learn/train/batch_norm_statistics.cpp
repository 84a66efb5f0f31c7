#include "shared/learn/train/batch_norm_statistics.hpp"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/train/batches.hpp"

namespace headstart::learn {

namespace {

/// A buffer that layers update in training mode, running = (1 - momentum) running + momentum * batch's value, and the
/// sum of the batches' values. The momentum is a constant inside of a scripted model, so it is measured: the same batch
/// seen from two values of the buffer leaves them apart by (1 - momentum) of their distance.
struct RunningStatistic {
  static constexpr double probe = 0x1p20;

  std::string name;
  Tensor value;  ///< The model's own at present: a script may put another one there at any forward().
  Tensor before;
  Tensor probed;
  Tensor sum;
  double momentum = 0;

  explicit RunningStatistic(const NamedTensor& buffer)
      : name(buffer.name),
        value(buffer.tensor),
        before(buffer.tensor.clone()),
        sum(torch::zeros_like(buffer.tensor, torch::kFloat64)) {}

  void measure_momentum() { momentum = 1 - ((probed - value.to(torch::kFloat64)) / probe).mean().item<double>(); }
  /// A layer that did not run keeps what it had.
  void finish(double num_batches) {
    constexpr double least_momentum = 1e-6;
    value.copy_(momentum < least_momentum ? before : sum / (momentum * num_batches));
  }
};

}  // namespace

void reestimate_statistics(Model& model, const Tensor& x, std::int64_t batch_size, std::stop_token stop,
                           const ProgressCallback& progress) {
  const at::NoGradGuard no_grad;
  std::vector<RunningStatistic> statistics;
  std::vector<NamedTensor> counters;
  for (const NamedTensor& named : model.named_state()) {
    if (named.name.ends_with("running_mean") || named.name.ends_with("running_var")) {
      statistics.emplace_back(named);
    } else if (named.name.ends_with("num_batches_tracked")) {
      counters.push_back(named);
    }
  }
  if (statistics.empty() || x.size(0) == 0) return;

  const auto look_again = [&] {
    std::map<std::string, Tensor> present;
    for (NamedTensor& named : model.named_state()) present[named.name] = std::move(named.tensor);
    for (RunningStatistic& statistic : statistics) statistic.value = present.at(statistic.name);
    for (NamedTensor& counter : counters) counter.tensor = present.at(counter.name);
  };
  const auto forward_from = [&](double start, const Tensor& batch) {
    for (RunningStatistic& statistic : statistics) statistic.value.fill_(start);
    // Layers with a cumulative momentum derive it from this count.
    for (NamedTensor& counter : counters) counter.tensor.zero_();
    model.forward(batch);
    look_again();
  };
  model.set_training(true);
  const std::vector<Tensor> batches = batches_of(x, batch_size);
  forward_from(RunningStatistic::probe, batches.front());
  for (RunningStatistic& statistic : statistics) statistic.probed = statistic.value.to(torch::kFloat64, false, true);
  std::int64_t done = 0;
  for (const Tensor& batch : batches) {
    if (stop.stop_requested()) throw Error(Errc::interrupted, "stopped while re-estimating statistics");
    forward_from(0, batch);
    for (RunningStatistic& statistic : statistics) {
      if (&batch == &batches.front()) statistic.measure_momentum();
      statistic.sum += statistic.value;
    }
    done += batch.size(0);
    if (progress) progress({.done = done, .total = x.size(0)});
  }
  for (RunningStatistic& statistic : statistics) statistic.finish(static_cast<double>(batches.size()));
  for (NamedTensor& counter : counters) counter.tensor.fill_(static_cast<std::int64_t>(batches.size()));
  model.set_training(false);
}

}  // namespace headstart::learn
