// From a new channel to a joined client, or a refusal with a reason.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/admission/lobby.hpp"
#include "server/admission/pace.hpp"
#include "server/operations/run_observer.hpp"
#include "server/sessions/client_session.hpp"
#include "server/sessions/roster.hpp"
#include "shared/base/log_sampler.hpp"
#include "shared/plan/terms.hpp"

namespace headstart::server {

/// What every client must fit, and how long it is waited for.
struct AdmissionRules {
  plan::Terms terms;
  std::vector<std::string_view> tasks;          ///< What any client may be asked to do.
  std::string schema_digest;                    ///< Of the federated model.
  std::optional<learn::SampleFigures> figures;  ///< Of the server's own samples; nothing: clients' are compared.
  std::uint64_t model_bytes = 0;
  std::filesystem::path allowed_clients;  ///< Names that may join, one a line; empty: no such list.
  std::size_t quorum = 1;                 ///< Clients without whom nothing begins.
  std::int64_t num_late = 0;              ///< Newcomers that may join between rounds.
  std::chrono::milliseconds handshake_limit = std::chrono::seconds(10);  ///< From the upgrade to Hello.
  std::chrono::milliseconds silence = std::chrono::seconds(30);     ///< LogSampler to clients, whose limit it is too.
  std::chrono::milliseconds probe_limit = std::chrono::seconds(3);  ///< For a sign of life of who is there already.
  std::chrono::milliseconds lobby_limit{0};                         ///< Of complete(); 0: none.
  Patience patience;
  WallClock wall_clock;  ///< LogSampler to clients, which compare it with theirs.
  /// Of the run that is being resumed: who was in it, with what. Empty for a new run.
  std::map<std::string, ClientInfo> roster;
  std::map<std::string, RefusalCounts> refusals;                                    ///< Of the roster, so far.
  std::int64_t num_newcomers = 0;                                                   ///< Of the roster, who joined late.
  std::function<void(const ClientInfo&)> keep_newcomer = [](const ClientInfo&) {};  ///< Before it is in.
};

/// Speaks first with every peer. One per run; all calls on its executor.
class Admission {
 public:
  Admission(net::asio::any_io_executor executor, AdmissionRules rules, Lobby& lobby, Roster& roster, UploadSlots& slots,
            AuditLog& audit, RunObserver& observer, Clock clock);

  /// Takes one peer through the handshake and into the run: through the lobby, back to its place, or, once
  /// open_for_late() was called, as a newcomer. A peer that is refused, breaks the protocol or is lost costs nobody
  /// else anything: it is noted, and the task ends without an exception. One that comes under the name of a client that
  /// is there takes its place where that one gives no sign of life, and is refused otherwise; both are told.
  /// `on_established`: it has a place in this run, which only as many have as the run has clients.
  net::Task<> admit(
      std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_established = [] {});

  /// Resumes when the lobby is complete, and closes it. Clients lost while waiting have left it. When lobby_limit is
  /// over the quorum suffices; throws Error(run_failed) where it is not there (a resumed run waits for it).
  net::Task<> complete();
  /// Ends the connections of clients that are not on the list of those that may join any more.
  void disconnect_removed_clients();
  /// From now on newcomers are taken in, as far as the rules go.
  void open_for_late() { is_open_for_late_ = true; }
  /// The run is over, and clients are being told: connections may end without a note, and only clients of the run are
  /// admitted, to be told `words` too.
  void start_farewell(std::string words, bool is_failure);
  /// The farewell of a server that was started again: resumes when every client of the roster was told, or
  /// patience.absence is over.
  net::Task<> wait_until_told();
  /// From now on nobody is admitted; handshakes under way end.
  void close();
  /// Whether a client of the run that comes now is admitted.
  [[nodiscard]] bool is_open() const { return stage_ != Stage::closed; }
  /// Ends complete() with Error(interrupted), and admission: clients may come again when the server is back.
  void stop();

 private:
  struct HandshakeState;
  using Conversation = std::shared_ptr<session::ServerConversation>;
  /// Makes the name free where its holder is dead; throws what the newcomer is refused with where it is alive.
  net::Task<> replace_dead(const Conversation& conversation, const std::shared_ptr<HandshakeState>& state);
  /// The pace at which one client may come.
  net::Task<> slow_down(const Conversation& conversation, const std::string& name);
  /// Counts its coming; the times so far where not each is told.
  void count_coming(HandshakeState& state);
  net::Task<> greet(const std::shared_ptr<session::ServerConversation>& conversation,
                    const std::shared_ptr<HandshakeState>& state);
  /// Throws a refusal where the run takes no such client; whether it would be a newcomer between rounds.
  [[nodiscard]] bool require_place(bool is_of_the_run) const;
  void note_joining(const session::ServerConversation& conversation, HandshakeState& state, const ClientSession& client,
                    const std::string& warning);
  net::Task<> admit_new(const std::shared_ptr<session::ServerConversation>& conversation,
                        const std::shared_ptr<HandshakeState>& state);
  net::Task<> readmit(const std::shared_ptr<session::ServerConversation>& conversation,
                      const std::shared_ptr<HandshakeState>& state, std::shared_ptr<ClientSession> client);
  /// To a client that is not back before the end.
  net::Task<> dismiss(const std::shared_ptr<session::ServerConversation>& conversation,
                      const std::shared_ptr<HandshakeState>& state);
  /// Greets; none where the client only checks, and has hung up.
  net::Task<std::optional<wire::Join>> handshake(session::ServerConversation& conversation,
                                                 const HandshakeState& state);
  void on_end(HandshakeState& state);
  /// Forgets clients that were lost before the start.
  void drop_lost();
  /// Why this name may not be used on this channel.
  [[nodiscard]] std::optional<std::string> identity_mismatch(const std::string& name,
                                                             const std::string& identity) const;
  /// Who may join by name, read from the file as it is now; empty: there is no such list. Throws Error(data).
  [[nodiscard]] std::optional<std::set<std::string>> listed() const;
  [[nodiscard]] std::optional<std::string> misfit(const wire::Join& join) const;
  /// What the samples of `client` are compared with: the server's, or those of the others that have joined.
  [[nodiscard]] std::optional<learn::Reference> reference_for(const std::string& client) const;
  /// Compares what the client says of its samples. Throws Refusal where they cannot be of this run; returns what else
  /// is odd about them.
  [[nodiscard]] std::string require_comparable(const std::string& client, const wire::Join& join, bool is_of_the_run);
  /// Likewise of a client that comes back: its samples must be those that it joined with. Throws as require_same()
  /// does.
  [[nodiscard]] std::string require_same_samples(const std::string& client, const wire::Join& join);

  net::asio::any_io_executor executor_;
  AdmissionRules rules_;
  Lobby& lobby_;
  Roster& roster_;
  UploadSlots& slots_;
  AuditLog& audit_;
  RunObserver& observer_;
  Clock clock_;
  net::Signal changed_;
  std::map<std::string, std::weak_ptr<session::ServerConversation>> in_handshake_;  ///< By the name they gave.
  std::vector<std::weak_ptr<session::ServerConversation>> pending_;                 ///< In their handshake.
  std::int64_t num_newcomers_;
  wire::Finished farewell_;
  std::set<std::string> told_;                           ///< Of the roster.
  LogSamplers refusals_;                                 ///< By what a certificate proves, else by address.
  LogSamplers checks_;                                   ///< By name.
  LogSamplers comings_;                                  ///< Into the run, by name.
  LogSamplers doubles_;                                  ///< Comings under the name of a client that is alive, by name.
  Pace pace_;                                            ///< By name.
  std::map<std::string, learn::SampleFigures> figures_;  ///< Of clients that joined, by name.
  std::map<std::string, int> violations_;                ///< Of clients that were lost before the start, and forgotten.
  enum class Stage { open, farewell, closed } stage_ = Stage::open;
  bool is_open_for_late_ = false;
  bool is_stopped_ = false;
};

}  // namespace headstart::server
