// Whom the run takes: what admission decides about a peer, as a machine without sockets, messages, files or clock.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "server/admission/lobby.hpp"
#include "server/admission/pace.hpp"
#include "server/admission/refusal.hpp"
#include "server/sessions/client_info.hpp"
#include "shared/base/clock.hpp"
#include "shared/plan/terms.hpp"

namespace headstart::server {

/// What every client must fit.
struct AdmissionCriteria {
  plan::Terms terms;
  std::string schema_digest;                    ///< Of the federated model.
  std::optional<learn::SampleFigures> figures;  ///< Of the server's own samples; nothing: clients' are compared.
  std::uint64_t model_bytes = 0;                ///< Of the federated model.
  std::int64_t num_late = 0;                    ///< Newcomers that may join between rounds.
  /// Of the run that is being resumed: who was in it, with what. Empty for a new run.
  std::map<std::string, ClientInfo> roster;
  std::int64_t num_newcomers = 0;  ///< Of the roster, who joined late.
  int max_violations = 3;          ///< Violations against the protocol after which a client is refused.
};

/// A peer's first message, and what of it this server knows.
struct Greeting {
  std::string name;
  std::string software;
  bool is_check = false;                   ///< It wants to know whether it may join, and does not.
  std::optional<std::uint16_t> version;    ///< The newest protocol version that both sides speak; nothing: none.
  std::string its_versions, our_versions;  ///< In words.
  std::vector<std::string> unknown_tasks;  ///< Tasks of the run that the client does not know, in words.
};

/// Who else uses a client's name.
struct NameHolders {
  bool is_joining = false;  ///< Another connection is in its handshake under it.
  std::optional<std::string>
      alive_at;  ///< Address of a connection that is in the run under it and gives signs of life.
};

/// A client that this server has in the run, connected or not.
struct Member {
  ClientInfo info;
  int num_violations = 0;
};

/// What a client brings.
struct Joining {
  ClientInfo info;
  std::string architecture, schema;             ///< Of the federated model, as the client built it.
  std::optional<std::string> misfit;            ///< What plan::misfit() says.
  std::optional<learn::SampleFigures> figures;  ///< Of its samples; nothing where it says nothing of them.
};

/// Where a client that may join comes in.
enum class Place {
  lobby,     ///< One of the places of a run that has not started; Lobby holds it.
  rejoined,  ///< Its place in a run that goes on under a server that was started again.
  newcomer,  ///< From the next round on.
  readmit,   ///< Back to its session.
  farewell,  ///< To be told that the run is over.
};

struct Accepted {
  std::string warning;     ///< What is odd about its samples; empty: nothing.
  int num_violations = 0;  ///< Of an earlier session, which the run has forgotten.
};

/// The questions are asked in this order for each connection: greet(), claim(), place(), join(). Between them the
/// connection waits, and others move on: each answer holds for the moment. One per run.
class AdmissionMachine {
 public:
  enum class Stage {
    open,
    farewell,  ///< The run is over: clients of the run are admitted to be told.
    closed,    ///< Nobody is admitted.
  };
  using Listed = std::function<bool(const std::string& name)>;

  /// `lobby` outlives the machine.
  AdmissionMachine(AdmissionCriteria criteria, Lobby& lobby);

  [[nodiscard]] const AdmissionCriteria& criteria() const { return criteria_; }
  [[nodiscard]] Stage stage() const { return stage_; }
  [[nodiscard]] bool is_stopped() const { return is_stopped_; }
  /// Of the criteria's roster: whether the run that is resumed has this client.
  [[nodiscard]] bool is_on_roster(const std::string& name) const { return criteria_.roster.contains(name); }

  /// From now on newcomers are taken, as far as the criteria go.
  void open_for_late() { is_open_for_late_ = true; }
  void start_farewell() { stage_ = Stage::farewell; }
  void close() { stage_ = Stage::closed; }
  /// The server ends, and the run does not: clients may come again.
  void stop();

  /// Whether the run speaks with this peer at all. `identity`: the name that its certificate proves; empty: there is
  /// none. `is_member`: this server has a client of that name in the run. `is_listed` is asked last of who the peer is;
  /// what it throws is passed on.
  [[nodiscard]] std::optional<Refusal> greet(const Greeting& greeting, const std::string& identity, bool is_member,
                                             const Listed& is_listed) const;
  /// Whether a connection may use the name, and how long it waits before it goes on: who comes again and again is
  /// slowed down. Counts the coming.
  [[nodiscard]] std::variant<std::chrono::milliseconds, Refusal> claim(const std::string& name,
                                                                       const NameHolders& holders, TimePoint now);
  /// Where the client comes in. `member`: null where this server has no such client. Place::lobby is taken until
  /// leave_lobby() or forget() is called for the name.
  [[nodiscard]] std::variant<Place, Refusal> place(const std::string& name, const Member* member);
  /// Whether what the client brings can be of the run. `member`: as for place(), needed for Place::readmit. `present`:
  /// names of all clients that are in the run.
  [[nodiscard]] std::variant<Accepted, Refusal> join(Place place, const Joining& joining, const Member* member,
                                                     const std::vector<std::string>& present);
  /// A newcomer that was accepted is in the run.
  void count_newcomer() { ++num_newcomers_; }

  void leave_lobby(const std::string& name) { lobby_.leave(name); }
  /// A client that was lost before the start: its place is free, its violations are not forgotten.
  void forget(const std::string& name, int num_violations);

  /// What the samples of `client` are compared with: the server's, or those of the others of `present`.
  [[nodiscard]] std::optional<learn::Reference> reference_for(const std::string& client,
                                                              const std::vector<std::string>& present) const;

 private:
  [[nodiscard]] std::optional<Refusal> misfit(const Joining& joining) const;
  [[nodiscard]] std::optional<Refusal> bad_conduct(const std::string& name, int num_violations) const;
  /// What a new client brings; see join().
  [[nodiscard]] std::variant<Accepted, Refusal> join_anew(Place place, const Joining& joining,
                                                          const std::vector<std::string>& present);
  /// Compares the samples; a client that is of the run already is warned where another is refused.
  [[nodiscard]] std::variant<Accepted, Refusal> compare(const Joining& joining, const std::vector<std::string>& present,
                                                        bool is_of_the_run);
  /// Likewise of a client that is back: its samples must be those that it joined with.
  [[nodiscard]] std::variant<Accepted, Refusal> compare_with_before(const Joining& joining,
                                                                    const std::vector<std::string>& present);

  AdmissionCriteria criteria_;
  Lobby& lobby_;
  Stage stage_ = Stage::open;
  bool is_open_for_late_ = false;
  bool is_stopped_ = false;
  std::int64_t num_newcomers_;
  Pace pace_;                                            ///< By name.
  std::map<std::string, learn::SampleFigures> figures_;  ///< Of clients that joined, by name.
  std::map<std::string, int> violations_;                ///< Of clients that were lost before the start, and forgotten.
};

/// Of a peer that checks, and then says more.
Refusal check_went_on();

}  // namespace headstart::server
