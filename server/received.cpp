#include "server/received.hpp"

#include <fmt/format.h>
#include <torch/torch.h>

#include "shared/base/error.hpp"

namespace headstart::server {

wire::PackedState received_state(Upload& upload, const learn::Schema& schema, const std::string& client) {
  wire::PackedState state(schema);
  const auto sink = session::sink_into(state);
  upload.for_each_block([&](std::uint64_t offset, std::span<const std::byte> block) {
    sink->write(offset, block);
    return true;
  });
  for (const learn::NamedTensor& named : state.state().tensors()) {
    if (!at::isFloatingType(named.tensor.scalar_type()) || at::isfinite(named.tensor).all().item<bool>()) continue;
    throw Error(Errc::run_failed,
                fmt::format("client {}: its result is not finite in tensor '{}'", client, named.name));
  }
  return state;
}

std::optional<std::string> UploadSum::offence_in(Upload& upload) const {
  std::optional<std::string> offence;
  upload.for_each_block([&](std::uint64_t offset, std::span<const std::byte> block) {
    offence = sum_.offence_in(offset, block);
    return !offence.has_value();
  });
  return offence;
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
