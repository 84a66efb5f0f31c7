#include "client/peer/peer_run.hpp"

#include <algorithm>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/version.hpp"
#include "shared/learn/aggregate/aggregator.hpp"
#include "shared/net/deadline.hpp"
#include "shared/net/offload.hpp"

namespace headstart::peer {

namespace {

using session::PeerConversation;
using wire::PackedState;

/// How often a round that waits says so.
constexpr std::chrono::milliseconds waiting_words_pause = std::chrono::seconds(10);

/// Of an attachment that will not come.
struct NotKept : Error {
  NotKept() : Error(Errc::interrupted, "the message is not kept any more") {}
};

/// Thrown out of a conversation that is refused, by either side.
struct Refusal : Error {
  explicit Refusal(const std::string& why) : Error(Errc::rejected, why) {}
};

/// What the bytes of a message are worth.
struct Inspection {
  std::string damage;     ///< How it differs from what was announced; empty: it does not.
  std::string violation;  ///< Why its values cannot be used, in a sentence; empty: they can.
};

Inspection inspect(const PackedState& message, const std::string& announced) {
  if (message.bytes().empty()) return {};
  if (message.digest() != announced)
    return {.damage = "its bytes do not have the digest that was announced", .violation = {}};
  const learn::StateBlocks blocks(message.state().schema());
  return {.damage = {}, .violation = blocks.violation_in(0, message.bytes()).value_or("")};
}

/// Messages that were damaged on the way, of one neighbour, until that counts as its own fault.
constexpr int max_damaged = 3;

/// Questions of one neighbour that may wait for their answers: it asks one at a time, and the last answer may be on its
/// way.
constexpr int max_pulls = 4;

}  // namespace

wire::PeerHello greeting(const std::string& name, const std::map<std::string, std::string>& digests,
                         std::int64_t rounds_done, bool is_check) {
  wire::PeerHello hello;
  hello.name = name;
  hello.software = fmt::format("headstart {}", version());
  hello.is_check = is_check;
  hello.rounds_done = static_cast<std::uint32_t>(std::max<std::int64_t>(0, rounds_done));
  for (const auto& [section, digest] : digests) {
    hello.sections.values.emplace_back(section);
    hello.digests.values.emplace_back(digest);
  }
  return hello;
}

std::optional<std::string> objection_to(const wire::PeerHello& hello, const std::string& expected,
                                        const std::string& identity,
                                        const std::map<std::string, std::string>& digests) {
  if (!wire::common_version(hello.versions(), wire::spoken_peer_versions)) {
    return fmt::format("it speaks {} of the protocol between peers, and this peer {}", wire::words_of(hello.versions()),
                       wire::words_of(wire::spoken_peer_versions));
  }
  if (!expected.empty() && hello.name.value != expected) {
    return fmt::format("it calls itself '{}', and '{}' is expected there", hello.name.value, expected);
  }
  if (!identity.empty() && identity != hello.name.value) {
    return fmt::format("it calls itself '{}', and its certificate is that of '{}'", hello.name.value, identity);
  }
  std::map<std::string, std::string> theirs;
  for (std::size_t i = 0; i < hello.sections.values.size(); ++i) {
    theirs[hello.sections.values[i].value] = hello.digests.values[i].value;
  }
  std::vector<std::string> differ;
  for (const auto& [section, digest] : digests) {
    const auto found = theirs.find(section);
    if (found == theirs.end() || found->second != digest) differ.push_back(section);
  }
  for (const auto& [section, digest] : theirs) {
    if (!digests.contains(section)) differ.push_back(section);
  }
  if (differ.empty()) return std::nullopt;
  return fmt::format("it differs from this peer in {}; all peers need the same peers.json", fmt::join(differ, ", "));
}

class PeerRun::State : public std::enable_shared_from_this<State> {
 public:
  State(PeerContext context, const PeersFile& file, std::string name, std::map<std::string, std::string> digests,
        PeerLearner& learner, PeerFolder& folder)
      : context_(std::move(context)),
        file_(file),
        name_(std::move(name)),
        digests_(std::move(digests)),
        learner_(learner),
        folder_(folder),
        machine_(learner.neighbours(), file.patience(), context_.clock()),
        changed_(context_.executor) {
    for (const std::string& neighbour : learner.neighbours()) neighbours_[neighbour];
  }

  net::Task<nlohmann::json> run();
  net::Task<> admit(std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_established);
  void stop();
  [[nodiscard]] PeerStatus status() const;

 private:
  struct Offer {
    std::uint64_t num_bytes = 0;
    std::string digest;
  };
  struct Neighbour {
    std::shared_ptr<PeerConversation> conversation;
    std::map<std::int64_t, Offer> offers;  ///< Of the newest rounds, on this connection.
    bool is_pulling = false;
    std::int64_t pulled = 0;  ///< The round that is_pulling is about.
    int num_pulls = 0;        ///< Of its questions, since all that was queued for it had gone out.
    int num_damaged = 0;      ///< Since a message came whole.
    std::string complaint;    ///< What was logged last of failed attempts.
  };

  // ---- rounds
  net::Task<> pretrain();
  net::Task<> go_through_rounds();
  net::Task<> prepare(std::int64_t round);
  /// The messages of the round, by sender; nothing where the round is to be skipped.
  net::Task<std::optional<Participation>> collect(std::int64_t round);
  net::Task<> combine(std::int64_t round, const Participation& participation);
  net::Task<> serve_the_others();
  nlohmann::json summary() const;
  void pull_what_is_ready(std::int64_t round);
  net::Task<> pull(std::string neighbour, std::int64_t round);
  /// Of no bytes where it is not of the size that a message of this run has.
  net::Task<PackedState> received_from(const Neighbour& neighbour, PeerConversation& conversation, std::int64_t round);
  net::Task<> wait_until(std::optional<TimePoint> deadline);
  void tell_waiting(std::int64_t round);

  // ---- connections
  net::Task<> keep_dialling(std::string neighbour);
  net::Task<> dial_once(const std::string& neighbour);
  /// Greets, checks, and serves until the connection ends, of which it throws the reason.
  net::Task<> converse(std::unique_ptr<net::MessageChannel> channel, std::string expected,
                       std::function<void()> on_established);
  net::Task<wire::PeerHello> greet(const std::shared_ptr<PeerConversation>& conversation, const std::string& expected);
  net::Task<> listen_to(std::shared_ptr<PeerConversation> conversation, const std::string& neighbour);
  void attach(const std::string& neighbour, const std::shared_ptr<PeerConversation>& conversation);
  void detach(const std::string& neighbour, const std::shared_ptr<PeerConversation>& conversation,
              const std::string& why);
  void handle(const std::string& neighbour, PeerConversation& conversation, const wire::PeerMessage& message);
  void require_round(const std::string& neighbour, std::int64_t round) const;
  void hand_out(const std::string& neighbour, PeerConversation& conversation, std::int64_t round);
  void announce(const std::string& neighbour, PeerConversation& conversation, std::int64_t round);
  void announce_to_all(std::int64_t round);
  void say_done(const std::string& neighbour, PeerConversation& conversation);
  [[nodiscard]] std::uint64_t bytes(std::uint64_t (PeerConversation::*count)() const) const;

  void require_going_on() const {
    if (stop_.stop_requested()) throw Error(Errc::interrupted, "stopped");
  }
  void wake() { changed_.cancel(); }
  /// Runs on the pool. The function's name for what is under way is told to the observer.
  template <class F>
  auto work(const std::string& what, F function) {
    context_.observer->on_phase(what);
    return net::offload(*context_.pool, std::move(function));
  }
  [[nodiscard]] learn::PeerWork work_context() const {
    return {.progress = [observer = context_.observer](const learn::Progress& done) { observer->on_progress(done); },
            .stop = stop_.get_token()};
  }

  PeerContext context_;
  const PeersFile& file_;
  std::string name_;
  std::map<std::string, std::string> digests_;
  PeerLearner& learner_;
  PeerFolder& folder_;
  RoundMachine machine_;
  net::Timer changed_;
  std::stop_source stop_;
  std::stop_source redial_timers_stop_;  ///< Ends the pauses between attempts.

  learn::StateDict state_;
  learn::Schema message_schema_;
  struct Received {
    PackedState message;
    std::string digest;
  };
  std::map<std::string, Received> received_;  ///< Of the round under way.
  std::map<std::string, Neighbour> neighbours_;
  std::int64_t collecting_ = 0;                                    ///< The round under way, while it waits; else 0.
  bool is_done_ = false;                                           ///< With its last round.
  bool is_over_ = false;                                           ///< It serves nobody any more.
  std::uint64_t ended_bytes_sent_ = 0, ended_bytes_received_ = 0;  ///< Of connections that have ended.
  std::uint64_t round_bytes_sent_ = 0, round_bytes_received_ = 0;  ///< At the round's beginning.
  double working_ = 0, waiting_ = 0;                               ///< Seconds of the round under way.
  TimePoint last_words_{};
  std::int64_t num_unusable_ = 0;
};

// ---- rounds

net::Task<nlohmann::json> PeerRun::State::run() {
  for (auto& [neighbour, state] : neighbours_) {
    if (file_.dialler_of(name_, neighbour) != name_) continue;
    auto dialling = keep_dialling(neighbour);
    net::asio::co_spawn(context_.executor, std::move(dialling),
                        [self = shared_from_this()](const std::exception_ptr&) {});
  }
  std::exception_ptr failure;
  try {
    auto going = go_through_rounds();
    co_await std::move(going);
    auto serving = serve_the_others();
    co_await std::move(serving);
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  is_over_ = true;
  collecting_ = 0;
  redial_timers_stop_.request_stop();
  for (auto& [neighbour, state] : neighbours_) {
    if (!state.conversation) continue;
    const auto conversation = state.conversation;
    auto closing = conversation->close(failure ? "giving up" : "done");
    co_await std::move(closing);
  }
  if (failure) std::rethrow_exception(failure);
  const nlohmann::json result = summary();
  const PackedState model(learner_.model(state_));
  folder_.finish(result, model, learner_.metadata());
  co_return result;
}

net::Task<> PeerRun::State::go_through_rounds() {
  if (folder_.position().round < 0) {
    auto training = pretrain();
    co_await std::move(training);
  } else {
    state_ = folder_.state();
  }
  const std::int64_t last = file_.options().rounds;
  const PeerFolder::Position& position = folder_.position();
  std::int64_t round = position.prepared.empty() ? position.round + 1 : position.prepared.back();
  while (round <= last) {
    if (position.prepared.empty() || position.prepared.back() != round) {
      auto preparing = prepare(round);
      co_await std::move(preparing);
    }
    if (message_schema_.tensors().empty()) {
      auto forming = work("", [this, round] { return learner_.message(state_, round).schema(); });
      message_schema_ = co_await std::move(forming);
    }
    announce_to_all(round);
    auto collecting = collect(round);
    const std::optional<Participation> participation = co_await std::move(collecting);
    if (!participation) {
      const std::int64_t next = *machine_.round_to_skip_to();
      spdlog::warn("{}: the neighbours are in round {} and do not keep messages of round {}; this peer goes on there",
                   name_, next, round);
      round = next;
      message_schema_ = {};
      continue;
    }
    auto combining = combine(round, *participation);
    co_await std::move(combining);
    message_schema_ = {};
    ++round;
  }
}

net::Task<> PeerRun::State::pretrain() {
  const TimePoint began = context_.clock();
  auto training = work(fmt::format("trains on its own {} samples", learner_.num_samples()), [this] {
    learn::StateDict state = learner_.start(work_context(), context_.clock);
    RoundLine line;
    line.figures = learner_.judge(state, 0);
    return std::pair(std::move(state), std::move(line));
  });
  auto [state, line] = co_await std::move(training);
  require_going_on();
  state_ = std::move(state);
  line.seconds_working = seconds_between(began, context_.clock());
  folder_.keep_combined(std::move(line), PackedState(state_));
  context_.observer->on_round(folder_.lines().back());
}

net::Task<> PeerRun::State::prepare(std::int64_t round) {
  const TimePoint began = context_.clock();
  struct Prepared {
    learn::StateDict state;
    std::optional<PackedState> message;
    learn::Schema schema;
  };
  auto preparing =
      work(fmt::format("round {} of {}: prepares its message", round, file_.options().rounds), [this, round] {
        Prepared done;
        done.state = learner_.prepare(state_, round, work_context());
        const learn::StateDict message = learner_.message(done.state, round);
        done.schema = message.schema();
        if (!learner_.recipients(round).empty()) done.message = PackedState(message);
        return done;
      });
  Prepared done = co_await std::move(preparing);
  require_going_on();
  state_ = std::move(done.state);
  message_schema_ = std::move(done.schema);
  folder_.keep_prepared(round, PackedState(state_), done.message);
  working_ += seconds_between(began, context_.clock());
}

net::Task<> PeerRun::State::wait_until(std::optional<TimePoint> deadline) {
  const TimePoint now = context_.clock();
  const TimePoint words = last_words_ + waiting_words_pause;
  const TimePoint until = deadline ? std::min(*deadline, words) : words;
  changed_.expires_after(std::max(until - now, TimePoint::duration(1)));
  auto waiting = changed_.wait();
  co_await std::move(waiting);
  require_going_on();
}

void PeerRun::State::tell_waiting(std::int64_t round) {
  const TimePoint now = context_.clock();
  if (now - last_words_ < waiting_words_pause) return;
  last_words_ = now;
  context_.observer->on_waiting(round, machine_.waiting_for(now));
}

net::Task<std::optional<Participation>> PeerRun::State::collect(std::int64_t round) {
  const TimePoint began = context_.clock();
  last_words_ = began;
  received_.clear();
  machine_.begin(round, began);
  collecting_ = round;
  context_.observer->on_phase(fmt::format("round {} of {}: waits for its neighbours", round, file_.options().rounds));
  std::optional<Participation> participation;
  for (;;) {
    const TimePoint now = context_.clock();
    if (machine_.round_to_skip_to()) break;
    participation = machine_.outcome(now);
    if (participation) break;
    pull_what_is_ready(round);
    tell_waiting(round);
    auto waiting = wait_until(machine_.next_deadline(now));
    co_await std::move(waiting);
  }
  collecting_ = 0;
  waiting_ += seconds_between(began, context_.clock());
  co_return participation;
}

void PeerRun::State::pull_what_is_ready(std::int64_t round) {
  for (auto& [name, neighbour] : neighbours_) {
    const auto offer = neighbour.offers.find(round);
    const bool is_offered = offer != neighbour.offers.end() && offer->second.num_bytes > 0;
    if (machine_.is_wanted(name) && neighbour.conversation && !neighbour.is_pulling && !is_offered) {
      machine_.gone(name, round);  // newer offers have taken its place
      wake();
    }
    if (!is_offered || !machine_.is_wanted(name) || neighbour.is_pulling || !neighbour.conversation) continue;
    neighbour.is_pulling = true;
    neighbour.pulled = round;
    auto pulling = pull(name, round);
    net::asio::co_spawn(context_.executor, std::move(pulling),
                        [self = shared_from_this()](const std::exception_ptr& failure) {
                          if (failure) std::rethrow_exception(failure);
                        });
  }
}

net::Task<PackedState> PeerRun::State::received_from(const Neighbour& neighbour, PeerConversation& conversation,
                                                     std::int64_t round) {
  if (neighbour.offers.at(round).num_bytes != message_schema_.num_bytes()) co_return PackedState();
  PackedState message(message_schema_);
  const auto sink = session::sink_into(message);
  conversation.post(wire::Pull{static_cast<std::uint32_t>(round)});
  auto receiving = conversation.receive_attachment(*sink);
  co_await std::move(receiving);
  co_return message;
}

net::Task<> PeerRun::State::pull(std::string name, std::int64_t round) {
  const auto self = shared_from_this();
  Neighbour& neighbour = neighbours_.at(name);
  const auto conversation = neighbour.conversation;
  const Offer offer = neighbour.offers.at(round);
  std::string violation;
  PackedState message;
  try {
    auto receiving = received_from(neighbour, *conversation, round);
    message = co_await std::move(receiving);
    auto inspecting =
        net::offload(*context_.pool, [&message, digest = offer.digest] { return inspect(message, digest); });
    const Inspection inspection = co_await std::move(inspecting);
    violation = inspection.violation;
    std::string damage = inspection.damage;
    if (message.bytes().empty()) {
      damage = fmt::format("it announces {} bytes, and a message of this run has {}", offer.num_bytes,
                           message_schema_.num_bytes());
    }
    if (damage.empty()) {
      neighbour.num_damaged = 0;
    } else if (++neighbour.num_damaged < max_damaged) {
      // It may have been damaged on the way: over another connection it is asked for again.
      neighbour.offers.clear();
      const Error reason(Errc::protocol, fmt::format("{}'s message of round {}: {}", name, round, damage));
      conversation->abort(reason);
      throw Error(reason);
    } else {
      violation = damage;
    }
  } catch (const NotKept&) {
    neighbour.is_pulling = false;
    neighbour.offers.erase(round);
    machine_.gone(name, round);
    wake();
    co_return;
  } catch (const Error&) {
    neighbour.is_pulling = false;  // the connection is lost; the next one asks again
    wake();
    co_return;
  }
  neighbour.is_pulling = false;
  wake();
  if (collecting_ != round) co_return;  // the round has gone on without it
  const std::string what = fmt::format("message of round {}", round);
  nlohmann::json about = {{"peer", name},
                          {"what", what},
                          {"bytes", offer.num_bytes},
                          {"sha256", offer.digest},
                          {"accepted", violation.empty()}};
  if (!violation.empty()) about["reason"] = violation;
  folder_.audit().record("received", std::move(about));
  if (violation.empty()) {
    received_.emplace(name, Received{std::move(message), offer.digest});
    machine_.received(name);
    co_return;
  }
  ++num_unusable_;
  spdlog::error("{}: {}'s message of round {} cannot be used: {}", name_, name, round, violation);
  machine_.unusable(name, violation);
  if (machine_.is_excluded(name))
    conversation->abort(Error(Errc::rejected, "three messages of " + name + " could not be used"));
}

net::Task<> PeerRun::State::combine(std::int64_t round, const Participation& participation) {
  const TimePoint began = context_.clock();
  RoundLine line;
  line.round = round;
  line.missing = participation.missing;
  learn::Parts messages;
  for (const auto& [name, received] : received_) {
    messages.emplace(name, received.message.state());
    line.used[name] = received.digest;
  }
  const std::string words =
      fmt::format("round {} of {}: combines {} messages", round, file_.options().rounds, messages.size());
  auto combining = work(words, [this, round, messages = std::move(messages)] {
    learn::StateDict state = learner_.combine(state_, messages, round, work_context());
    nlohmann::json figures = learner_.judge(state, round);
    return std::pair(std::move(state), std::move(figures));
  });
  auto [state, figures] = co_await std::move(combining);
  require_going_on();
  received_.clear();
  state_ = std::move(state);
  line.figures = std::move(figures);
  line.seconds_working = std::exchange(working_, 0) + seconds_between(began, context_.clock());
  line.seconds_waiting = std::exchange(waiting_, 0);
  const std::uint64_t sent = bytes(&PeerConversation::bytes_sent) + ended_bytes_sent_;
  const std::uint64_t received = bytes(&PeerConversation::bytes_received) + ended_bytes_received_;
  line.bytes_sent = sent - std::exchange(round_bytes_sent_, sent);
  line.bytes_received = received - std::exchange(round_bytes_received_, received);
  folder_.keep_combined(std::move(line), PackedState(state_));
  context_.observer->on_round(folder_.lines().back());
}

net::Task<> PeerRun::State::serve_the_others() {
  is_done_ = true;
  for (auto& [name, neighbour] : neighbours_) {
    if (neighbour.conversation) say_done(name, *neighbour.conversation);
  }
  context_.observer->on_phase("has combined its last round, and serves its neighbours until they have");
  while (!machine_.may_leave(context_.clock())) {
    last_words_ = context_.clock();
    auto waiting = wait_until(machine_.next_deadline(context_.clock()));
    co_await std::move(waiting);
  }
}

nlohmann::json PeerRun::State::summary() const {
  std::map<std::string, std::int64_t> missing;
  std::uint64_t sent = 0, received = 0;
  double working = 0, waiting = 0;
  for (const RoundLine& line : folder_.lines()) {
    for (const auto& [neighbour, reason] : line.missing) ++missing[neighbour];
    sent += line.bytes_sent;
    received += line.bytes_received;
    working += line.seconds_working;
    waiting += line.seconds_waiting;
  }
  return {{"name", name_},
          {"method", file_.options().method},
          {"neighbours", learner_.neighbours()},
          {"rounds", file_.options().rounds},
          {"rounds_combined", std::ssize(folder_.lines()) - 1},
          {"missing", missing},
          {"num_samples", learner_.num_samples()},
          {"before", folder_.lines().front().figures},
          {"after", folder_.lines().back().figures},
          {"sha256", folder_.lines().back().digest},
          {"bytes_sent", sent},
          {"bytes_received", received},
          {"seconds_working", working},
          {"seconds_waiting", waiting}};
}

void PeerRun::State::stop() {
  if (!stop_.request_stop()) return;
  wake();
}

std::uint64_t PeerRun::State::bytes(std::uint64_t (PeerConversation::*count)() const) const {
  std::uint64_t sum = 0;
  for (const auto& [name, neighbour] : neighbours_) {
    if (neighbour.conversation) sum += ((*neighbour.conversation).*count)();
  }
  return sum;
}

PeerStatus PeerRun::State::status() const {
  PeerStatus status;
  status.round = folder_.position().round;
  status.num_rounds = file_.options().rounds;
  status.is_waiting = collecting_ > 0;
  for (const auto& [name, neighbour] : neighbours_) status.connected[name] = neighbour.conversation != nullptr;
  status.bytes_sent = bytes(&PeerConversation::bytes_sent) + ended_bytes_sent_;
  status.bytes_received = bytes(&PeerConversation::bytes_received) + ended_bytes_received_;
  status.num_unusable = num_unusable_;
  for (const RoundLine& line : folder_.lines()) status.num_missing += std::ssize(line.missing);
  return status;
}

// ---- connections

net::Task<> PeerRun::State::keep_dialling(std::string name) {
  const auto self = shared_from_this();
  net::Timer pause(context_.executor);
  const std::stop_callback on_stop(redial_timers_stop_.get_token(), [&pause] { pause.end(); });
  const Seed seed = Seed(0).child(name_).child(name);
  for (int attempt = 1; !is_over_ && !machine_.is_excluded(name);) {
    const TimePoint began = context_.clock();
    try {
      auto dialling = dial_once(name);
      co_await std::move(dialling);
    } catch (const std::exception& error) {
      if (is_over_) co_return;
      Neighbour& neighbour = neighbours_.at(name);
      machine_.lost(name, error.what(), context_.clock());
      if (neighbour.complaint != error.what()) {
        neighbour.complaint = error.what();
        context_.observer->on_lost(name, error.what());
      }
    }
    wake();
    if (context_.clock() - began > context_.redial.longest_pause) attempt = 1;
    pause.expires_after(net::pause_after(context_.redial, attempt++, seed));
    auto waiting = pause.wait();
    co_await std::move(waiting);
  }
}

net::Task<> PeerRun::State::dial_once(const std::string& name) {
  auto dialling = context_.dial(name);
  auto channel = co_await std::move(dialling);
  auto conversing = converse(std::move(channel), name, {});
  co_await std::move(conversing);
}

net::Task<> PeerRun::State::admit(std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_established) {
  const auto self = shared_from_this();
  const std::string address = channel->peer();
  try {
    auto conversing = converse(std::move(channel), "", std::move(on_established));
    co_await std::move(conversing);
  } catch (const Refusal& refusal) {
    spdlog::warn("{}: {} is refused: {}", name_, address, refusal.what());
  } catch (const std::exception& error) {
    spdlog::debug("{}: the connection of {} has ended: {}", name_, address, error.what());
  }
}

net::Task<wire::PeerHello> PeerRun::State::greet(const std::shared_ptr<PeerConversation>& conversation,
                                                 const std::string& expected) {
  conversation->post(greeting(name_, digests_, folder_.position().round, false));
  const net::Deadline deadline(
      context_.executor, std::chrono::milliseconds(static_cast<std::int64_t>(1000 * file_.timeouts().handshake)),
      [conversation] { conversation->abort(Error(Errc::network, conversation->peer() + " does not greet")); });
  const wire::PeerMessage first = co_await conversation->next_message();
  if (is_over_) throw Error(Errc::interrupted, "the run is over");
  if (const auto* refused = std::get_if<wire::PeerRefused>(&first)) {
    throw Refusal("it refuses this peer: " + quotation(refused->reason.value, wire::max_reason_bytes));
  }
  const auto* hello = std::get_if<wire::PeerHello>(&first);
  if (hello == nullptr) throw Error(Errc::protocol, conversation->peer() + " sent a message before it greeted");
  std::optional<std::string> objection = objection_to(*hello, expected, conversation->identity(), digests_);
  if (!objection && !neighbours_.contains(hello->name.value)) {
    objection = fmt::format("'{}' is no neighbour of '{}' in this run", hello->name.value, name_);
  }
  if (!objection && machine_.is_excluded(hello->name.value)) {
    objection = fmt::format("three messages of '{}' could not be used", hello->name.value);
  }
  if (objection) {
    folder_.audit().report("refused", [&] {
      return nlohmann::json{{"address", conversation->peer()},
                            {"certificate", conversation->identity()},
                            {"peer", hello->name.value},
                            {"reason", *objection}};
    });
    conversation->post(wire::PeerRefused{*objection});
    auto closing = conversation->close("refused");
    co_await std::move(closing);
    throw Refusal(fmt::format("'{}': {}", hello->name.value, *objection));
  }
  co_return *hello;
}

net::Task<> PeerRun::State::converse(std::unique_ptr<net::MessageChannel> channel, std::string expected,
                                     std::function<void()> on_established) {
  if (is_over_) throw Error(Errc::interrupted, "the run is over");  // what it was given may be gone by then
  const auto conversation = std::make_shared<PeerConversation>(context_.executor, std::move(channel));
  conversation->start();
  std::exception_ptr failure;
  std::string name, why;
  bool is_refused = false;
  try {
    auto greeting = greet(conversation, expected);
    const wire::PeerHello hello = co_await std::move(greeting);
    if (on_established) on_established();
    if (hello.is_check) {
      // A refusal would have been said by now: an orderly end tells it that it may take part.
      auto closing = conversation->close("checked");
      co_await std::move(closing);
      co_return;
    }
    name = hello.name.value;
    auto listening = listen_to(conversation, name);
    co_await std::move(listening);
  } catch (const std::exception& error) {
    failure = std::current_exception();
    why = error.what();
    is_refused = dynamic_cast<const Refusal*>(&error) != nullptr;
  }
  if (!name.empty()) detach(name, conversation, why);
  if (!name.empty() && is_refused) machine_.refused(name);
  conversation->abort();
  if (failure) std::rethrow_exception(failure);
}

net::Task<> PeerRun::State::listen_to(std::shared_ptr<PeerConversation> conversation, const std::string& name) {
  attach(name, conversation);
  for (;;) {
    const wire::PeerMessage message = co_await conversation->next_message();
    if (is_over_) throw Error(Errc::interrupted, "the run is over");
    handle(name, *conversation, message);
    wake();
  }
}

void PeerRun::State::attach(const std::string& name, const std::shared_ptr<PeerConversation>& conversation) {
  Neighbour& neighbour = neighbours_.at(name);
  if (neighbour.conversation) {
    neighbour.conversation->abort(Error(Errc::peer_closed, name + " has opened another connection"));
    detach(name, neighbour.conversation, "it has opened another connection");
  }
  neighbour.conversation = conversation;
  neighbour.offers.clear();
  neighbour.num_pulls = 0;
  neighbour.complaint.clear();
  machine_.connected(name, context_.clock());
  folder_.audit().record(
      "connected", {{"peer", name}, {"address", conversation->peer()}, {"certificate", conversation->identity()}});
  context_.observer->on_connected(name, conversation->peer());
  const PeerFolder::Position& position = folder_.position();
  if (position.round > 0) announce(name, *conversation, position.round);
  if (!position.prepared.empty()) announce(name, *conversation, position.prepared.back());
  if (is_done_) say_done(name, *conversation);
  wake();
}

void PeerRun::State::detach(const std::string& name, const std::shared_ptr<PeerConversation>& conversation,
                            const std::string& why) {
  Neighbour& neighbour = neighbours_.at(name);
  if (neighbour.conversation != conversation) return;
  ended_bytes_sent_ += conversation->bytes_sent();
  ended_bytes_received_ += conversation->bytes_received();
  neighbour.conversation.reset();
  neighbour.complaint = why;
  machine_.lost(name, why, context_.clock());
  if (!is_over_) {
    folder_.audit().report("connection lost", [&] { return nlohmann::json{{"peer", name}, {"reason", why}}; });
    context_.observer->on_lost(name, why);
  }
  wake();
}

void PeerRun::State::announce(const std::string& name, PeerConversation& conversation, std::int64_t round) {
  wire::Ready ready{.round = static_cast<std::uint32_t>(round)};
  const auto recipients = learner_.recipients(round);
  const auto kept = folder_.messages().find(round);
  if (std::ranges::find(recipients, name) != recipients.end()) {
    if (kept == folder_.messages().end()) return;  // not kept any more, as after a jump to later rounds
    ready.num_bytes = kept->second.num_bytes;
    ready.digest = kept->second.digest;
  }
  conversation.post(ready);
}

void PeerRun::State::announce_to_all(std::int64_t round) {
  for (const auto& [name, neighbour] : neighbours_) {
    if (neighbour.conversation) announce(name, *neighbour.conversation, round);
  }
}

void PeerRun::State::say_done(const std::string& name, PeerConversation& conversation) {
  conversation.post(wire::Done{});
  machine_.told(name);
}

void PeerRun::State::require_round(const std::string& name, std::int64_t round) const {
  if (round >= 1 && round <= file_.options().rounds) return;
  throw Error(Errc::protocol, fmt::format("{} speaks of round {} of {}", name, round, file_.options().rounds));
}

void PeerRun::State::handle(const std::string& name, PeerConversation& conversation, const wire::PeerMessage& message) {
  Neighbour& neighbour = neighbours_.at(name);
  if (const auto* ready = std::get_if<wire::Ready>(&message)) {
    require_round(name, ready->round);
    neighbour.offers[ready->round] = {ready->num_bytes, ready->digest.value};
    while (neighbour.offers.size() > 2) neighbour.offers.erase(neighbour.offers.begin());
    machine_.ready(name, ready->round, ready->num_bytes == 0);
  } else if (const auto* pull = std::get_if<wire::Pull>(&message)) {
    require_round(name, pull->round);
    hand_out(name, conversation, pull->round);
  } else if (const auto* gone = std::get_if<wire::Gone>(&message)) {
    if (!neighbour.is_pulling || gone->round != neighbour.pulled) {
      throw Error(Errc::protocol, fmt::format("{} answers for round {}, of which it was not asked", name, gone->round));
    }
    conversation.abandon_attachment(std::make_exception_ptr(NotKept()));
  } else if (std::holds_alternative<wire::Done>(message)) {
    machine_.done(name);
  } else if (const auto* refused = std::get_if<wire::PeerRefused>(&message)) {
    throw Refusal("it refuses this peer: " + quotation(refused->reason.value, wire::max_reason_bytes));
  } else {
    throw Error(Errc::protocol, name + " sent a message out of turn");
  }
}

void PeerRun::State::hand_out(const std::string& name, PeerConversation& conversation, std::int64_t round) {
  Neighbour& neighbour = neighbours_.at(name);
  if (conversation.is_flushed()) neighbour.num_pulls = 0;
  if (++neighbour.num_pulls > max_pulls)
    throw Error(Errc::protocol, name + " asks for message after message and takes none");
  const auto kept = folder_.messages().find(round);
  const bool is_kept = kept != folder_.messages().end();
  if (!is_kept || !std::ranges::count(learner_.recipients(round), name)) {
    conversation.post(wire::Gone{static_cast<std::uint32_t>(round)});
    return;
  }
  const KeptMessage message = kept->second;
  std::shared_ptr<session::ByteSource> source;
  try {
    source = session::source_of_model_file(message.file, message.num_bytes);
  } catch (const Error& error) {
    spdlog::error("{}: its own message of round {} cannot be sent: {}", name_, round, error.what());
    folder_.forget_message(round);
    conversation.post(wire::Gone{static_cast<std::uint32_t>(round)});
    return;
  }
  folder_.audit().record("sent", {{"peer", name},
                                  {"what", fmt::format("message of round {}", round)},
                                  {"bytes", message.num_bytes},
                                  {"sha256", message.digest}});
  conversation.post_attachment(std::move(source));
}

// ---- PeerRun

PeerRun::PeerRun(PeerContext context, const PeersFile& file, const std::string& name,
                 std::map<std::string, std::string> digests, PeerLearner& learner, PeerFolder& folder)
    : state_(std::make_shared<State>(std::move(context), file, name, std::move(digests), learner, folder)) {}
PeerRun::~PeerRun() = default;

net::Task<nlohmann::json> PeerRun::run() { return state_->run(); }
net::Task<> PeerRun::admit(std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_established) {
  return state_->admit(std::move(channel), std::move(on_established));
}
void PeerRun::stop() { state_->stop(); }
PeerStatus PeerRun::status() const { return state_->status(); }

}  // namespace headstart::peer
