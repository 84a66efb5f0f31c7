#include "client/client_loop.hpp"

#include <mutex>
#include <new>
#include <optional>
#include <string_view>

#include <boost/asio/post.hpp>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/version.hpp"
#include "shared/net/offload.hpp"
#include "shared/session/conversation.hpp"

namespace headstart::client {

namespace {

using session::ClientConversation;
using wire::PackedState;

/// Milliseconds, as `timeouts.silence` has it. With less a server could have this side do nothing but send heartbeats.
constexpr std::uint32_t min_silence = 100;

/// What follows the name of a task that was asked for before.
std::string_view words_of(TaskRunner::Found found) {
  switch (found) {
    case TaskRunner::Found::nothing:
      return "";
    case TaskRunner::Found::under_way:
      return ", which is under way";
    case TaskRunner::Found::done:
      return ", which is done and only sent again";
  }
  return "";
}

/// What the server is told of it; what exactly happened stays here.
wire::Failure failure_of(const std::exception& failure) {
  if (dynamic_cast<const std::bad_alloc*>(&failure) != nullptr) return wire::Failure::memory;
  if (dynamic_cast<const c10::OutOfMemoryError*>(&failure) != nullptr) return wire::Failure::memory;
  const auto* error = dynamic_cast<const Error*>(&failure);
  if (error == nullptr) {
    // On the CPU LibTorch has no type of its own for it.
    const bool lacks_memory = std::string_view(failure.what()).find("DefaultCPUAllocator") != std::string_view::npos;
    return lacks_memory ? wire::Failure::memory : wire::Failure::internal;
  }
  switch (error->code()) {
    case Errc::data:
      return wire::Failure::data;
    case Errc::usage:
      return wire::Failure::settings;
    case Errc::storage:
      return wire::Failure::storage;
    case Errc::run_failed:
      return wire::Failure::training;
    default:
      return wire::Failure::internal;
  }
}

class ClientLoop {
 public:
  ClientLoop(std::shared_ptr<ClientConversation> conversation, ClientContext context, ClientState& state)
      : conversation_(std::move(conversation)), context_(std::move(context)), worker_(context_.worker), state_(state) {}

  net::Task<std::string> run() {
    co_await join();
    while (!finished_) {
      const wire::ServerMessage message = co_await conversation_->next_message();
      auto handling = std::visit([this](const auto& m) { return handle(m); }, message);
      co_await std::move(handling);
    }
    co_return *finished_;
  }

  /// Sees each message as it arrives, also while work is under way; whether that was all it was for.
  bool look_at(const wire::ServerMessage& message) {
    if (const auto* notice = std::get_if<wire::Notice>(&message)) {
      context_.observer->on_notice(notice->words.value);
      return true;
    }
    const auto* refused = std::get_if<wire::ResultRefused>(&message);
    if (refused != nullptr && refused->task == task_) refusal_ = refused->reason.value;
    is_over_ = is_over_ || std::holds_alternative<wire::Finished>(message);
    if (!is_unwanted()) return false;
    state_.runner.drop();
    state_.runner.wake();
    return false;
  }

 private:
  net::Task<> join() {
    conversation_->post(wire::Hello{.name = context_.name, .software = fmt::format("headstart {}", version())});
    const auto welcome = co_await expect<wire::Welcome>();
    if (welcome.silence < min_silence) {
      throw Error(Errc::protocol, fmt::format("the server allows {} ms of silence; {} at least are expected",
                                              welcome.silence, min_silence));
    }
    conversation_->limit_silence(std::chrono::milliseconds(welcome.silence));
    co_await take_up(welcome.terms.value);
    wire::Join join = state_.join;
    if (state_.global) join.held_model = state_.global_digest;
    conversation_->post(join);
    const auto joined = co_await expect<wire::Joined>();
    if (!joined.warning.value.empty()) {
      spdlog::warn("{}: the server says of this client's samples: {}", context_.name, quotation(joined.warning.value));
    }
    context_.observer->on_joined(joined.num_present, joined.num_expected);
  }

  /// Prepares for the terms, unless an earlier connection brought the same ones.
  net::Task<> take_up(std::string text) {
    terms_ = plan::terms_from_json_text(text);
    if (state_.terms == text) co_return;
    state_.runner.drop();
    auto emptying = state_.runner.idle([this] { rethrow_if_ended(); });
    co_await std::move(emptying);
    state_.terms.clear();
    state_.global.reset();
    auto joining = net::offload(*context_.pool, [this] {
      state_.join = worker_->join(terms_);
      // With samples of another shape there is no model; the server says so.
      if (!state_.join.schema.value.empty()) state_.global_schema = worker_->global_schema();
    });
    co_await std::move(joining);
    if (const auto remark = plan::remark_on_unknown(terms_)) spdlog::warn("{}: {}", context_.name, *remark);
    for (const std::string& remark : worker_->remarks()) spdlog::warn("{}: {}", context_.name, remark);
    state_.terms = std::move(text);
  }

  /// The next message, which must be an M; a refusal is thrown as what it is.
  template <class M>
  net::Task<M> expect() {
    const wire::ServerMessage message = co_await conversation_->next_message();
    if (const auto* refused = std::get_if<wire::Refused>(&message)) throw_refusal(*refused);
    const auto* expected = std::get_if<M>(&message);
    if (expected == nullptr) throw Error(Errc::protocol, "the server sent a message out of turn");
    co_return *expected;
  }

  [[noreturn]] static void throw_refusal(const wire::Refused& refused) {
    if (refused.is_for_now) throw NotYet(refusal_words(refused));
    throw Error(Errc::rejected, refusal_words(refused));
  }

  net::Task<> handle(const wire::PretrainTask& task) {
    auto work = attempt<wire::PretrainDone>(
        task.task, "pre-training", "pretrain",
        [worker = worker_](const TaskContext& context) { return worker->pretrain(context); });
    std::optional<wire::PretrainDone> done = co_await std::move(work);
    if (!done) co_return;
    done->task = task.task;
    conversation_->post(*done);
    ++state_.num_tasks_done;
  }

  net::Task<> handle(const wire::ExchangeTask& task) {
    auto work =
        attempt<PackedState>(task.task, "exchange of models", "exchange",
                             [worker = worker_](const TaskContext& context) { return worker->pretrained(context); });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<> handle(const wire::TrainTask& task) {
    consolidation_.reset();
    const std::uint32_t round = task.round;
    std::string key = fmt::format("round {} from {}", round, task.model.value);
    // The result for an earlier model is not asked for again, and its memory is wanted.
    if (task.model_follows && state_.runner.find(key) == TaskRunner::Found::nothing) state_.runner.drop();
    co_await take_global(task.model.value, task.model_follows);
    const PackedState global = *state_.global;
    auto work = attempt<PackedState>(task.task, fmt::format("round {}", round), std::move(key),
                                     [worker = worker_, global, round](const TaskContext& context) {
                                       return worker->train(global, round, context);
                                     });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<> handle(const wire::EvaluateTask& task) {
    std::optional<learn::ModelSpec> candidate;
    PackedState model;
    if (task.candidate.value.empty()) {
      co_await take_global(task.model.value, task.model_follows);
      model = *state_.global;
    } else {
      candidate = plan::spec_from_json_text(task.candidate.value);
      const learn::Schema schema = co_await schema_of(*candidate);
      model = co_await receive(schema);
    }
    auto work =
        attempt<learn::Evaluation>(task.task, "", "", [worker = worker_, model, candidate](const TaskContext& context) {
          return worker->evaluate(model, candidate, context);
        });
    const auto evaluation = co_await std::move(work);
    if (!evaluation) co_return;
    wire::EvaluationReport report;
    report.task = task.task;
    report.correct.values.assign(evaluation->correct.begin(), evaluation->correct.end());
    report.total.values.assign(evaluation->total.begin(), evaluation->total.end());
    report.predicted.values.assign(evaluation->predicted.begin(), evaluation->predicted.end());
    report.loss_sum = evaluation->loss_sum;
    conversation_->post(report);
    ++state_.num_tasks_done;
  }

  net::Task<> handle(const wire::LogitsTask& task) {
    const learn::Task& shape = terms_.task;
    const learn::Schema schema(
        {{"samples",
          c10::ScalarType::Float,
          {static_cast<std::int64_t>(task.num_samples), shape.channels, shape.height, shape.width}}});
    const PackedState samples = co_await receive(schema);
    auto work = attempt<PackedState>(
        task.task, "logits of the public set", "",
        [worker = worker_, samples](const TaskContext& context) { return worker->logits(samples, context); });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<> handle(const wire::DistillTask& task) {
    if (task.num_teachers > 0) {
      auto receiving = receive_consolidation(task.num_teachers);
      consolidation_ = co_await std::move(receiving);
    } else if (!consolidation_) {
      throw Error(Errc::protocol, "the server asked for a consolidation without teachers");
    }
    consolidation_->setting = {task.temperature, task.alpha};
    auto work = attempt<PackedState>(
        task.task, fmt::format("consolidation of {} models", consolidation_->teachers.size()),
        fmt::format("consolidation of {} T {} alpha {}", consolidation_->inputs, task.temperature, task.alpha),
        [worker = worker_, given = *consolidation_](const TaskContext& context) {
          return worker->distill(given, context);
        });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<Consolidation> receive_consolidation(std::uint32_t num_teachers) {
    Consolidation given;
    given.student = co_await receive(state_.global_schema);
    const learn::Schema weights_schema(
        {{"weights", c10::ScalarType::Double, {static_cast<std::int64_t>(num_teachers), terms_.task.num_classes}}});
    given.weights = co_await receive(weights_schema);
    for (std::uint32_t k = 0; k < num_teachers; ++k) {
      const auto follows = co_await expect<wire::TeacherFollows>();
      const learn::ModelSpec spec = plan::spec_from_json_text(follows.spec.value);
      const learn::Schema schema = co_await schema_of(spec);
      const PackedState state = co_await receive(schema);
      given.teachers.push_back({follows.client.value, spec, state});
    }
    auto hashing = net::offload(*context_.pool, [&given] {
      given.inputs = given.student.digest() + given.weights.digest();
      for (const Teacher& teacher : given.teachers) given.inputs += teacher.state.digest();
    });
    co_await std::move(hashing);
    co_return given;
  }

  net::Task<> handle(const wire::StatisticsTask& task) {
    const PackedState model = co_await receive(state_.global_schema);
    auto work = attempt<PackedState>(task.task, "normalisation statistics", "",
                                     [worker = worker_, model](const TaskContext& context) {
                                       return worker->reestimate_statistics(model, context);
                                     });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<> handle(const wire::ResultRefused& refused) {
    context_.observer->on_result_refused(refused.reason.value);
    co_return;
  }

  net::Task<> handle(const wire::Finished& finished) {
    const std::string said = "the server says: " + quotation(finished.summary.value, wire::max_reason_bytes);
    if (finished.is_failure) throw Error(Errc::run_failed, said);
    finished_ = said;
    co_return;
  }

  net::Task<> handle(const wire::Refused& refused) {
    throw_refusal(refused);
    co_return;
  }

  // These never open an exchange.
  net::Task<> handle(const wire::Welcome&) { return out_of_turn(); }
  net::Task<> handle(const wire::Joined&) { return out_of_turn(); }
  net::Task<> handle(const wire::TeacherFollows&) { return out_of_turn(); }
  net::Task<> handle(const wire::Grant&) { return out_of_turn(); }
  net::Task<> handle(const wire::Attachment&) { return out_of_turn(); }
  net::Task<> handle(const wire::Notice&) { return out_of_turn(); }  // intercepted
  net::Task<> out_of_turn() {
    throw Error(Errc::protocol, "the server sent a message out of turn");
    co_return;
  }

  /// Has the runner do `work` under `key`; what it throws is logged here, the server is told its kind, and the result
  /// is then empty, as it is where the server says meanwhile that it does not want the result any more. `what`: for the
  /// observer, unless it is empty.
  template <class Result>
  net::Task<std::optional<Result>> attempt(wire::TaskId task, std::string what, std::string key,
                                           TaskRunner::Work work) {
    task_ = task;
    refusal_.reset();
    if (!what.empty()) context_.observer->on_task(what.append(words_of(state_.runner.find(key))));
    const auto listener = [conversation = conversation_, observer = context_.observer,
                           task](const learn::Progress& progress) {
      const wire::ProgressReport report{task, static_cast<std::uint64_t>(progress.done),
                                        static_cast<std::uint64_t>(progress.total)};
      conversation->post(report);
      observer->on_progress(report.done, report.total);
    };
    const auto check = [this] {
      rethrow_if_ended();
      if (is_unwanted()) throw Error(Errc::interrupted, refusal_.value_or("the run is over"));
    };
    std::string reason;
    wire::Failure code = wire::Failure::internal;
    try {
      auto working = state_.runner.result_of(std::move(key), std::move(work), listener, check);
      TaskRunner::Result result = co_await std::move(working);
      co_return std::get<Result>(std::move(result));
    } catch (const std::exception& error) {
      reason = error.what();
      code = failure_of(error);
    }
    rethrow_if_ended();
    if (is_unwanted()) co_return std::nullopt;  // the next message says why
    spdlog::error("client {}: task failed ({}, which is all that the server is told): {}", context_.name,
                  wire::word_of(code), reason);
    conversation_->post(wire::TaskFailed{task, code});
    ++state_.num_tasks_failed;
    co_return std::nullopt;
  }

  /// Offers a result and sends it when granted. Without a result there is nothing to offer.
  net::Task<> offer(wire::TaskId task, std::optional<PackedState> result) {
    if (!result) co_return;
    conversation_->post(wire::Offer{task, result->bytes().size()});
    const wire::ServerMessage answer = co_await conversation_->next_message();
    if (const auto* refused = std::get_if<wire::ResultRefused>(&answer)) {
      co_await handle(*refused);
      co_return;
    }
    if (const auto* finished = std::get_if<wire::Finished>(&answer)) {
      co_await handle(*finished);
      co_return;
    }
    const auto* grant = std::get_if<wire::Grant>(&answer);
    if (grant == nullptr || grant->task != task) throw Error(Errc::protocol, "the server sent a message out of turn");
    conversation_->post_attachment(session::source_of(*result));
    co_await conversation_->flush();
    ++state_.num_tasks_done;
  }

  net::Task<PackedState> receive(learn::Schema schema) {
    PackedState state(schema);
    auto filling = fill(state);
    co_await std::move(filling);
    co_return state;
  }

  net::Task<> fill(PackedState state) {
    const auto sink = session::sink_into(std::move(state));
    co_await conversation_->receive_attachment(*sink);
  }

  net::Task<> take_global(std::string digest, bool follows) {
    if (follows) {
      PackedState spent = state_.global ? std::move(*state_.global) : PackedState();
      state_.global.reset();
      const PackedState global = PackedState::in_place_of(std::move(spent), state_.global_schema);
      auto filling = fill(global);
      co_await std::move(filling);
      state_.global = global;
      state_.global_digest = digest;
    }
    if (!state_.global || state_.global_digest != digest) {
      throw Error(Errc::protocol,
                  fmt::format("the server asks for the model {}, which it never sent", quotation(digest)));
    }
  }

  net::Task<learn::Schema> schema_of(learn::ModelSpec spec) {
    auto building = net::offload(*context_.pool, [this, spec] { return worker_->schema_of(spec); });
    co_return co_await std::move(building);
  }

  void rethrow_if_ended() const { conversation_->rethrow_if_ended(); }
  /// Whether the server does not want the result of what is under way.
  [[nodiscard]] bool is_unwanted() const { return refusal_ || is_over_; }

  std::shared_ptr<ClientConversation> conversation_;
  ClientContext context_;
  Worker* worker_;  ///< What the runner does holds it, not this object, which may be gone before the work is done.
  ClientState& state_;

  plan::Terms terms_;
  wire::TaskId task_ = 0;                       ///< Under way.
  std::optional<Consolidation> consolidation_;  ///< The last one, which may be asked for again with another setting.
  std::optional<std::string> refusal_;          ///< Of its result, before there is one.
  bool is_over_ = false;                        ///< The run; the message that says so may still wait.
  std::optional<std::string> finished_;
};

}  // namespace

std::string refusal_words(const wire::Refused& refused) {
  return "the server refuses this client: " + quotation(refused.reason.value, wire::max_reason_bytes);
}

net::Task<std::string> run_client(net::asio::any_io_executor executor, std::unique_ptr<net::MessageChannel> channel,
                                  ClientContext context, ClientState& state) {
  auto conversation = std::make_shared<ClientConversation>(executor, std::move(channel));
  const std::stop_callback on_stop(context.stop, [conversation, &state] {
    state.runner.drop();
    conversation->abort();
  });
  // The hooks may be called after this frame is gone.
  const auto loop = std::make_shared<ClientLoop>(conversation, std::move(context), state);
  conversation->start({.intercept =
                           [weak = std::weak_ptr(loop)](const wire::ServerMessage& message) {
                             const auto alive = weak.lock();
                             return alive && alive->look_at(message);
                           },
                       .on_end =
                           [weak = std::weak_ptr(loop), &state] {
                             if (weak.lock()) state.runner.wake();
                           }});
  std::exception_ptr failure;
  std::string summary;
  try {
    summary = co_await loop->run();
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  co_await conversation->close(failure ? "giving up" : "done");
  if (failure) std::rethrow_exception(failure);
  co_return summary;
}

}  // namespace headstart::client
