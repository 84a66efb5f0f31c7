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

#include "server/admission/admission_machine.hpp"
#include "server/admission/lobby.hpp"
#include "server/operations/run_observer.hpp"
#include "server/sessions/client_session.hpp"
#include "server/sessions/roster.hpp"
#include "shared/base/log_sampler.hpp"
#include "shared/plan/terms.hpp"

namespace headstart::server {

/// What every client must fit, and how long it is waited for.
struct AdmissionRules {
  AdmissionCriteria criteria;
  std::vector<std::string_view> tasks;    ///< What any client may be asked to do.
  std::filesystem::path allowed_clients;  ///< Names that may join, one a line; empty: no such list.
  std::size_t quorum = 1;                 ///< Clients without whom nothing begins.
  std::chrono::milliseconds handshake_limit = std::chrono::seconds(10);  ///< From the upgrade to Hello.
  std::chrono::milliseconds silence = std::chrono::seconds(30);          ///< Told to clients, whose limit it is too.
  std::chrono::milliseconds probe_limit = std::chrono::seconds(3);  ///< For a sign of life of who is there already.
  std::chrono::milliseconds lobby_limit{0};                         ///< Of complete(); 0: none.
  Patience patience;
  WallClock wall_clock;                           ///< Told to clients, which compare it with theirs.
  std::map<std::string, RefusalCounts> refusals;  ///< Of the criteria's roster, so far.
  std::function<void(const ClientInfo&)> keep_newcomer = [](const ClientInfo&) {};  ///< Before it is in.
};

/// Speaks first with every peer, and does what AdmissionMachine decides. One per run; all calls on its executor.
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
  void open_for_late() { machine_.open_for_late(); }
  /// The run is over, and clients are being told: connections may end without a note, and only clients of the run are
  /// admitted, to be told `words` too.
  void start_farewell(std::string words, bool is_failure);
  /// The farewell of a server that was started again: resumes when every client of the roster was told, or
  /// patience.absence is over.
  net::Task<> wait_until_told();
  /// From now on nobody is admitted; handshakes under way end.
  void close();
  /// Whether a client of the run that comes now is admitted.
  [[nodiscard]] bool is_open() const { return machine_.stage() != AdmissionMachine::Stage::closed; }
  /// Ends complete() with Error(interrupted), and admission: clients may come again when the server is back.
  void stop();

 private:
  struct HandshakeState;
  using Conversation = std::shared_ptr<session::ServerConversation>;
  /// Makes the name free where its holder is dead. Where a client of that name is in the run and alive: its address.
  net::Task<std::optional<std::string>> replace_dead(const Conversation& conversation,
                                                     const std::shared_ptr<HandshakeState>& state);
  /// Resumes when `pause` is over, or the connection or admission ends.
  net::Task<> slow_down(const Conversation& conversation, std::chrono::milliseconds pause);
  /// Counts its coming; the times so far where not each is told.
  void count_coming(HandshakeState& state);
  net::Task<> greet(const Conversation& conversation, const std::shared_ptr<HandshakeState>& state);
  /// A client whose name is its own, to its place.
  net::Task<> let_in(const Conversation& conversation, const std::shared_ptr<HandshakeState>& state);
  void note_joining(const session::ServerConversation& conversation, HandshakeState& state, const ClientSession& client,
                    const std::string& warning);
  void admit_new(const Conversation& conversation, HandshakeState& state, ClientInfo info, const Accepted& accepted);
  void readmit(const Conversation& conversation, HandshakeState& state, const std::shared_ptr<ClientSession>& client,
               const Accepted& accepted);
  /// To a client that is not back before the end.
  net::Task<> dismiss(const Conversation& conversation, HandshakeState& state);
  /// Greets; none where the client only checks, and has hung up.
  net::Task<std::optional<wire::Join>> handshake(session::ServerConversation& conversation,
                                                 const HandshakeState& state);
  [[nodiscard]] wire::Joined joined(const Accepted& accepted) const;
  void on_end(HandshakeState& state);
  /// Forgets clients that were lost before the start.
  void drop_lost();
  /// Of the clients that have finished the handshake, in name order.
  [[nodiscard]] std::vector<std::string> names() const;
  /// Who may join by name, read from the file as it is now; empty: there is no such list. Throws Error(data).
  [[nodiscard]] std::optional<std::set<std::string>> listed() const;

  net::asio::any_io_executor executor_;
  AdmissionRules rules_;  ///< Without the criteria, which the machine has.
  AdmissionMachine machine_;
  Lobby& lobby_;
  Roster& roster_;
  UploadSlots& slots_;
  AuditLog& audit_;
  RunObserver& observer_;
  Clock clock_;
  net::Signal changed_;
  std::map<std::string, std::weak_ptr<session::ServerConversation>> in_handshake_;  ///< By the name they gave.
  std::vector<std::weak_ptr<session::ServerConversation>> pending_;                 ///< In their handshake.
  wire::Finished farewell_;
  std::set<std::string> told_;  ///< Of the roster.
  LogSamplers refusals_;        ///< By what a certificate proves, else by address.
  LogSamplers checks_;          ///< By name.
  LogSamplers comings_;         ///< Into the run, by name.
  LogSamplers doubles_;         ///< Comings under the name of a client that is alive, by name.
};

}  // namespace headstart::server
