// What a client remembers from round to round, where that must agree with what the server counted.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "shared/learn/core/state.hpp"

namespace headstart::client {

/// A control variate or a residual may count only where the result that it belongs to is in the model: a client that
/// remembers what the server refused is biased for ever. So what a round leaves is pending until a later task names
/// that round as the last that counted.
class ClientMemory {
 public:
  /// `num_versions`: rounds whose memory is kept, as a server may go back to an older checkpoint; at least 1.
  explicit ClientMemory(std::size_t num_versions = 4) : num_versions_(num_versions) {}

  /// What `round` leaves; replaces what is pending.
  void propose(std::int64_t round, learn::StateDict memory) { pending_.emplace(round, std::move(memory)); }

  /// A task says which round of this client counted last; 0: none. Pending memory of that round counts from now on, any
  /// other is dropped, and so are versions of later rounds. Returns what the client remembers: the version of that
  /// round, or nothing. Nothing where rounds counted, but their memory is not here (the client was started again).
  std::optional<learn::StateDict> settle(std::int64_t counted_round) {
    if (pending_ && pending_->first == counted_round) versions_.insert_or_assign(counted_round, pending_->second);
    pending_.reset();
    versions_.erase(versions_.upper_bound(counted_round), versions_.end());
    while (versions_.size() > num_versions_) versions_.erase(versions_.begin());
    const auto found = versions_.find(counted_round);
    return found == versions_.end() ? std::nullopt : std::optional(found->second);
  }

  /// Forgets everything: another run.
  void clear() {
    pending_.reset();
    versions_.clear();
  }

 private:
  std::size_t num_versions_;
  std::optional<std::pair<std::int64_t, learn::StateDict>> pending_;
  std::map<std::int64_t, learn::StateDict> versions_;  ///< By round; all counted.
};

}  // namespace headstart::client
