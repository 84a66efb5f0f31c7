#include "shared/learn/models/stated_model.hpp"

#include <torch/types.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

[[noreturn]] void refuse_to_compute() {
  throw Error(
      Errc::usage,
      "the model is known by its tensors alone (model.name=state:FILE): it is computed by a process of your own, "
      "which --worker COMMAND starts at clients and server");
}

}  // namespace

const StatedModel& stated_of(const ModelSpec& spec) {
  if (!spec.stated) refuse_to_compute();
  return *spec.stated;
}

std::unique_ptr<Model> make_stated(const StatedModel& stated) {
  return stated.make ? stated.make(stated) : std::make_unique<StatedNetwork>(stated);
}

StatedNetwork::StatedNetwork(const StatedModel& stated)
    : schema_(stated.schema), state_(StateDict::in_one_block(stated.schema)) {
  for (const TensorSpec& spec : schema_.tensors()) {
    const Tensor& tensor = state_.at(spec.name);
    tensor.copy_(stated.state.at(spec.name));
    if (schema_.role_of(spec) != Role::parameter) continue;
    tensor.requires_grad_(true);
    parameters_.push_back(tensor);
    names_.push_back(spec.name);
  }
}

Tensor StatedNetwork::forward(const Tensor& /*x*/) { refuse_to_compute(); }

void StatedNetwork::to(c10::Device device) {
  if (!device.is_cpu()) {
    throw Error(Errc::usage,
                "a model of model.name=state:FILE lies on the CPU here; set device=cpu, its worker computes "
                "where it likes");
  }
}

}  // namespace headstart::learn
