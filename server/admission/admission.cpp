#include "server/admission/admission.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "server/admission/allowed_clients.hpp"
#include "shared/base/printable.hpp"
#include "shared/net/deadline.hpp"
#include "shared/net/url.hpp"

namespace headstart::server {

namespace {

/// Ends a handshake; the peer is told before the conversation ends.
class RefusedPeer : public Error {
 public:
  explicit RefusedPeer(Refusal refusal) : Error(Errc::rejected, refusal.words), refusal_(std::move(refusal)) {}
  [[nodiscard]] const Refusal& refusal() const { return refusal_; }

 private:
  Refusal refusal_;
};

/// What was decided, where it is no refusal. Throws RefusedPeer.
template <class T>
T unless_refused(std::variant<T, Refusal> decision) {
  if (auto* refusal = std::get_if<Refusal>(&decision)) throw RefusedPeer(std::move(*refusal));
  return std::get<T>(std::move(decision));
}

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
  LobbyEntry(AdmissionMachine& machine, std::string name) : machine_(&machine), name_(std::move(name)) {}
  ~LobbyEntry() {
    if (machine_ != nullptr) machine_->leave_lobby(name_);
  }
  LobbyEntry(const LobbyEntry&) = delete;
  LobbyEntry& operator=(const LobbyEntry&) = delete;
  void keep() { machine_ = nullptr; }

 private:
  AdmissionMachine* machine_;
  std::string name_;
};

/// One handshake at a time under each name.
class NameLease {
 public:
  using Holders = std::map<std::string, std::weak_ptr<session::ServerConversation>>;

  /// Of a name that nobody holds. `freed` is notified when it is free again.
  NameLease(Holders& holders, const std::string& name, const std::shared_ptr<session::ServerConversation>& holder,
            net::Signal& freed)
      : holders_(holders), name_(name), freed_(freed) {
    holders_.emplace(name, holder);
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
  info.shares_with_peers = join.shares_with_peers && !join.withholds_model;
  info.withholds_model = join.withholds_model;
  if (!join.own_model.value.empty()) {
    info.own_model = plan::spec_from_json_text(join.own_model.value);
    info.own_architecture = join.own_architecture.value;
  }
  return info;
}

bool offers(const wire::Hello& hello, std::string_view kind) {
  return std::ranges::any_of(hello.tasks.values, [kind](const auto& task) { return task.value == kind; });
}

/// `needed`: what the run may ask any client for.
Greeting greeting_of(const wire::Hello& hello, const std::vector<std::string_view>& needed) {
  Greeting greeting{.name = hello.name.value,
                    .software = hello.software.value,
                    .is_check = hello.is_check,
                    .version = wire::common_version(hello.versions(), wire::spoken_versions),
                    .its_versions = words_of(hello.versions()),
                    .our_versions = words_of(wire::spoken_versions),
                    .unknown_tasks = {}};
  for (const std::string_view kind : needed) {
    if (!offers(hello, kind)) greeting.unknown_tasks.emplace_back(kind);
  }
  return greeting;
}

/// Throws Error(protocol) where a part of it cannot be read.
Joining joining_of(const std::string& name, const wire::Join& join, const plan::Terms& terms) {
  Joining joining{.info = info_of(name, join),
                  .architecture = join.architecture.value,
                  .schema = join.schema.value,
                  .misfit = plan::misfit(join, terms),
                  .figures = {}};
  if (!joining.misfit && !join.samples.value.empty()) {
    joining.figures = plan::report_from_json_text(join.samples.value).figures;
  }
  return joining;
}

std::optional<Member> member_of(const std::shared_ptr<ClientSession>& client) {
  if (!client) return std::nullopt;
  return Member{client->info(), client->num_violations()};
}

}  // namespace

/// What the hooks of one connection know of it.
struct Admission::HandshakeState {
  std::string name;  ///< The peer's address until it has said its name.
  std::weak_ptr<ClientSession> client;
  std::uint16_t protocol = wire::protocol_version;  ///< That is spoken with it.
  bool is_check = false;                            ///< It wants to know whether it may join, and does not.
  bool keeps_models = false;                        ///< See ClientInfo.
  std::function<void()> on_established;
  bool is_told = true;                      ///< Its coming and going have their lines.
  std::optional<std::size_t> count_so_far;  ///< Its comings, where not every one has.
};

Admission::Admission(net::asio::any_io_executor executor, AdmissionRules rules, Lobby& lobby, Roster& roster,
                     UploadSlots& slots, AuditLog& audit, RunObserver& observer, Clock clock)
    : executor_(std::move(executor)),
      rules_(std::move(rules)),
      machine_(std::move(rules_.criteria), lobby),
      lobby_(lobby),
      roster_(roster),
      slots_(slots),
      audit_(audit),
      observer_(observer),
      clock_(std::move(clock)),
      changed_(executor_) {}

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
  RefusalCode code = RefusalCode::unusable;
  try {
    co_await greet(conversation, state);
    co_return;
  } catch (const RefusedPeer& error) {
    refusal = printable(error.what(), wire::max_reason_bytes);
    code = error.refusal().code;
    conversation->post(wire::Refused{refusal, error.refusal().is_for_now});
  } catch (const Error& error) {
    refusal = printable(error.what(), wire::max_reason_bytes);
    // Only what is about the peer is for the peer: anything else may name this machine's files.
    const std::string words = error.code() == Errc::protocol ? refusal : "its log says why";
    conversation->post(wire::Refused{"the server could not take this client: " + words, true});
  }
  observer_.on_refusal(code);
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

net::Task<> Admission::greet(const Conversation& conversation, const std::shared_ptr<HandshakeState>& state) {
  const bool is_over = machine_.stage() == AdmissionMachine::Stage::closed;
  std::optional<net::Deadline> deadline(
      std::in_place, executor_, is_over ? std::min(limit_when_closed, rules_.handshake_limit) : rules_.handshake_limit,
      [conversation] { conversation->abort(); });
  const auto hello = co_await expect<wire::Hello>(*conversation);
  deadline.emplace(executor_, rules_.patience.task, [conversation] { conversation->abort(); });
  const Greeting greeting = greeting_of(hello, rules_.tasks);
  const bool is_certified = !conversation->identity().empty();
  const auto is_listed = [this](const std::string& name) {
    const auto names = listed();
    return !names || names->contains(name);
  };
  const bool is_member = roster_.find(greeting.name) != nullptr;
  if (auto refusal = machine_.greet(greeting, conversation->identity(), is_member, is_listed)) {
    throw RefusedPeer(*std::move(refusal));
  }
  state->protocol = greeting.version.value();
  state->name = greeting.name;
  state->is_check = greeting.is_check;
  state->keeps_models = offers(hello, plan::task::keep);

  if (!lobby_.is_closed()) drop_lost();
  const auto present = roster_.find(state->name);
  if (state->is_check && is_certified && present && !present->is_lost()) {
    (void)co_await handshake(*conversation, *state);
    co_return;
  }
  NameHolders holders;
  holders.alive_at = co_await replace_dead(conversation, state);
  holders.is_joining = in_handshake_.contains(state->name);
  const std::chrono::milliseconds pause = unless_refused(machine_.claim(state->name, holders, clock_()));
  const NameLease lease(in_handshake_, state->name, conversation, changed_);
  co_await slow_down(conversation, pause);
  if (!lobby_.is_closed()) drop_lost();
  co_await let_in(conversation, state);
  changed_.notify();
}

net::Task<> Admission::let_in(const Conversation& conversation, const std::shared_ptr<HandshakeState>& state) {
  const auto known = roster_.find(state->name);
  const std::optional<Member> member = member_of(known);
  const Place place = unless_refused(machine_.place(state->name, member ? &*member : nullptr));
  std::optional<LobbyEntry> entry;
  if (place == Place::lobby) entry.emplace(machine_, state->name);
  // Newcomers have no place among those that the run was to have.
  if (place != Place::newcomer && !state->is_check) state->on_established();
  const std::optional<wire::Join> join = co_await handshake(*conversation, *state);
  if (!join) co_return;
  Joining joining = joining_of(state->name, *join, machine_.criteria().terms);
  joining.info.keeps_models = state->keeps_models;
  const Accepted accepted = unless_refused(machine_.join(place, joining, member ? &*member : nullptr, names()));
  if (place == Place::readmit) {
    readmit(conversation, *state, known, accepted);
  } else if (place == Place::farewell) {
    co_await dismiss(conversation, *state);
  } else {
    if (place == Place::newcomer) {
      rules_.keep_newcomer(joining.info);
      machine_.count_newcomer();
    }
    admit_new(conversation, *state, std::move(joining.info), accepted);
    if (entry) entry->keep();
    if (place == Place::newcomer) observer_.on_note(fmt::format("{} has joined, from the next round on", state->name));
    conversation->post(joined(accepted));
  }
}

net::Task<std::optional<std::string>> Admission::replace_dead(const Conversation& conversation,
                                                              const std::shared_ptr<HandshakeState>& state) {
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
  if (!known || known->is_lost()) co_return std::nullopt;
  // Either the client's old connection is dead and nobody has noticed yet, or there are two of them.
  const std::string there = known->peer();
  const bool is_alive = co_await known->answers(rules_.probe_limit);
  conversation->rethrow_if_ended();
  if (known->is_lost()) co_return std::nullopt;
  if (is_alive) {
    if (doubles_.count(name) && !state->is_check) {
      known->tell(
          fmt::format("another process, at {}, wants to join as '{}'; it was refused, as this one is alive. Is "
                      "this client running twice?",
                      conversation->peer(), name));
    }
    co_return there;
  }
  observer_.on_note(fmt::format("{} has a new connection; the old one gives no sign of life and is given up", name));
  known->abort();
  co_return std::nullopt;
}

net::Task<> Admission::slow_down(const Conversation& conversation, std::chrono::milliseconds pause) {
  if (pause.count() == 0) co_return;
  const net::Deadline deadline(executor_, pause, [this] { changed_.notify(); });
  const auto is_closed = [this] { return machine_.stage() == AdmissionMachine::Stage::closed; };
  while (!deadline.has_expired() && !conversation->has_ended() && !is_closed()) co_await changed_.wait();
  conversation->rethrow_if_ended();
}

void Admission::count_coming(HandshakeState& state) {
  state.is_told = comings_.count(state.name);
  const LogSampler& told = comings_.of(state.name);
  if (told.is_sampled()) state.count_so_far = told.count_so_far();
}

void Admission::admit_new(const Conversation& conversation, HandshakeState& state, ClientInfo info,
                          const Accepted& accepted) {
  const plan::Terms& terms = machine_.criteria().terms;
  const auto client =
      std::make_shared<ClientSession>(conversation, std::move(info), terms.task.num_classes,
                                      machine_.criteria().model_bytes, slots_, audit_, rules_.patience, clock_);
  client->add_violations(accepted.num_violations);
  note_joining(*conversation, state, *client, accepted.warning);
  if (const auto earlier = rules_.refusals.find(state.name); earlier != rules_.refusals.end()) {
    client->add_refusals(earlier->second);
  }
  state.client = client;
  if (conversation->has_ended()) client->on_lost();
  roster_.add(client);
}

std::vector<std::string> Admission::names() const {
  std::vector<std::string> names;
  for (const auto& client : roster_.all()) names.push_back(client->name());
  return names;
}

wire::Joined Admission::joined(const Accepted& accepted) const {
  return {static_cast<std::uint32_t>(roster_.all().size()), static_cast<std::uint32_t>(lobby_.num_expected()),
          accepted.warning};
}

void Admission::note_joining(const session::ServerConversation& conversation, HandshakeState& state,
                             const ClientSession& client, const std::string& warning) {
  count_coming(state);
  if (!state.is_told) return;
  audit_.joined(state.name, conversation.peer(), conversation.identity(), share_word(client.info()),
                state.count_so_far);
  if (warning.empty()) return;
  audit_.samples_differ(state.name, warning);
  observer_.on_note(fmt::format("{} joins, and {}", state.name, warning));
}

net::Task<> Admission::dismiss(const Conversation& conversation, HandshakeState& state) {
  const auto expected = static_cast<std::uint32_t>(lobby_.num_expected());
  conversation->post(wire::Joined{expected, expected});
  count_coming(state);
  if (state.is_told) audit_.returned(state.name, conversation->peer(), conversation->identity(), state.count_so_far);
  try {
    auto parting = say_goodbye(conversation, farewell_, rules_.patience.absence);
    co_await std::move(parting);
  } catch (const Error& error) {
    observer_.on_note(fmt::format("{} may not know that the run is over: {}", state.name, error.what()));
    co_return;
  }
  told_.insert(state.name);
}

void Admission::readmit(const Conversation& conversation, HandshakeState& state,
                        const std::shared_ptr<ClientSession>& client, const Accepted& accepted) {
  count_coming(state);
  if (state.is_told) audit_.returned(state.name, conversation->peer(), conversation->identity(), state.count_so_far);
  state.client = client;
  conversation->post(joined(accepted));
  client->return_with(conversation);
  if (conversation->has_ended()) client->on_lost();
  if (!state.is_told) return;
  observer_.on_note(
      fmt::format("{} is back{}", state.name,
                  state.count_so_far ? fmt::format("; it has come {} times so far", *state.count_so_far) : ""));
}

net::Task<std::optional<wire::Join>> Admission::handshake(session::ServerConversation& conversation,
                                                          const HandshakeState& state) {
  const auto now = std::chrono::floor<std::chrono::milliseconds>(rules_.wall_clock().time_since_epoch());
  const std::optional<learn::Reference> reference = machine_.reference_for(state.name, names());
  conversation.post(wire::Welcome{state.protocol, plan::to_json_text(machine_.criteria().terms), now.count(),
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
    throw RefusedPeer(check_went_on());
  }
  co_return co_await expect<wire::Join>(conversation);
}

void Admission::on_end(HandshakeState& state) {
  const auto client = state.client.lock();
  const bool is_open = machine_.stage() == AdmissionMachine::Stage::open;
  if (client) {
    client->on_lost();
    if (is_open && state.is_told) audit_.connection_lost(state.name, client->ending());
  }
  if (client && lobby_.is_closed() && is_open && state.is_told) {
    const double seconds = std::chrono::duration<double>(rules_.patience.absence).count();
    observer_.on_note(fmt::format("{}: the connection is lost ({}); {}", state.name, client->ending(),
                                  client->is_awaited() ? fmt::format("its place is kept for {} s", seconds)
                                                       : std::string("it is not waited for")));
  }
  changed_.notify();
}

void Admission::start_farewell(std::string words, bool is_failure) {
  machine_.start_farewell();
  farewell_ = wire::Finished{words, is_failure};
}

net::Task<> Admission::wait_until_told() {
  const net::Deadline deadline(executor_, rules_.patience.absence, [this] { changed_.notify(); });
  while (told_.size() < machine_.criteria().roster.size() && !deadline.has_expired() && !machine_.is_stopped())
    co_await changed_.wait();
}

void Admission::close() {
  machine_.close();
  for (const auto& weak : pending_) {
    if (const auto pending = weak.lock()) pending->abort();
  }
}

void Admission::drop_lost() {
  roster_.drop_lost([this](const ClientSession& client) { machine_.forget(client.name(), client.num_violations()); });
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

net::Task<> Admission::complete() {
  const bool is_resumed = !machine_.criteria().roster.empty();
  const std::chrono::milliseconds limit = is_resumed ? rules_.patience.absence : rules_.lobby_limit;
  const TimePoint due = is_resumed || limit.count() > 0 ? clock_() + limit : TimePoint::max();
  bool has_said_who_is_needed = false;
  std::optional<std::vector<std::string>> shown;
  while (true) {
    if (machine_.is_stopped()) throw Error(Errc::interrupted, "stopped while waiting for clients");
    drop_lost();
    // The lobby holds a name from the first word on; the roster, who has finished the handshake.
    const std::vector<std::string> present = names();
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
  machine_.stop();
  close();
  changed_.notify();
}

}  // namespace headstart::server
