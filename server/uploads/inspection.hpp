// From a client's uploaded bytes to a state or a sum that may be used: inspected on the pool, recorded in the audit
// log, then used or refused.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <boost/asio/thread_pool.hpp>

#include "server/operations/audit_log.hpp"
#include "server/uploads/upload_slots.hpp"
#include "shared/learn/aggregate/aggregator.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::server {

/// SHA-256 of the upload's bytes, in hexadecimal.
std::string digest_of(Upload& upload);

/// A sentence on the first tensor with a value that is not finite or beyond learn::max_magnitude: what is trained from
/// such a state can never be added to a sum.
std::optional<std::string> violation_in(const learn::StateDict& state);

/// L2 norm over the floating-point values.
double norm_of(const learn::StateDict& state);

/// The upload as a state of `schema`, without a violation. Throws Error(run_failed) naming client and tensor.
wire::PackedState received_state(Upload& upload, const learn::Schema& schema, const std::string& client);

/// How far an update may be from the model it was trained from: the L2 norm over all floating-point values of the
/// model. Parts of the update beside the model are not of it.
struct NormBound {
  const wire::PackedState& origin;
  double limit = 0;  ///< 0: none.
};

/// What one pass over an upload finds.
struct Inspection {
  std::string digest;
  std::optional<std::string> violation;  ///< A sentence on the first value that may not be added, or on the norm.
  std::optional<double> norm;            ///< L2 distance from the bound's origin, where every value may be added.
};

/// One pass over an upload, to the end also after a violation: the digest is of all that was sent.
Inspection inspected(Upload& upload, const learn::StateBlocks& blocks, const NormBound& bound);

/// Where uploads are looked at, and where what was found is recorded.
struct Intake {
  net::asio::thread_pool& pool;
  AuditLog& audit;
};

/// Has `use` called, on the pool, with the upload of `client` as a state of `schema`, and returns its digest. In one
/// job: as many states are in memory at a time as the pool has threads, however many uploads wait for it. `what`: for
/// the record. Throws Error(run_failed) where a value is not finite.
net::Task<std::string> take_state(Intake intake, const std::string& client, Upload& upload, learn::Schema schema,
                                  std::string what, std::function<void(wire::PackedState)> use);

/// The same of tensors whose values may be of any magnitude, or not finite: `use` looks at them, and throws
/// Error(run_failed) where they cannot be.
net::Task<std::string> take_tensors(Intake intake, const std::string& client, Upload& upload, learn::Schema schema,
                                    std::string what, std::function<void(wire::PackedState)> use);

/// inspected() on the pool; records whether the upload counts.
net::Task<Inspection> inspect(Intake intake, const std::string& client, Upload& upload,
                              const learn::StateBlocks& blocks, NormBound bound, std::string what);

}  // namespace headstart::server
