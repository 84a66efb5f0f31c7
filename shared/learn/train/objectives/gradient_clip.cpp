// Scales a step's gradient down to a largest L2 norm over all parameters.
// Source: Pascanu, Mikolov & Bengio 2013 (arXiv 1211.5063); as torch.nn.utils.clip_grad_norm_ computes it.

#include <cmath>

#include <torch/types.h>

#include "shared/learn/train/local_objective.hpp"
#include "shared/learn/train/train.hpp"

namespace headstart::learn {

namespace {

/// PyTorch's, against a norm of 0.
constexpr double smallest_norm = 1e-6;

class GradientClip final : public LocalObjective {
 public:
  explicit GradientClip(double limit) : limit_(limit) {}

  void correct_gradients(const std::vector<Tensor>& parameters) override {
    std::vector<Tensor> norms;
    for (const Tensor& parameter : parameters) {
      if (parameter.grad().defined()) norms.push_back(parameter.grad().norm());
    }
    if (norms.empty()) return;
    const double norm = torch::stack(norms).norm().item<double>();
    // A norm that is no number stays: the training that diverges says so.
    if (!(norm > limit_)) return;
    for (const Tensor& parameter : parameters) {
      if (parameter.grad().defined()) parameter.grad().mul_(limit_ / (norm + smallest_norm));
    }
  }

 private:
  double limit_;
};

}  // namespace

std::unique_ptr<LocalObjective> make_gradient_clip(const ObjectiveInputs& inputs) {
  if (inputs.options.clip == 0) return nullptr;
  return std::make_unique<GradientClip>(inputs.options.clip);
}

}  // namespace headstart::learn
