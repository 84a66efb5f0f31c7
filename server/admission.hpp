// From a new channel to a joined client, or a refusal with a reason.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "server/client_session.hpp"
#include "server/cohort.hpp"
#include "server/lobby.hpp"
#include "server/observer.hpp"

namespace headstart::server {

/// What every client must fit.
struct AdmissionRules {
  session::Terms terms;
  std::string schema_digest;  ///< Of the federated model.
  std::string architecture;
  std::uint64_t model_bytes = 0;
  std::filesystem::path allowed_clients;  ///< Names that may join, one a line; empty: no such list.
};

/// Speaks first with every peer. One per run; all calls on its executor.
class Admission {
 public:
  Admission(net::asio::any_io_executor executor, AdmissionRules rules, Lobby& lobby, Cohort& cohort, UploadSlots& slots,
            FederationObserver& observer);

  /// Takes one peer through the handshake and into lobby and cohort. A peer that is refused, breaks the protocol or is
  /// lost costs nobody else anything: it is noted, and the task ends without an exception.
  net::Task<> admit(std::unique_ptr<net::MessageChannel> channel);

  /// Resumes when the lobby is complete, and closes it. Clients lost while waiting have left it.
  net::Task<> complete();
  /// Ends complete() with Error(interrupted).
  void stop();

 private:
  net::Task<ClientInfo> handshake(session::ServerConversation& conversation);
  /// Why this name may not be used on this channel.
  [[nodiscard]] std::optional<std::string> impostor(const std::string& name, const std::string& identity) const;
  [[nodiscard]] std::optional<std::string> misfit(const wire::Join& join) const;

  net::asio::any_io_executor executor_;
  AdmissionRules rules_;
  Lobby& lobby_;
  Cohort& cohort_;
  UploadSlots& slots_;
  FederationObserver& observer_;
  session::Signal changed_;
  bool is_stopped_ = false;
};

}  // namespace headstart::server
