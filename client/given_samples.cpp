#include "client/given_samples.hpp"

#include <fmt/format.h>
#include <torch/types.h>

namespace headstart::client {

at::Tensor given_samples(const Input& input, const plan::Terms& terms) {
  const at::Tensor& x = input.state.state().tensors().front().tensor;
  const std::vector<std::int64_t>& shape = terms.task.shape;
  const bool is_stored = x.scalar_type() == at::kByte;
  if ((x.scalar_type() != at::kFloat && !is_stored) || x.dim() < 1 || !x.sizes().slice(1).equals(shape)) {
    throw Error(Errc::protocol, fmt::format("samples of the shape {} from the server; those of the run have {}",
                                            learn::shape_text(x.sizes().slice(1)), learn::shape_text(shape)));
  }
  if (!is_stored) return x;
  learn::Dataset stored;
  stored.images = x;
  stored.labels = torch::zeros({x.size(0)}, torch::kLong);
  stored.num_classes = terms.task.num_classes;
  stored.mean = terms.samples.mean;
  stored.deviation = terms.samples.deviation;
  return stored.all().x;
}

}  // namespace headstart::client
