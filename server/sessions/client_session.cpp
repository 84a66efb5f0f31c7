#include "server/sessions/client_session.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "server/sessions/task_exchange.hpp"
#include "shared/base/error.hpp"
#include "shared/net/deadline.hpp"

namespace headstart::server {

namespace {

constexpr std::chrono::milliseconds least_time_to_hang_up = std::chrono::seconds(10);

}  // namespace

/// Ends a step that nothing comes of: a wait for an answer by telling the client that its result is late, a transfer,
/// which cannot be left half-way, by ending the connection.
class ClientSession::Watch {
 public:
  enum class Step { answer, transfer };

  Watch(ClientSession& session, Conversation conversation, Step step)
      : state_(std::make_shared<State>(session, std::move(conversation), step)) {
    wait_on(state_);
  }
  ~Watch() {
    state_->is_over = true;
    state_->timer.cancel();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  struct State {
    State(ClientSession& on, Conversation with, Step watched)
        : session(on),
          conversation(std::move(with)),
          step(watched),
          timer(conversation->executor()),
          lateness(on.patience_, on.phase_end_, on.clock_(), traffic()) {}
    /// Every byte of a message counts as progress, heartbeats do not.
    [[nodiscard]] std::uint64_t traffic() const { return conversation->bytes_received() + conversation->bytes_sent(); }

    ClientSession& session;  ///< Not used once is_over.
    Conversation conversation;
    Step step;
    net::Timer timer;
    Lateness lateness;
    bool is_over = false;
  };

  static void wait_on(const std::shared_ptr<State>& state) {
    const auto left = std::max(state->lateness.next_look() - state->session.clock_(), TimePoint::duration::zero());
    state->timer.expires_after(std::min<TimePoint::duration>(left, std::chrono::hours(24)));
    state->timer.on_end([state] {
      if (!state->is_over) look(state);
    });
  }

  static void look(const std::shared_ptr<State>& state) {
    ClientSession& session = state->session;
    const std::optional<std::string> reason = state->lateness.on_tick(session.clock_(), state->traffic());
    if (!reason) return wait_on(state);
    session.audit_.result_refused(session.name(), "late", *reason);
    if (state->step == Step::transfer || !state->conversation->is_flushed()) {
      ++session.refusals_["late"];
      return state->conversation->abort();
    }
    session.refuse_result("late", *reason);
    state->conversation->interrupt(std::make_exception_ptr(Error(Errc::run_failed, *reason)));
  }

  std::shared_ptr<State> state_;
};

/// Says what the client is at while it lives; counts the task where it was finished.
class ClientSession::TaskTimer {
 public:
  TaskTimer(ClientSession& session, std::string_view kind) : session_(session) {
    session_.task_kind_ = kind;
    session_.task_began_ = session_.clock_();
  }
  ~TaskTimer() { session_.task_kind_.clear(); }
  TaskTimer(const TaskTimer&) = delete;
  TaskTimer& operator=(const TaskTimer&) = delete;

  void finish() {
    TaskTimes& times = session_.task_times_[session_.task_kind_];
    times.last = seconds_between(session_.task_began_, session_.clock_());
    times.seconds += times.last;
    ++times.count;
  }

 private:
  ClientSession& session_;
};

ClientSession::ClientSession(std::shared_ptr<session::ServerConversation> conversation, ClientInfo info,
                             std::int64_t num_classes, std::uint64_t model_bytes, UploadSlots& slots, AuditLog& audit,
                             Patience patience, Clock clock)
    : conversation_(std::move(conversation)),
      info_(std::move(info)),
      num_classes_(num_classes),
      model_bytes_(model_bytes),
      slots_(slots),
      audit_(audit),
      patience_(patience),
      clock_(std::move(clock)),
      returned_(conversation_->executor()) {}

void ClientSession::return_with(std::shared_ptr<session::ServerConversation> conversation) {
  earlier_bytes_up_ = bytes_up();
  earlier_bytes_down_ = bytes_down();
  conversation_ = std::move(conversation);
  lost_at_.reset();
  ++num_connections_;
  returned_.notify();
}

void ClientSession::on_lost() {
  if (!lost_at_) {
    lost_at_ = clock_();
    if (const auto violation = conversation_->violation()) {
      ++num_violations_;
      ++refusals_["protocol"];
      audit_.result_refused(name(), "protocol", *violation);
    }
  }
  returned_.notify();
}

std::optional<TaskStatus> ClientSession::task() const {
  if (task_kind_.empty()) return std::nullopt;
  return TaskStatus{task_kind_, seconds_between(task_began_, clock_())};
}

bool ClientSession::has_violated_too_often() const { return num_violations_ >= max_violations; }

bool ClientSession::is_awaited() const {
  return is_lost() && lost_at_ && !has_violated_too_often() && clock_() < *lost_at_ + patience_.absence;
}

net::Task<> ClientSession::return_by(TimePoint end) {
  while (is_awaited() && clock_() < end) {
    const TimePoint until = std::min(end, *lost_at_ + patience_.absence);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock_());
    const net::Deadline deadline(conversation_->executor(), left, [this] { returned_.notify(); });
    co_await returned_.wait();
  }
}

void ClientSession::give_up() {
  lost_at_ = TimePoint::min();
  returned_.notify();
}

void ClientSession::break_off(const Conversation& conversation, const std::string& what) {
  const Error violation(Errc::protocol, fmt::format("client {}: {}", name(), what));
  conversation->abort(violation);
  throw Error(violation);
}

net::Task<std::string> ClientSession::answer(Conversation conversation, const TaskOrder& order) {
  const Watch watch(*this, conversation, Watch::Step::answer);
  TaskExchange exchange(task_, order.inputs.size(), order.result_bytes);
  while (true) {
    auto listening = conversation->next_message();
    const wire::ClientMessage message = co_await std::move(listening);
    const TaskExchange::Action action = exchange.on(message);
    if (const auto* done = std::get_if<TaskExchange::Take>(&action)) co_return done->figures;
    if (const auto* failed = std::get_if<TaskExchange::Fail>(&action)) {
      throw Error(Errc::run_failed, fmt::format("client {}: {} ({}); its own log says more", name(),
                                                wire::sentence_of(failed->failure), wire::word_of(failed->failure)));
    }
    if (const auto* violation = std::get_if<TaskExchange::Violation>(&action)) break_off(conversation, violation->what);
    if (const auto* fetched = std::get_if<TaskExchange::Send>(&action)) send(conversation, order, fetched->inputs);
  }
}

void ClientSession::send(const Conversation& conversation, const TaskOrder& order,
                         const std::vector<std::uint16_t>& inputs) {
  for (const std::uint16_t place : inputs) {
    const ReleasedState& state = order.inputs[place].state;
    audit_.sent(name(), {state.what(), state.bytes()->num_bytes(), state.digest()});
    conversation->post_attachment(state.bytes());
  }
}

void ClientSession::post(const Conversation& conversation, const TaskOrder& order) {
  if (order.inputs.size() > wire::max_inputs) {
    throw Error(Errc::run_failed,
                fmt::format("a task of {} inputs; at most {} are possible", order.inputs.size(), wire::max_inputs));
  }
  wire::Task task;
  task.task = ++task_;
  task.kind = std::string(order.kind);
  task.settings = order.settings;
  task.num_inputs = static_cast<std::uint16_t>(order.inputs.size());
  task.keeps_inputs = order.keeps_inputs;
  conversation->post(task);
  for (const TaskOrder::Input& input : order.inputs) {
    conversation->post(
        wire::Input{input.name, input.state.digest(), input.state.owner(), plan::to_json_text(input.state.form())});
  }
}

net::Task<Outcome> ClientSession::perform(TaskOrder order) {
  const Conversation conversation = conversation_;
  if (normalisation_ && order.kind != plan::task::describe) order.add(plan::input::normalisation, *normalisation_);
  TaskTimer timer(*this, order.kind);
  post(conversation, order);
  auto answering = answer(conversation, order);
  Outcome outcome;
  outcome.figures = co_await std::move(answering);
  if (order.result_bytes == 0) {
    timer.finish();
    co_return outcome;
  }
  auto acquiring = slots_.acquire(order.result_bytes, order.place);
  Upload upload = co_await std::move(acquiring);
  conversation->post(wire::Grant{task_});
  const Watch watch(*this, conversation, Watch::Step::transfer);
  auto receiving = conversation->receive_attachment(upload.sink());
  co_await std::move(receiving);
  outcome.state.emplace(std::move(upload));
  timer.finish();
  co_return outcome;
}

void ClientSession::refuse_result(const std::string& kind, const std::string& reason) {
  ++refusals_[kind];
  conversation_->post(wire::ResultRefused{task_, reason});
}

net::Task<> ClientSession::finish(wire::Finished words) {
  auto parting = say_goodbye(conversation_, std::move(words), patience_.absence);
  co_await std::move(parting);
}

net::Task<> say_goodbye(std::shared_ptr<session::ServerConversation> conversation, wire::Finished words,
                        std::chrono::milliseconds limit) {
  conversation->post(words);
  const net::Deadline deadline(conversation->executor(), std::max(limit, least_time_to_hang_up), [&conversation] {
    conversation->abort(Error(Errc::protocol, "it was told that the run is over and did not hang up"));
  });
  try {
    // What it says before it has heard does not count.
    while (true) (void)co_await conversation->next_message();
  } catch (const Error& error) {
    if (error.code() != Errc::peer_closed) throw;
  }
}

}  // namespace headstart::server
