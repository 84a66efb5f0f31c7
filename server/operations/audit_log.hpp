// Who came, what was sent to whom and what came back: a record for those who answer for the data. A run does not need
// it to go on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "shared/base/clock.hpp"
#include "shared/base/event_log.hpp"

namespace headstart::server {

/// A model, an update, logits or samples on the way.
struct TransferRecord {
  std::string what;  ///< "global model", "update", "model of silo-3", ...
  std::uint64_t num_bytes = 0;
  std::string digest;  ///< SHA-256 of the bytes, in hexadecimal.
};

/// The events of one run in an EventLog, appended to also by a server that goes on with the run. Calls on one thread.
class AuditLog {
 public:
  /// Throws Error(storage) where the file cannot be written.
  AuditLog(const std::filesystem::path& file, WallClock clock);

  [[nodiscard]] const WallClock& clock() const { return events_.clock(); }

  // What a run does. These throw Error(storage): what cannot be recorded does not go on.

  void server_started(const std::string& version, bool is_resumed);
  /// `certified_as`: the name that the certificate proves; empty where there is none. `count_so_far`: how often this
  /// client has come, where not every time has its line.
  void joined(const std::string& client, const std::string& address, const std::string& certified_as,
              const std::string& share_model, std::optional<std::size_t> count_so_far = {});
  /// Its samples lie far from those that it was compared with, and it joins nevertheless.
  void samples_differ(const std::string& client, const std::string& how);
  void returned(const std::string& client, const std::string& address, const std::string& certified_as,
                std::optional<std::size_t> count_so_far = {});
  /// It was told that it may join; it did not want to yet.
  void checked(const std::string& client, const std::string& address, const std::string& certified_as);
  void sent(const std::string& client, const TransferRecord& cargo);
  /// What came whole. `refusal`: why it does not count; none where it was accepted. `norm`: the L2 distance from what
  /// was sent, where it is an update of which every value may be added.
  void received(const std::string& client, const TransferRecord& cargo, const std::optional<std::string>& refusal,
                std::optional<double> norm = {});
  /// `digest` is the global model of `round`, of these clients' updates.
  void global_model(std::int64_t round, const std::string& digest, const std::vector<std::string>& clients);
  /// The run goes on from `round`; what came after it lies in the folder `kept_in`.
  void taken_back(std::int64_t round, const std::string& kept_in);

  // What happens to it. These never throw: they are called where nobody could take it. A file that has failed once
  // fails the next of the others.

  /// A connection that never got as far as a name: `reason` says why.
  void handshake_failed(const std::string& address, const std::string& reason) noexcept;
  void refused(const std::string& address, const std::string& certified_as, const std::string& name,
               const std::string& reason) noexcept;
  void connection_lost(const std::string& client, const std::string& reason) noexcept;
  /// What never came whole, came late, or broke the protocol.
  void result_refused(const std::string& client, const std::string& kind, const std::string& reason) noexcept;
  void run_ended(const std::string& why) noexcept;

 private:
  EventLog events_;
};

}  // namespace headstart::server
