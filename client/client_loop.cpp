#include "client/client_loop.hpp"

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/post.hpp>
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

/// Of an attachment that does not come any more; the next message says why.
struct Abandoned : Error {
  Abandoned() : Error(Errc::interrupted, "the task is over before its inputs have come") {}
};

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
    conversation_->abandon_attachment(std::make_exception_ptr(Abandoned()));
    return false;
  }

 private:
  net::Task<> join() {
    conversation_->post(greeting(context_));
    const auto welcome = co_await expect<wire::Welcome>();
    if (welcome.silence < min_silence) {
      throw Error(Errc::protocol, fmt::format("the server allows {} ms of silence; {} at least are expected",
                                              welcome.silence, min_silence));
    }
    protocol_ = welcome.protocol;
    conversation_->limit_silence(std::chrono::milliseconds(welcome.silence));
    co_await take_up(welcome.terms.value);
    conversation_->post(state_.join);
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
    state_.inputs.clear();
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

  net::Task<> handle(const wire::Task& task) {
    task_ = task.task;
    refusal_.reset();
    Assignment assignment{task.kind.value, task.settings.value, {}};
    std::vector<wire::Input> inputs;
    for (std::size_t i = 0; i < task.num_inputs; ++i) {
      auto following = expect<wire::Input>();
      const wire::Input input = co_await std::move(following);
      inputs.push_back(input);
      assignment.inputs.push_back({.name = input.name.value,
                                   .owner = input.owner.value,
                                   .form = plan::form_from_json_text(input.form.value),
                                   .digest = input.digest.value,
                                   .state = {}});
    }
    const std::vector<std::uint16_t> missing = state_.inputs.begin(inputs, task.keeps_inputs);
    if (!missing.empty()) {
      // The result for other inputs is not asked for again, and its memory is wanted.
      if (state_.runner.find(assignment.key()) == TaskRunner::Found::nothing) state_.runner.drop();
      auto fetching = fetch(assignment, missing);
      if (const bool is_complete = co_await std::move(fetching); !is_complete) co_return;
    }
    for (Input& input : assignment.inputs) input.state = state_.inputs.at(input.digest);
    auto work = attempt(std::move(assignment));
    const std::optional<ReleasedResult> result = co_await std::move(work);
    if (!result) co_return;
    auto delivering = deliver(*result);
    co_await std::move(delivering);
  }

  /// Receives the inputs in these places. False where the server says meanwhile that the task is over.
  net::Task<bool> fetch(const Assignment& assignment, const std::vector<std::uint16_t>& missing) {
    std::vector<learn::Schema> schemas;
    for (const std::uint16_t place : missing) {
      auto building = schema_of(assignment.inputs[place].form);
      schemas.push_back(co_await std::move(building));
    }
    if (is_unwanted()) co_return false;
    conversation_->post(wire::Fetch{task_, missing});
    try {
      for (std::size_t i = 0; i < missing.size(); ++i) {
        auto filling = filled(state_.inputs.room_for(schemas[i]));
        const PackedState state = co_await std::move(filling);
        state_.inputs.put(assignment.inputs[missing[i]].digest, state);
      }
    } catch (const Abandoned&) {
      co_return false;
    }
    co_return true;
  }

  /// With the next attachment.
  net::Task<PackedState> filled(PackedState state) {
    const auto sink = session::sink_into(state);
    co_await conversation_->receive_attachment(*sink);
    co_return state;
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
  net::Task<> handle(const wire::Input&) { return out_of_turn(); }
  net::Task<> handle(const wire::Grant&) { return out_of_turn(); }
  net::Task<> handle(const wire::Attachment&) { return out_of_turn(); }
  net::Task<> handle(const wire::Notice&) { return out_of_turn(); }  // intercepted
  net::Task<> out_of_turn() {
    throw Error(Errc::protocol, "the server sent a message out of turn");
    co_return;
  }

  /// Has the runner do the task under way; what it throws is logged here, the server is told its kind, and the result
  /// is then empty, as it is where the server says meanwhile that it does not want the result any more.
  net::Task<std::optional<ReleasedResult>> attempt(Assignment assignment) {
    const std::string key = assignment.key();
    std::string reason;
    wire::Failure code = wire::Failure::internal;
    try {
      const std::string what = worker_->describe(assignment);
      if (!what.empty()) context_.observer->on_task(fmt::format("{}{}", what, words_of(state_.runner.find(key))));
      const auto listener = [conversation = conversation_, observer = context_.observer,
                             task = task_](const learn::Progress& progress) {
        const wire::ProgressReport report{task, static_cast<std::uint64_t>(progress.done),
                                          static_cast<std::uint64_t>(progress.total)};
        conversation->post(report);
        observer->on_progress(report.done, report.total);
      };
      const auto check = [this] {
        rethrow_if_ended();
        if (is_unwanted()) throw Error(Errc::interrupted, refusal_.value_or("the run is over"));
      };
      auto work = [worker = worker_, outbound = context_.outbound,
                   assignment = std::move(assignment)](const TaskContext& context) {
        return outbound.release(assignment, worker->perform(assignment, context));
      };
      const TimePoint began = context_.clock();
      auto working = state_.runner.result_of(key, std::move(work), listener, check);
      ReleasedResult result = co_await std::move(working);
      if (!what.empty()) {
        context_.observer->on_task(fmt::format("{}: done in {:.1f} s", what, seconds_between(began, context_.clock())));
      }
      co_return result;
    } catch (const std::exception& error) {
      reason = error.what();
      code = Outbound::release(error);
    }
    rethrow_if_ended();
    if (is_unwanted()) co_return std::nullopt;  // the next message says why
    spdlog::error("client {}: task failed ({}, which is all that the server is told): {}", context_.name,
                  wire::word_of(code), reason);
    // An older server takes a code that it does not know for a broken protocol.
    if (code == wire::Failure::worker && protocol_ < 8) code = wire::Failure::internal;
    conversation_->post(wire::TaskFailed{task_, code});
    ++state_.num_tasks_failed;
    co_return std::nullopt;
  }

  /// Sends the result of the task under way, its state when that is granted.
  net::Task<> deliver(const ReleasedResult& result) {
    wire::Result message{task_, result.figures(), 0};
    if (result.state()) message.num_bytes = result.state()->bytes().size();
    conversation_->post(message);
    if (!result.state()) {
      ++state_.num_tasks_done;
      co_return;
    }
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
    if (grant == nullptr || grant->task != task_) throw Error(Errc::protocol, "the server sent a message out of turn");
    conversation_->post_attachment(session::source_of(*result.state()));
    co_await conversation_->flush();
    ++state_.num_tasks_done;
  }

  net::Task<learn::Schema> schema_of(plan::Form form) {
    if (!form.tensors.empty()) co_return learn::Schema(std::move(form.tensors));
    if (!form.model) co_return state_.global_schema;
    auto building = net::offload(*context_.pool, [this, &form] { return worker_->schema_of(*form.model); });
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
  std::uint16_t protocol_ = wire::protocol_version;  ///< That is spoken with this server.
  wire::TaskId task_ = 0;                            ///< Under way.
  std::optional<std::string> refusal_;               ///< Of its result, before there is one.
  bool is_over_ = false;                             ///< The run; the message that says so may still wait.
  std::optional<std::string> finished_;
};

}  // namespace

wire::Hello greeting(const ClientContext& context) {
  wire::Hello hello{.name = context.name, .software = fmt::format("headstart {}", version())};
  for (const std::string& kind : context.worker->kinds()) hello.tasks.values.emplace_back(kind);
  return hello;
}

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
