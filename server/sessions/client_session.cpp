#include "server/sessions/client_session.hpp"

#include <algorithm>

#include <fmt/format.h>

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
    state_->seen = state_->traffic();
    state_->moved_at = session.clock_();
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
        : session(on), conversation(std::move(with)), step(watched), timer(conversation->executor()) {}
    /// Every byte of a message counts as progress, heartbeats do not.
    [[nodiscard]] std::uint64_t traffic() const { return conversation->bytes_received() + conversation->bytes_sent(); }
    [[nodiscard]] TimePoint end() const { return std::min(moved_at + session.patience_.task, session.phase_end_); }

    ClientSession& session;  ///< Not used once is_over.
    Conversation conversation;
    Step step;
    net::Timer timer;
    std::uint64_t seen = 0;
    TimePoint moved_at{};
    bool is_over = false;
  };

  static void wait_on(const std::shared_ptr<State>& state) {
    const auto left = std::max(state->end() - state->session.clock_(), TimePoint::duration::zero());
    state->timer.expires_after(std::min<TimePoint::duration>(left, std::chrono::hours(24)));
    state->timer.on_end([state] {
      if (!state->is_over) look(state);
    });
  }

  static void look(const std::shared_ptr<State>& state) {
    ClientSession& session = state->session;
    const TimePoint now = session.clock_();
    if (const std::uint64_t traffic = state->traffic(); traffic != state->seen) {
      state->seen = traffic;
      state->moved_at = now;
    }
    if (now < state->end()) return wait_on(state);
    const bool is_phase_over = now >= session.phase_end_;
    const std::string reason = fmt::format(
        "late: {}", is_phase_over ? "its time for this phase is over"
                                  : fmt::format("no progress for {} s",
                                                std::chrono::duration<double>(session.patience_.task).count()));
    session.audit_.result_refused(session.name(), "late", reason);
    if (state->step == Step::transfer || !state->conversation->is_flushed()) {
      ++session.refusals_["late"];
      return state->conversation->abort();
    }
    session.refuse_result("late", reason);
    state->conversation->interrupt(std::make_exception_ptr(Error(Errc::run_failed, reason)));
  }

  std::shared_ptr<State> state_;
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

void ClientSession::return_with(std::shared_ptr<session::ServerConversation> conversation, std::string held_model) {
  earlier_bytes_up_ = bytes_up();
  earlier_bytes_down_ = bytes_down();
  conversation_ = std::move(conversation);
  held_model_ = std::move(held_model);
  held_consolidation_.clear();
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

template <class Answer>
net::Task<Answer> ClientSession::answer(Conversation conversation) {
  const Watch watch(*this, conversation, Watch::Step::answer);
  while (true) {
    const wire::ClientMessage message = co_await conversation->next_message();
    const auto task = std::visit(
        [](const auto& m) -> std::optional<wire::TaskId> {
          if constexpr (requires { m.task; }) return m.task;
          return std::nullopt;
        },
        message);
    // The client has been told already that what it was late with does not count.
    if (task && *task < task_) continue;
    if (task != task_) break_off(conversation, "answered out of turn");
    if (const auto* failed = std::get_if<wire::TaskFailed>(&message)) {
      throw Error(Errc::run_failed, fmt::format("client {}: {} ({}); its own log says more", name(),
                                                wire::sentence_of(failed->failure), wire::word_of(failed->failure)));
    }
    const auto* expected = std::get_if<Answer>(&message);
    if (expected == nullptr) break_off(conversation, "answered out of turn");
    co_return *expected;
  }
}

net::Task<Upload> ClientSession::result(Conversation conversation, std::uint64_t num_bytes, UploadSlots::Place place) {
  const auto offer = co_await answer<wire::Offer>(conversation);
  if (offer.num_bytes != num_bytes) {
    break_off(conversation,
              fmt::format("offers a result of {} bytes; the agreed schema has {}", offer.num_bytes, num_bytes));
  }
  Upload upload = co_await slots_.acquire(num_bytes, place);
  conversation->post(wire::Grant{task_});
  const Watch watch(*this, conversation, Watch::Step::transfer);
  co_await conversation->receive_attachment(upload.sink());
  co_return upload;
}

net::Task<Pretraining> ClientSession::pretrain() {
  const Conversation conversation = conversation_;
  conversation->post(wire::PretrainTask{++task_});
  const auto done = co_await answer<wire::PretrainDone>(conversation);
  co_return Pretraining{done.is_reused, done.seconds, done.num_epochs, done.best_epoch};
}

net::Task<Upload> ClientSession::exchange(std::uint64_t num_bytes) {
  const Conversation conversation = conversation_;
  conversation->post(wire::ExchangeTask{++task_});
  co_return co_await result(conversation, num_bytes);
}

net::Task<Upload> ClientSession::train(std::uint32_t round, const DigestedState& model, UploadSlots::Place place) {
  const Conversation conversation = conversation_;
  const bool follows = must_send(model);
  conversation->post(wire::TrainTask{++task_, round, model.digest, follows});
  if (follows) send(conversation, "global model", model);
  held_model_ = model.digest;
  held_consolidation_.clear();
  co_return co_await result(conversation, model_bytes_, place);
}

net::Task<learn::Evaluation> ClientSession::evaluate(const DigestedState& model) {
  const Conversation conversation = conversation_;
  const bool follows = must_send(model);
  conversation->post(wire::EvaluateTask{++task_, model.digest, follows, {}});
  if (follows) send(conversation, "global model", model);
  held_model_ = model.digest;
  co_return co_await evaluation(conversation);
}

net::Task<learn::Evaluation> ClientSession::evaluate_candidate(ReleasedModel candidate) {
  const Conversation conversation = conversation_;
  conversation->post(wire::EvaluateTask{++task_, {}, true, plan::to_json_text(candidate.spec())});
  send(conversation, candidate);
  co_return co_await evaluation(conversation);
}

net::Task<learn::Evaluation> ClientSession::evaluation(Conversation conversation) {
  const auto report = co_await answer<wire::EvaluationReport>(conversation);
  const auto num_classes = static_cast<std::size_t>(num_classes_);
  const auto held_out = static_cast<std::uint64_t>(info_.num_held_out);
  if (report.total.values.size() != num_classes || report.correct.values.size() != num_classes ||
      report.predicted.values.size() != num_classes) {
    break_off(conversation,
              fmt::format("reports on {} classes; the run has {}", report.total.values.size(), num_classes_));
  }
  const std::vector<std::uint64_t>& correct = report.correct.values;
  const std::vector<std::uint64_t>& total = report.total.values;
  const std::vector<std::uint64_t>& predicted = report.predicted.values;
  std::uint64_t num_samples = 0;
  std::uint64_t num_predicted = 0;
  for (std::size_t c = 0; c < num_classes; ++c) {
    num_samples += total[c];
    num_predicted += predicted[c];
    const bool is_possible = correct[c] <= std::min(total[c], predicted[c]) && total[c] <= held_out &&
                             predicted[c] <= held_out && num_samples <= held_out;
    if (!is_possible) {
      break_off(conversation, fmt::format("reports impossible counts for class {}; it announced {} held-out samples", c,
                                          info_.num_held_out));
    }
  }
  if (num_predicted != num_samples) break_off(conversation, "reports more or fewer predictions than samples");
  learn::Evaluation evaluation;
  evaluation.correct.assign(correct.begin(), correct.end());
  evaluation.total.assign(total.begin(), total.end());
  evaluation.predicted.assign(predicted.begin(), predicted.end());
  evaluation.loss_sum = report.loss_sum;
  co_return evaluation;
}

net::Task<Upload> ClientSession::logits(const DigestedState& samples) {
  const auto num_samples = static_cast<std::uint64_t>(samples.state.state().tensors().front().tensor.size(0));
  const Conversation conversation = conversation_;
  conversation->post(wire::LogitsTask{++task_, num_samples});
  send(conversation, "public samples", samples);
  co_return co_await result(conversation, num_samples * static_cast<std::uint64_t>(num_classes_) * sizeof(float));
}

net::Task<Upload> ClientSession::distill(const DigestedState& student, const wire::PackedState& weights,
                                         std::vector<ReleasedModel> teachers, const learn::KdSetting& setting) {
  const Conversation conversation = conversation_;
  std::string inputs = student.digest + weights.digest();
  for (const ReleasedModel& teacher : teachers) inputs += teacher.digest();
  if (held_consolidation_ == inputs) {
    conversation->post(wire::DistillTask{++task_, 0, setting.temperature, setting.alpha});
    co_return co_await result(conversation, model_bytes_);
  }
  held_consolidation_ = std::move(inputs);
  conversation->post(
      wire::DistillTask{++task_, static_cast<std::uint32_t>(teachers.size()), setting.temperature, setting.alpha});
  send(conversation, "student", student);
  conversation->post_attachment(session::source_of(weights));
  for (const ReleasedModel& teacher : teachers) {
    conversation->post(wire::TeacherFollows{teacher.owner(), plan::to_json_text(teacher.spec())});
    send(conversation, teacher);
  }
  co_return co_await result(conversation, model_bytes_);
}

net::Task<Upload> ClientSession::reestimate_statistics(const DigestedState& model) {
  const Conversation conversation = conversation_;
  conversation->post(wire::StatisticsTask{++task_});
  send(conversation, "average model", model);
  co_return co_await result(conversation, model_bytes_);
}

void ClientSession::send(const Conversation& conversation, const std::string& what, const DigestedState& state) {
  audit_.sent(name(), {what, state.state.bytes().size(), state.digest});
  conversation->post_attachment(session::source_of(state.state));
}

void ClientSession::send(const Conversation& conversation, const ReleasedModel& model) {
  const std::string what = model.owner().empty() ? std::string("seed") : "model of " + model.owner();
  audit_.sent(name(), {what, model.state()->num_bytes(), model.digest()});
  conversation->post_attachment(model.state());
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
