#include "shared/learn/train/local_objective.hpp"
#include "shared/learn/train/train.hpp"

namespace headstart::learn {

namespace {

/// Adds mu (w - x) to the gradient. Memory: the model once more.
class ProximalTerm final : public LocalObjective {
 public:
  ProximalTerm(double mu, const std::vector<NamedTensor>& received) : mu_(mu) {
    for (const NamedTensor& parameter : received) received_.push_back(parameter.tensor.detach().clone());
  }

  void correct_gradients(const std::vector<Tensor>& parameters) override {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Tensor& gradient = parameters[i].grad();
      if (gradient.defined()) gradient.add_(parameters[i].detach() - received_[i], mu_);
    }
  }

 private:
  double mu_;
  std::vector<Tensor> received_;
};

}  // namespace

std::unique_ptr<LocalObjective> make_proximal_term(const ObjectiveInputs& inputs) {
  if (inputs.options.proximal_mu == 0) return nullptr;
  return std::make_unique<ProximalTerm>(inputs.options.proximal_mu, inputs.received);
}

}  // namespace headstart::learn
