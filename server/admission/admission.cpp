#include "server/admission/admission.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "server/admission/allowed_clients.hpp"
#include "shared/base/names.hpp"
#include "shared/base/printable.hpp"
#include "shared/net/deadline.hpp"
#include "shared/net/url.hpp"

namespace headstart::server {

namespace {

/// A refusal that the peer is told before the conversation ends.
class Refusal : public Error {
 public:
  enum class Term { for_good, for_now };
  explicit Refusal(const std::string& reason, Term term = Term::for_good)
      : Error(Errc::rejected, reason), term_(term) {}
  [[nodiscard]] bool is_for_now() const { return term_ == Term::for_now; }

 private:
  Term term_;
};

template <class M>
net::Task<M> expect(session::ServerConversation& conversation) {
  const wire::ClientMessage message = co_await conversation.next_message();
  const auto* expected = std::get_if<M>(&message);
  if (expected == nullptr) throw Error(Errc::protocol, "a message out of turn in the handshake");
  co_return *expected;
}

/// Frees the name in the lobby again unless the client got in.
class LobbyEntry {
 public:
  /// `term`: for how long a refusal holds.
  LobbyEntry(Lobby& lobby, std::string name, Refusal::Term term) : lobby_(&lobby), name_(std::move(name)) {
    if (const auto reason = lobby.enter(name_)) throw Refusal(*reason, term);
  }
  ~LobbyEntry() {
    if (lobby_ != nullptr) lobby_->leave(name_);
  }
  LobbyEntry(const LobbyEntry&) = delete;
  LobbyEntry& operator=(const LobbyEntry&) = delete;
  void keep() { lobby_ = nullptr; }

 private:
  Lobby* lobby_;
  std::string name_;
};

/// One handshake at a time under each name.
class NameLease {
 public:
  using Holders = std::map<std::string, std::weak_ptr<session::ServerConversation>>;

  /// `freed` is notified when the name is free again.
  NameLease(Holders& holders, const std::string& name, const std::shared_ptr<session::ServerConversation>& holder,
            net::Signal& freed)
      : holders_(holders), name_(name), freed_(freed) {
    if (!holders_.emplace(name, holder).second) {
      throw Refusal(fmt::format("another connection is just joining as '{}'", name), Refusal::Term::for_now);
    }
  }
  ~NameLease() {
    holders_.erase(name_);
    freed_.notify();
  }
  NameLease(const NameLease&) = delete;
  NameLease& operator=(const NameLease&) = delete;

 private:
  Holders& holders_;
  std::string name_;
  net::Signal& freed_;
};

/// To a server that is over there is nothing to say but why.
constexpr std::chrono::milliseconds limit_when_closed = std::chrono::seconds(1);

ClientInfo info_of(const std::string& name, const wire::Join& join) {
  ClientInfo info;
  info.name = name;
  info.num_examples = static_cast<std::int64_t>(join.num_examples);
  info.num_held_out = static_cast<std::int64_t>(join.num_held_out);
  info.shares_with_peers = join.shares_with_peers;
  if (!join.own_model.value.empty()) {
    info.own_model = plan::spec_from_json_text(join.own_model.value);
    info.own_architecture = join.own_architecture.value;
  }
  return info;
}

/// The version that is spoken with this client. Throws Refusal where there is none.
std::uint16_t version_for(const wire::Hello& hello) {
  const auto version = wire::common_version(hello.versions(), wire::spoken_versions);
  if (version) return *version;
  const std::string& software = hello.software.value;
  throw Refusal(
      fmt::format("this client speaks protocol {}, the server {}; use headstart of the same version on both sides{}",
                  words_of(hello.versions()), words_of(wire::spoken_versions),
                  software.empty() ? std::string() : fmt::format(" (the client says: {})", quotation(software))));
}

/// Throws Refusal where the run may ask the client for what it does not know.
void require_tasks(const wire::Hello& hello, const std::vector<std::string_view>& needed) {
  std::vector<std::string> missing;
  for (const std::string_view kind : needed) {
    const bool is_known = std::ranges::any_of(hello.tasks.values, [kind](const auto& t) { return t.value == kind; });
    if (!is_known) missing.emplace_back(kind);
  }
  if (missing.empty()) return;
  throw Refusal(
      fmt::format("the run has tasks that this client does not know: {}; use a version of headstart that does",
                  fmt::join(missing, ", ")));
}

void require_good_conduct(const std::string& name, int num_violations) {
  if (num_violations < ClientSession::max_violations) return;
  throw Refusal(fmt::format("{} has broken the protocol {} times", name, num_violations));
}

/// What a client brings must be what it brought: the run was weighed and planned with it.
void require_same(const ClientInfo& before, const ClientInfo& now) {
  const auto words = [](const ClientInfo& info) {
    return fmt::format("{} training and {} held-out samples, own architecture {}, {}", info.num_examples,
                       info.num_held_out, quotation(info.own_architecture, max_quoted_bytes, '\''),
                       info.shares_with_peers ? "shared with peers" : "not shared with peers");
  };
  if (words(before) != words(now)) {
    throw Refusal(
        fmt::format("{} is in this run with {}; it returns with {}. Start it with the data and settings it "
                    "joined with",
                    before.name, words(before), words(now)));
  }
}

}  // namespace

/// What the hooks of one connection know of it.
struct Admission::HandshakeState {
  std::string name;  ///< The peer's address until it has said its name.
  std::weak_ptr<ClientSession> client;
  std::uint16_t protocol = wire::protocol_version;  ///< That is spoken with it.
  bool is_check = false;                            ///< It wants to know whether it may join, and does not.
  std::function<void()> on_established;
  bool is_told = true;                      ///< Its coming and going have their lines.
  std::optional<std::size_t> count_so_far;  ///< Its comings, where not every one has.
};

Admission::Admission(net::asio::any_io_executor executor, AdmissionRules rules, Lobby& lobby, Roster& roster,
                     UploadSlots& slots, AuditLog& audit, RunObserver& observer, Clock clock)
    : executor_(std::move(executor)),
      rules_(std::move(rules)),
      lobby_(lobby),
      roster_(roster),
      slots_(slots),
      audit_(audit),
      observer_(observer),
      clock_(std::move(clock)),
      changed_(executor_),
      num_newcomers_(rules_.num_newcomers) {}

net::Task<> Admission::admit(std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_established) {
  auto conversation = std::make_shared<session::ServerConversation>(executor_, std::move(channel));
  const std::string peer = conversation->peer();
  const auto state = std::make_shared<HandshakeState>(
      HandshakeState{.name = peer, .client = {}, .on_established = std::move(on_established)});
  conversation->start({.intercept =
                           [this, state](const wire::ClientMessage& message) {
                             const auto* progress = std::get_if<wire::ProgressReport>(&message);
                             if (progress == nullptr) return false;
                             const bool is_shown = !state->client.expired() && progress->done <= progress->total;
                             if (is_shown) observer_.on_progress(state->name, progress->done, progress->total);
                             return true;
                           },
                       .on_end = [this, state] { on_end(*state); }});
  std::erase_if(pending_, [](const auto& pending) { return pending.expired(); });
  pending_.push_back(conversation);
  std::string refusal;
  try {
    co_await greet(conversation, state);
    co_return;
  } catch (const Refusal& error) {
    refusal = printable(error.what(), wire::max_reason_bytes);
    conversation->post(wire::Refused{refusal, error.is_for_now()});
  } catch (const Error& error) {
    refusal = printable(error.what(), wire::max_reason_bytes);
    // Only what is about the peer is for the peer: anything else may name this machine's files.
    const std::string words = error.code() == Errc::protocol ? refusal : "its log says why";
    conversation->post(wire::Refused{"the server could not take this client: " + words, true});
  }
  observer_.on_refusal();
  const std::string identity = conversation->identity();
  const std::string whom = identity.empty() ? net::address_of(peer) : identity;
  if (refusals_.count(whom)) {
    const LogSampler& told = refusals_.of(whom);
    audit_.refused(peer, identity, state->name == peer ? std::string() : state->name, refusal);
    observer_.on_note(fmt::format("{} ({}) was not admitted: {}{}", state->name, peer, refusal,
                                  told.is_sampled() ? fmt::format("; {} so far", told.count_so_far()) : ""));
  }
  co_await conversation->close("refused");
}

net::Task<> Admission::greet(const std::shared_ptr<session::ServerConversation>& conversation,
                             const std::shared_ptr<HandshakeState>& state) {
  const bool is_over = stage_ == Stage::closed;
  std::optional<net::Deadline> deadline(
      std::in_place, executor_, is_over ? std::min(limit_when_closed, rules_.handshake_limit) : rules_.handshake_limit,
      [conversation] { conversation->abort(); });
  const auto hello = co_await expect<wire::Hello>(*conversation);
  deadline.emplace(executor_, rules_.patience.task, [conversation] { conversation->abort(); });
  state->protocol = version_for(hello);
  if (!is_valid_client_name(hello.name.value)) {
    throw Refusal("the client's name must be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit");
  }
  if (const auto reason = identity_mismatch(hello.name.value, conversation->identity())) throw Refusal(*reason);
  require_tasks(hello, rules_.tasks);
  const bool is_of_the_run =
      lobby_.is_closed() && (roster_.find(hello.name.value) || rules_.roster.contains(hello.name.value));
  if (is_stopped_) throw Refusal("the server is being stopped", Refusal::Term::for_now);
  if (stage_ == Stage::closed || (stage_ == Stage::farewell && !is_of_the_run)) throw Refusal("the run is over");
  state->name = hello.name.value;
  state->is_check = hello.is_check;

  if (!lobby_.is_closed()) drop_lost();
  const bool is_certified = !conversation->identity().empty();
  const auto present = roster_.find(state->name);
  if (state->is_check && is_certified && present && !present->is_lost()) {
    (void)co_await handshake(*conversation, *state);
    co_return;
  }
  co_await replace_dead(conversation, state);
  const NameLease lease(in_handshake_, state->name, conversation, changed_);
  co_await slow_down(conversation, state->name);
  if (!lobby_.is_closed()) drop_lost();
  const auto known = roster_.find(state->name);
  if (known && lobby_.is_closed()) {
    co_await readmit(conversation, state, known);
  } else if (stage_ == Stage::farewell) {
    co_await dismiss(conversation, state);
  } else {
    co_await admit_new(conversation, state);
  }
  changed_.notify();
}

net::Task<> Admission::replace_dead(const Conversation& conversation, const std::shared_ptr<HandshakeState>& state) {
  const std::string name = state->name;
  if (const auto found = in_handshake_.find(name); found != in_handshake_.end()) {
    const auto holder = found->second.lock();
    bool is_alive = false;
    if (holder) is_alive = co_await holder->answers(rules_.probe_limit);
    if (holder && !is_alive) {
      holder->abort();
      const auto holds = [&] {
        const auto still = in_handshake_.find(name);
        return still != in_handshake_.end() && still->second.lock() == holder;
      };
      while (holds()) co_await changed_.wait();
    }
  }
  const auto known = roster_.find(name);
  if (!known || known->is_lost()) co_return;
  // Either the client's old connection is dead and nobody has noticed yet, or there are two of them.
  const std::string there = known->peer();
  const bool is_alive = co_await known->answers(rules_.probe_limit);
  conversation->rethrow_if_ended();
  if (known->is_lost()) co_return;
  if (is_alive) {
    if (doubles_.count(name) && !state->is_check) {
      known->tell(
          fmt::format("another process, at {}, wants to join as '{}'; it was refused, as this one is alive. Is "
                      "this client running twice?",
                      conversation->peer(), name));
    }
    throw Refusal(fmt::format("a client named '{}' is in this run already; give each client a name of its own. That "
                              "one, at {}, is alive; is this client running twice?",
                              name, there),
                  Refusal::Term::for_now);
  }
  observer_.on_note(fmt::format("{} has a new connection; the old one gives no sign of life and is given up", name));
  known->abort();
}

net::Task<> Admission::slow_down(const Conversation& conversation, const std::string& name) {
  const std::chrono::milliseconds pause = pace_.wait(name, clock_());
  if (pause.count() == 0) co_return;
  const net::Deadline deadline(executor_, pause, [this] { changed_.notify(); });
  while (!deadline.has_expired() && !conversation->has_ended() && stage_ != Stage::closed) co_await changed_.wait();
  conversation->rethrow_if_ended();
}

void Admission::count_coming(HandshakeState& state) {
  state.is_told = comings_.count(state.name);
  const LogSampler& told = comings_.of(state.name);
  if (told.is_sampled()) state.count_so_far = told.count_so_far();
}

net::Task<> Admission::admit_new(const std::shared_ptr<session::ServerConversation>& conversation,
                                 const std::shared_ptr<HandshakeState>& state) {
  const auto on_roster = rules_.roster.find(state->name);
  const bool is_of_the_run = on_roster != rules_.roster.end();
  const bool is_newcomer = require_place(is_of_the_run);
  std::optional<LobbyEntry> entry;
  // A place may be free a little later: its holder may never join, or be lost before the start, and newcomers have
  // places of their own soon.
  if (!lobby_.is_closed()) entry.emplace(lobby_, state->name, Refusal::Term::for_now);
  if (!is_newcomer && !state->is_check) state->on_established();
  const std::optional<wire::Join> join = co_await handshake(*conversation, *state);
  if (!join) co_return;
  const auto earlier_violations = violations_.find(state->name);
  const int num_violations = earlier_violations == violations_.end() ? 0 : earlier_violations->second;
  require_good_conduct(state->name, num_violations);
  ClientInfo info = info_of(state->name, *join);
  const std::string warning = require_comparable(state->name, *join, is_of_the_run);
  if (is_of_the_run) require_same(on_roster->second, info);
  if (entry && lobby_.is_closed() && !is_of_the_run) {
    throw Refusal("the run has started without this client", Refusal::Term::for_now);
  }
  if (is_newcomer) {
    if (num_newcomers_ >= rules_.num_late) throw Refusal("the run has started, and no place is left");
    rules_.keep_newcomer(info);
    ++num_newcomers_;
  }
  const auto client = std::make_shared<ClientSession>(conversation, std::move(info), rules_.terms.task.num_classes,
                                                      rules_.model_bytes, slots_, audit_, rules_.patience, clock_);
  client->add_violations(num_violations);
  note_joining(*conversation, *state, *client, warning);
  if (entry) entry->keep();
  if (const auto earlier = rules_.refusals.find(state->name); earlier != rules_.refusals.end()) {
    client->add_refusals(earlier->second);
  }
  state->client = client;
  if (conversation->has_ended()) client->on_lost();
  roster_.add(client);
  if (is_newcomer) observer_.on_note(fmt::format("{} has joined, from the next round on", state->name));
  conversation->post(wire::Joined{static_cast<std::uint32_t>(roster_.all().size()),
                                  static_cast<std::uint32_t>(lobby_.num_expected()), warning});
}

bool Admission::require_place(bool is_of_the_run) const {
  if (!rules_.roster.empty() && !is_of_the_run && !is_open_for_late_) {
    throw Refusal(fmt::format("the run goes on with the {} clients that it began with", rules_.roster.size()),
                  rules_.num_late > 0 ? Refusal::Term::for_now : Refusal::Term::for_good);
  }
  if (!lobby_.is_closed() || is_of_the_run) return false;
  if (num_newcomers_ >= rules_.num_late) throw Refusal("the run has started; clients join before that");
  if (!is_open_for_late_) {
    throw Refusal("the run has started; new clients can join when its rounds begin", Refusal::Term::for_now);
  }
  return true;
}

void Admission::note_joining(const session::ServerConversation& conversation, HandshakeState& state,
                             const ClientSession& client, const std::string& warning) {
  count_coming(state);
  if (!state.is_told) return;
  audit_.joined(state.name, conversation.peer(), conversation.identity(), client.info().shares_with_peers,
                state.count_so_far);
  if (warning.empty()) return;
  audit_.samples_differ(state.name, warning);
  observer_.on_note(fmt::format("{} joins, and {}", state.name, warning));
}

net::Task<> Admission::dismiss(const std::shared_ptr<session::ServerConversation>& conversation,
                               const std::shared_ptr<HandshakeState>& state) {
  if (!state->is_check) state->on_established();
  const std::optional<wire::Join> join = co_await handshake(*conversation, *state);
  if (!join) co_return;
  const auto expected = static_cast<std::uint32_t>(lobby_.num_expected());
  conversation->post(wire::Joined{expected, expected});
  count_coming(*state);
  if (state->is_told) audit_.returned(state->name, conversation->peer(), conversation->identity(), state->count_so_far);
  try {
    auto parting = say_goodbye(conversation, farewell_, rules_.patience.absence);
    co_await std::move(parting);
  } catch (const Error& error) {
    observer_.on_note(fmt::format("{} may not know that the run is over: {}", state->name, error.what()));
    co_return;
  }
  told_.insert(state->name);
}

net::Task<> Admission::readmit(const std::shared_ptr<session::ServerConversation>& conversation,
                               const std::shared_ptr<HandshakeState>& state, std::shared_ptr<ClientSession> client) {
  require_good_conduct(state->name, client->num_violations());
  if (!state->is_check) state->on_established();
  const std::optional<wire::Join> join = co_await handshake(*conversation, *state);
  if (!join) co_return;
  require_same(client->info(), info_of(state->name, *join));
  const std::string warning = require_same_samples(state->name, *join);
  count_coming(*state);
  if (state->is_told) audit_.returned(state->name, conversation->peer(), conversation->identity(), state->count_so_far);
  state->client = client;
  conversation->post(wire::Joined{static_cast<std::uint32_t>(roster_.all().size()),
                                  static_cast<std::uint32_t>(lobby_.num_expected()), warning});
  client->return_with(conversation);
  if (conversation->has_ended()) client->on_lost();
  if (state->is_told) {
    observer_.on_note(
        fmt::format("{} is back{}", state->name,
                    state->count_so_far ? fmt::format("; it has come {} times so far", *state->count_so_far) : ""));
  }
}

net::Task<std::optional<wire::Join>> Admission::handshake(session::ServerConversation& conversation,
                                                          const HandshakeState& state) {
  const auto now = std::chrono::floor<std::chrono::milliseconds>(rules_.wall_clock().time_since_epoch());
  const std::optional<learn::Reference> reference = reference_for(state.name);
  conversation.post(wire::Welcome{state.protocol, plan::to_json_text(rules_.terms), now.count(),
                                  static_cast<std::uint32_t>(rules_.silence.count()),
                                  reference ? plan::to_json_text(*reference) : std::string()});
  if (state.is_check) {
    if (checks_.count(state.name)) {
      audit_.checked(state.name, conversation.peer(), conversation.identity());
      observer_.on_note(fmt::format("{} ({}) checks whether it may join: it may", state.name, conversation.peer()));
    }
    // It has what it came for: its place is needed.
    const net::Deadline deadline(executor_, rules_.handshake_limit, [&conversation] { conversation.abort(); });
    try {
      (void)co_await conversation.next_message();
    } catch (const Error&) {
      co_return std::nullopt;  // it has hung up
    }
    throw Refusal("a check does not join");
  }
  auto join = co_await expect<wire::Join>(conversation);
  if (const auto reason = misfit(join)) throw Refusal(*reason);
  co_return join;
}

void Admission::on_end(HandshakeState& state) {
  const auto client = state.client.lock();
  if (client) {
    client->on_lost();
    if (stage_ == Stage::open && state.is_told) audit_.connection_lost(state.name, client->ending());
  }
  if (client && lobby_.is_closed() && stage_ == Stage::open && state.is_told) {
    const double seconds = std::chrono::duration<double>(rules_.patience.absence).count();
    observer_.on_note(fmt::format("{}: the connection is lost ({}); {}", state.name, client->ending(),
                                  client->is_awaited() ? fmt::format("its place is kept for {} s", seconds)
                                                       : std::string("it is not waited for")));
  }
  changed_.notify();
}

void Admission::start_farewell(std::string words, bool is_failure) {
  stage_ = Stage::farewell;
  farewell_ = wire::Finished{words, is_failure};
}

net::Task<> Admission::wait_until_told() {
  const net::Deadline deadline(executor_, rules_.patience.absence, [this] { changed_.notify(); });
  while (told_.size() < rules_.roster.size() && !deadline.has_expired() && !is_stopped_) co_await changed_.wait();
}

void Admission::close() {
  stage_ = Stage::closed;
  for (const auto& weak : pending_) {
    if (const auto pending = weak.lock()) pending->abort();
  }
}

void Admission::drop_lost() {
  roster_.drop_lost([this](const ClientSession& client) {
    lobby_.leave(client.name());
    figures_.erase(client.name());
    if (client.num_violations() > 0) violations_[client.name()] = client.num_violations();
  });
}

std::optional<std::string> Admission::identity_mismatch(const std::string& name, const std::string& identity) const {
  if (!identity.empty() && identity != name) {
    return fmt::format("the client calls itself {}, its certificate is that of {}", name, identity);
  }
  const auto names = listed();
  if (!names || names->contains(name)) return std::nullopt;
  return fmt::format("{} is not on the list of the clients that may join", name);
}

std::optional<std::set<std::string>> Admission::listed() const {
  if (rules_.allowed_clients.empty()) return std::nullopt;
  return read_allowed_clients(rules_.allowed_clients);
}

void Admission::disconnect_removed_clients() {
  std::optional<std::set<std::string>> names;
  try {
    names = listed();
  } catch (const Error& error) {
    observer_.on_note(fmt::format("listen.allowed: {}; nobody is put out", error.what()));
  }
  if (!names) return;
  for (const auto& client : roster_.all()) {
    if (client->is_lost() || names->contains(client->name())) continue;
    observer_.on_note(fmt::format(
        "{} is not on the list of the clients that may join any more; its connection is ended", client->name()));
    client->abort();
  }
}

std::optional<std::string> Admission::misfit(const wire::Join& join) const {
  if (!join.own_model.value.empty()) {
    const learn::ModelSpec own = plan::spec_from_json_text(join.own_model.value);
    try {
      // A script is never built here, and a peer must not name files of this machine.
      std::optional<std::string> excess;
      if (!own.is_scripted()) excess = plan::beyond_own_model_limit(own, rules_.terms, rules_.model_bytes);
      if (excess) return fmt::format("the client's own model {}", *excess);
    } catch (const Error& error) {
      return fmt::format("the client's own model: {}", error.what());
    }
  }
  if (const auto reason = plan::misfit(join, rules_.terms)) return reason;
  if (join.schema.value != rules_.schema_digest) {
    return fmt::format("the client's '{}' has another schema than the server's; are the versions the same?",
                       join.architecture.value);
  }
  return std::nullopt;
}

std::optional<learn::Reference> Admission::reference_for(const std::string& client) const {
  if (rules_.figures) return learn::Reference{"the server", *rules_.figures};
  std::vector<std::string> names;
  std::vector<learn::SampleFigures> figures;
  for (const auto& other : roster_.all()) {
    const auto known = figures_.find(other->name());
    if (known == figures_.end() || other->name() == client) continue;
    names.push_back(other->name());
    figures.push_back(known->second);
  }
  if (figures.empty()) return std::nullopt;
  return learn::Reference{learn::list_text(names), learn::pooled(figures)};
}

std::string Admission::require_comparable(const std::string& client, const wire::Join& join, bool is_of_the_run) {
  if (join.samples.value.empty()) return {};
  const plan::SampleReport report = plan::report_from_json_text(join.samples.value);
  const learn::FiguresVerdict verdict =
      learn::compare(report.figures, rules_.terms.samples, rules_.terms.task, reference_for(client));
  if (!verdict.refusal.empty() && !is_of_the_run) throw Refusal(verdict.refusal);
  figures_.insert_or_assign(client, report.figures);
  return verdict.refusal + verdict.warning;
}

std::string Admission::require_same_samples(const std::string& client, const wire::Join& join) {
  const auto before = figures_.find(client);
  // A server that was started again has not seen them.
  if (before == figures_.end() || join.samples.value.empty()) return require_comparable(client, join, true);
  const std::string earlier = learn::words_of(before->second);
  const std::string now = learn::words_of(plan::report_from_json_text(join.samples.value).figures);
  if (earlier == now) return {};
  throw Refusal(
      fmt::format("{} is in this run with samples of {}; it returns with {}. Start it with the data it "
                  "joined with",
                  client, earlier, now));
}

net::Task<> Admission::complete() {
  const bool is_resumed = !rules_.roster.empty();
  const std::chrono::milliseconds limit = is_resumed ? rules_.patience.absence : rules_.lobby_limit;
  const TimePoint due = is_resumed || limit.count() > 0 ? clock_() + limit : TimePoint::max();
  bool has_said_who_is_needed = false;
  std::optional<std::vector<std::string>> shown;
  while (true) {
    if (is_stopped_) throw Error(Errc::interrupted, "stopped while waiting for clients");
    drop_lost();
    // The lobby holds a name from the first word on; the roster, who has finished the handshake.
    std::vector<std::string> present;
    for (const auto& client : roster_.all()) present.push_back(client->name());
    if (present != shown) observer_.on_lobby(present, lobby_.num_expected());
    shown = present;
    const bool is_due = clock_() >= due;
    if (present.size() == lobby_.num_expected() || (is_due && present.size() >= rules_.quorum)) break;
    if (is_due && !is_resumed) {
      throw Error(Errc::run_failed, fmt::format("lobby: {} of {} clients came within timeouts.lobby, {} are needed",
                                                present.size(), lobby_.num_expected(), rules_.quorum));
    }
    if (is_due && !std::exchange(has_said_who_is_needed, true)) {
      observer_.on_note(
          fmt::format("{} of {} clients are back and {} are needed; waiting for more. To go on with fewer, stop the "
                      "server and start it again with a smaller federation.min_clients",
                      present.size(), lobby_.num_expected(), rules_.quorum));
    }
    std::optional<net::Deadline> deadline;
    if (!is_due && due != TimePoint::max()) {
      deadline.emplace(executor_, std::chrono::ceil<std::chrono::milliseconds>(due - clock_()),
                       [this] { changed_.notify(); });
    }
    co_await changed_.wait();
  }
  lobby_.close();
}

void Admission::stop() {
  is_stopped_ = true;
  close();
  changed_.notify();
}

}  // namespace headstart::server
