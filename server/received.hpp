// From a client's uploaded bytes to a state or a sum that may be used. All of it runs on the pool.
#pragma once

#include <mutex>
#include <string>

#include "server/upload_slots.hpp"
#include "shared/learn/aggregate.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::server {

/// The upload as a state of `schema`, checked to be finite. Throws Error(run_failed) naming client and tensor.
wire::PackedState received_state(Upload& upload, const learn::Schema& schema, const std::string& client);

/// A sum that uploads are added to block by block, without a copy of any in memory.
class UploadSum {
 public:
  UploadSum(learn::Schema schema, std::int64_t announced) : sum_(std::move(schema), announced) {}

  /// A sentence on the first value that may not be added; from any thread.
  [[nodiscard]] std::optional<std::string> offence_in(Upload& upload) const;
  /// Adds a checked upload; one at a time, the others wait.
  void add(Upload& upload, std::int64_t num_examples);
  [[nodiscard]] wire::PackedState report() && { return wire::PackedState(std::move(sum_).report()); }

 private:
  std::mutex mutex_;
  learn::Aggregator sum_;
};

}  // namespace headstart::server
