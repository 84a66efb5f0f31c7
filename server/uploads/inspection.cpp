#include "server/uploads/inspection.hpp"

#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

std::string digest_of(Upload& upload) {
  Sha256 hash;
  upload.for_each_block([&hash](std::uint64_t, std::span<const std::byte> block) {
    hash.update(block);
    return true;
  });
  return hex(hash.finish());
}

std::optional<std::string> violation_in(const learn::StateDict& state) {
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

namespace {

wire::PackedState state_in(Upload& upload, const learn::Schema& schema) {
  wire::PackedState state(schema);
  const auto sink = session::sink_into(state);
  upload.for_each_block([&](std::uint64_t offset, std::span<const std::byte> block) {
    sink->write(offset, block);
    return true;
  });
  return state;
}

}  // namespace

wire::PackedState received_state(Upload& upload, const learn::Schema& schema, const std::string& client) {
  wire::PackedState state = state_in(upload, schema);
  if (const auto violation = violation_in(state.state())) {
    throw Error(Errc::run_failed, fmt::format("client {}: {}", client, *violation));
  }
  return state;
}

Inspection inspected(Upload& upload, const learn::StateBlocks& blocks, const NormBound& bound) {
  Inspection inspection;
  Sha256 hash;
  const learn::StateBlocks::Origin origin = blocks.origin_in(bound.origin.state());
  double squared_norm = 0;
  upload.for_each_block([&](std::uint64_t offset, std::span<const std::byte> block) {
    hash.update(block);
    if (!inspection.violation) inspection.violation = blocks.violation_in(offset, block);
    if (!inspection.violation) squared_norm += blocks.squared_distance(offset, block, origin);
    return true;
  });
  inspection.digest = hex(hash.finish());
  if (!inspection.violation) {
    inspection.norm = std::sqrt(squared_norm);
    if (bound.limit > 0 && *inspection.norm > bound.limit) {
      inspection.violation = fmt::format("the update's L2 norm is {:.6g}; limits.update_norm allows {:.6g}",
                                         *inspection.norm, bound.limit);
    }
  }
  return inspection;
}

namespace {

/// Has `use` called on the pool, and records what came of it.
net::Task<std::string> take(Intake intake, const std::string& client, Upload& upload, std::string what,
                            std::function<void()> use) {
  struct Taken {
    std::string digest;
    std::optional<std::string> violation;
  };
  auto taking = net::offload(intake.pool, [&] {
    Taken taken{digest_of(upload), {}};
    try {
      use();
    } catch (const Error& error) {
      if (error.code() != Errc::run_failed) throw;
      taken.violation = error.what();
    }
    return taken;
  });
  const Taken taken = co_await std::move(taking);
  intake.audit.received(client, {what, upload.num_bytes(), taken.digest}, taken.violation);
  if (taken.violation) throw Error(Errc::run_failed, *taken.violation);
  co_return taken.digest;
}

}  // namespace

net::Task<std::string> take_state(Intake intake, const std::string& client, Upload& upload, learn::Schema schema,
                                  std::string what, std::function<void(wire::PackedState)> use) {
  const std::function<void()> look = [&] { use(received_state(upload, schema, client)); };
  auto taking = take(intake, client, upload, std::move(what), look);
  co_return co_await std::move(taking);
}

net::Task<std::string> take_tensors(Intake intake, const std::string& client, Upload& upload, learn::Schema schema,
                                    std::string what, std::function<void(wire::PackedState)> use) {
  const std::function<void()> look = [&] { use(state_in(upload, schema)); };
  auto taking = take(intake, client, upload, std::move(what), look);
  co_return co_await std::move(taking);
}

net::Task<Inspection> inspect(Intake intake, const std::string& client, Upload& upload,
                              const learn::StateBlocks& blocks, NormBound bound, std::string what) {
  auto inspecting = net::offload(intake.pool, [&] { return inspected(upload, blocks, bound); });
  Inspection seen = co_await std::move(inspecting);
  intake.audit.received(client, {what, upload.num_bytes(), seen.digest}, seen.violation, seen.norm);
  co_return seen;
}

}  // namespace headstart::server
