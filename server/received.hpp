// From a client's uploaded bytes to a state or a sum that may be used. All of it runs on the pool.
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "server/upload_slots.hpp"
#include "shared/learn/aggregate.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::server {

/// SHA-256 of the upload's bytes, in hexadecimal.
std::string digest_of(Upload& upload);

/// A sentence on the first tensor with a value that is not finite or beyond learn::max_magnitude: what is trained from
/// such a state can never be added to a sum.
std::optional<std::string> offence_in(const learn::StateDict& state);

/// L2 norm over the floating-point values.
double norm_of(const learn::StateDict& state);

/// The upload as a state of `schema`, without an offence. Throws Error(run_failed) naming client and tensor.
wire::PackedState received_state(Upload& upload, const learn::Schema& schema, const std::string& client);

/// How far an update may be from the model it was trained from: the L2 norm over all floating-point values.
struct NormBound {
  const wire::PackedState& origin;
  double limit = 0;  ///< 0: none.
};

/// What one pass over an upload finds.
struct Inspection {
  std::string digest;
  std::optional<std::string> offence;  ///< A sentence on the first value that may not be added, or on the norm.
  std::optional<double> norm;          ///< L2 distance from the bound's origin, where every value may be added.
};

/// A sum that uploads are added to block by block, without a copy of any in memory.
class UploadSum {
 public:
  explicit UploadSum(learn::Schema schema) : sum_(std::move(schema)) {}

  /// From any thread.
  [[nodiscard]] Inspection inspect(Upload& upload, const NormBound& bound) const;
  /// Adds an upload without an offence; one at a time, the others wait.
  void add(Upload& upload, std::int64_t num_examples);
  [[nodiscard]] wire::PackedState report() && { return wire::PackedState(std::move(sum_).report()); }

 private:
  std::mutex mutex_;
  learn::Aggregator sum_;
};

}  // namespace headstart::server
