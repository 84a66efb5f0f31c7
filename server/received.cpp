#include "server/received.hpp"

#include <cmath>

#include <fmt/format.h>
#include <torch/torch.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"

namespace headstart::server {

std::string digest_of(Upload& upload) {
  Sha256 hash;
  upload.for_each_block([&hash](std::uint64_t, std::span<const std::byte> block) {
    hash.update(block);
    return true;
  });
  return hex(hash.finish());
}

std::optional<std::string> offence_in(const learn::StateDict& state) {
  for (const learn::NamedTensor& named : state.tensors()) {
    if (!at::isFloatingType(named.tensor.scalar_type()) || named.tensor.numel() == 0) continue;
    const auto largest = named.tensor.abs().max().to(at::kDouble).item<double>();
    if (largest <= learn::max_magnitude) continue;
    return fmt::format("tensor '{}' has a value that is {}; {} at most is accepted", named.name,
                       std::isnan(largest) ? "no number" : fmt::format("{:.6g}", largest), learn::max_magnitude);
  }
  return std::nullopt;
}

double norm_of(const learn::StateDict& state) {
  double squares = 0;
  for (const learn::NamedTensor& named : state.tensors()) {
    if (!at::isFloatingType(named.tensor.scalar_type())) continue;
    const auto norm = at::linalg_vector_norm(named.tensor, 2, {}, false, at::kDouble).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

wire::PackedState received_state(Upload& upload, const learn::Schema& schema, const std::string& client) {
  wire::PackedState state(schema);
  const auto sink = session::sink_into(state);
  upload.for_each_block([&](std::uint64_t offset, std::span<const std::byte> block) {
    sink->write(offset, block);
    return true;
  });
  if (const auto offence = offence_in(state.state())) {
    throw Error(Errc::run_failed, fmt::format("client {}: {}", client, *offence));
  }
  return state;
}

Inspection UploadSum::inspect(Upload& upload, const NormBound& bound) const {
  Inspection inspection;
  Sha256 hash;
  double squared_norm = 0;
  upload.for_each_block([&](std::uint64_t offset, std::span<const std::byte> block) {
    hash.update(block);
    if (!inspection.offence) inspection.offence = sum_.offence_in(offset, block);
    if (!inspection.offence) {
      squared_norm += sum_.squared_distance(offset, block, bound.origin.bytes().subspan(offset, block.size()));
    }
    return true;  // to the end, also after an offence: the digest is of all that was sent
  });
  inspection.digest = hex(hash.finish());
  if (!inspection.offence) {
    inspection.norm = std::sqrt(squared_norm);
    if (bound.limit > 0 && *inspection.norm > bound.limit) {
      inspection.offence = fmt::format("the update's L2 norm is {:.6g}; limits.update_norm allows {:.6g}",
                                       *inspection.norm, bound.limit);
    }
  }
  return inspection;
}

void UploadSum::add(Upload& upload, std::int64_t num_examples) {
  const std::scoped_lock lock(mutex_);
  upload.for_each_block([&](std::uint64_t offset, std::span<const std::byte> block) {
    sum_.fold(offset, block, num_examples);
    return true;
  });
  sum_.accept(num_examples);
}

}  // namespace headstart::server
