#include "client/client_loop.hpp"

#include <mutex>
#include <optional>

#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"
#include "shared/base/version.hpp"
#include "shared/net/offload.hpp"
#include "shared/session/conversation.hpp"

namespace headstart::client {

namespace {

using session::ClientConversation;
using wire::PackedState;

/// Passes progress from the computing thread to the conversation, at most a few times a second.
class ProgressPump {
 public:
  ProgressPump(std::shared_ptr<ClientConversation> conversation, ClientObserver* observer, Clock clock)
      : conversation_(std::move(conversation)), observer_(observer), clock_(std::move(clock)) {}

  learn::ProgressCallback callback_for(wire::TaskId task) const {
    return [conversation = conversation_, observer = observer_, clock = clock_, task,
            next = TimePoint{}](const learn::Progress& progress) mutable {
      const TimePoint now = clock();
      if (now < next && progress.done < progress.total) return;
      next = now + std::chrono::milliseconds(250);
      const wire::ProgressReport report{task, static_cast<std::uint64_t>(progress.done),
                                        static_cast<std::uint64_t>(progress.total)};
      net::asio::post(conversation->executor(), [conversation, observer, report] {
        conversation->post(report);
        observer->on_progress(report.done, report.total);
      });
    };
  }

 private:
  std::shared_ptr<ClientConversation> conversation_;
  ClientObserver* observer_;
  Clock clock_;
};

class ClientLoop {
 public:
  ClientLoop(std::shared_ptr<ClientConversation> conversation, ClientContext context, std::stop_token stop)
      : conversation_(std::move(conversation)),
        context_(std::move(context)),
        pump_(conversation_, context_.observer, context_.clock),
        stop_(std::move(stop)) {}

  net::Task<std::string> run() {
    co_await join();
    while (!finished_) {
      const wire::ServerMessage message = co_await conversation_->next_message();
      auto handling = std::visit([this](const auto& m) { return handle(m); }, message);
      co_await std::move(handling);
    }
    co_return *finished_;
  }

 private:
  net::Task<> join() {
    conversation_->post(wire::Hello{wire::protocol_version, context_.name, fmt::format("headstart {}", version())});
    const auto welcome = co_await expect<wire::Welcome>();
    const session::Terms terms = session::terms_from_json_text(welcome.terms.value);
    auto joining = net::offload(*context_.pool, [this, terms] {
      auto answer = worker().join(terms);
      if (answer.schema.value.empty()) return answer;  // samples of another shape: the server says so
      global_schema_ = worker().global_schema();
      return answer;
    });
    const wire::Join answer = co_await std::move(joining);
    conversation_->post(answer);
    terms_ = terms;
    const auto joined = co_await expect<wire::Joined>();
    context_.observer->on_joined(joined.num_present, joined.num_expected);
  }

  /// The next message, which must be an M; a refusal is thrown as what it is.
  template <class M>
  net::Task<M> expect() {
    const wire::ServerMessage message = co_await conversation_->next_message();
    if (const auto* refused = std::get_if<wire::Refused>(&message)) throw Error(Errc::rejected, refused->reason.value);
    const auto* expected = std::get_if<M>(&message);
    if (expected == nullptr) throw Error(Errc::protocol, "the server sent a message out of turn");
    co_return *expected;
  }

  net::Task<> handle(const wire::PretrainTask& task) {
    context_.observer->on_task("pre-training");
    const TaskContext context = context_of(task.task);
    auto work = attempt<wire::PretrainDone>(task.task, [this, context] { return worker().pretrain(context); });
    std::optional<wire::PretrainDone> done = co_await std::move(work);
    if (!done) co_return;
    done->task = task.task;
    conversation_->post(*done);
  }

  net::Task<> handle(const wire::ExchangeTask& task) {
    context_.observer->on_task("exchange of models");
    auto work = attempt<PackedState>(task.task, [this] { return worker().pretrained(); });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<> handle(const wire::TrainTask& task) {
    co_await take_global(task.model_version, task.model_follows);
    context_.observer->on_task(fmt::format("round {}", task.round));
    const TaskContext context = context_of(task.task);
    const std::uint32_t round = task.round;
    auto work =
        attempt<PackedState>(task.task, [this, context, round] { return worker().train(*global_, round, context); });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<> handle(const wire::EvaluateTask& task) {
    std::optional<learn::ModelSpec> candidate;
    PackedState model;
    if (task.candidate.value.empty()) {
      co_await take_global(task.model_version, task.model_follows);
      model = *global_;
    } else {
      candidate = session::spec_from_json_text(task.candidate.value);
      const learn::Schema schema = co_await schema_of(*candidate);
      model = co_await receive(schema);
    }
    auto work =
        attempt<learn::Evaluation>(task.task, [this, model, candidate] { return worker().evaluate(model, candidate); });
    const auto evaluation = co_await std::move(work);
    if (!evaluation) co_return;
    wire::EvaluationReport report;
    report.task = task.task;
    report.correct.values.assign(evaluation->correct.begin(), evaluation->correct.end());
    report.total.values.assign(evaluation->total.begin(), evaluation->total.end());
    report.predicted.values.assign(evaluation->predicted.begin(), evaluation->predicted.end());
    report.loss_sum = evaluation->loss_sum;
    conversation_->post(report);
  }

  net::Task<> handle(const wire::LogitsTask& task) {
    const learn::Task& shape = terms_.task;
    const learn::Schema schema(
        {{"samples",
          c10::ScalarType::Float,
          {static_cast<std::int64_t>(task.num_samples), shape.channels, shape.height, shape.width}}});
    const PackedState samples = co_await receive(schema);
    context_.observer->on_task("logits of the public set");
    const TaskContext context = context_of(task.task);
    auto work = attempt<PackedState>(task.task, [this, samples, context] { return worker().logits(samples, context); });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<> handle(const wire::DistillTask& task) {
    const PackedState student = co_await receive(global_schema_);
    const learn::Schema weights_schema({{"weights",
                                         c10::ScalarType::Double,
                                         {static_cast<std::int64_t>(task.num_teachers), terms_.task.num_classes}}});
    const PackedState weights = co_await receive(weights_schema);
    std::vector<Teacher> teachers;
    for (std::uint32_t k = 0; k < task.num_teachers; ++k) {
      const auto follows = co_await expect<wire::TeacherFollows>();
      const learn::ModelSpec spec = session::spec_from_json_text(follows.spec.value);
      const learn::Schema schema = co_await schema_of(spec);
      const PackedState state = co_await receive(schema);
      teachers.push_back({follows.client.value, spec, state});
    }
    context_.observer->on_task(fmt::format("consolidation of {} models", teachers.size()));
    const TaskContext context = context_of(task.task);
    auto work = attempt<PackedState>(task.task, [this, student, weights, teachers = std::move(teachers), context] {
      return worker().distill(student, weights, teachers, context);
    });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<> handle(const wire::StatisticsTask& task) {
    const PackedState model = co_await receive(global_schema_);
    context_.observer->on_task("normalisation statistics");
    auto work = attempt<PackedState>(task.task, [this, model] { return worker().reestimate_statistics(model); });
    const std::optional<PackedState> result = co_await std::move(work);
    co_await offer(task.task, result);
  }

  net::Task<> handle(const wire::ResultRefused& refused) {
    context_.observer->on_result_refused(refused.reason.value);
    co_return;
  }

  net::Task<> handle(const wire::Finished& finished) {
    finished_ = finished.summary.value;
    co_return;
  }

  net::Task<> handle(const wire::Refused& refused) {
    throw Error(Errc::rejected, refused.reason.value);
    co_return;
  }

  // These never open an exchange.
  net::Task<> handle(const wire::Welcome&) { return out_of_turn(); }
  net::Task<> handle(const wire::Joined&) { return out_of_turn(); }
  net::Task<> handle(const wire::TeacherFollows&) { return out_of_turn(); }
  net::Task<> handle(const wire::Grant&) { return out_of_turn(); }
  net::Task<> handle(const wire::Attachment&) { return out_of_turn(); }
  net::Task<> out_of_turn() {
    throw Error(Errc::protocol, "the server sent a message out of turn");
    co_return;
  }

  /// Runs `work` on the pool; what it throws as Error is told to the server, and the result is then empty.
  template <class Result, class Work>
  net::Task<std::optional<Result>> attempt(wire::TaskId task, Work work) {
    std::string reason;
    try {
      auto working = net::offload(*context_.pool, std::move(work));
      co_return co_await std::move(working);
    } catch (const Error& error) {
      reason = error.what();
    }
    if (conversation_->has_ended()) co_await conversation_->next_message();  // throws what ended it
    spdlog::error("client {}: task failed: {}", context_.name, reason);
    conversation_->post(wire::TaskFailed{task, reason});
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
  }

  net::Task<PackedState> receive(learn::Schema schema) {
    PackedState state(schema);
    const auto sink = session::sink_into(state);
    co_await conversation_->receive_attachment(*sink);
    co_return state;
  }

  net::Task<> take_global(std::uint64_t version, bool follows) {
    if (follows) {
      global_.reset();  // the old one's memory is free before the new one's is taken
      global_ = co_await receive(global_schema_);
      global_version_ = version;
    }
    if (!global_ || global_version_ != version) {
      throw Error(Errc::protocol, fmt::format("the server asks for model version {}, which it never sent", version));
    }
  }

  net::Task<learn::Schema> schema_of(learn::ModelSpec spec) {
    auto building = net::offload(*context_.pool, [this, spec] { return worker().schema_of(spec); });
    co_return co_await std::move(building);
  }

  TaskContext context_of(wire::TaskId task) { return {pump_.callback_for(task), stop_, context_.clock()}; }
  Worker& worker() { return *context_.worker; }

  std::shared_ptr<ClientConversation> conversation_;
  ClientContext context_;
  ProgressPump pump_;
  std::stop_token stop_;

  session::Terms terms_;
  learn::Schema global_schema_;
  std::optional<PackedState> global_;
  std::uint64_t global_version_ = 0;
  std::optional<std::string> finished_;
};

}  // namespace

net::Task<std::string> run_client(net::asio::any_io_executor executor, std::unique_ptr<net::MessageChannel> channel,
                                  ClientContext context) {
  auto conversation = std::make_shared<ClientConversation>(executor, std::move(channel));
  auto stop = std::make_shared<std::stop_source>();
  conversation->start({.intercept = {}, .on_end = [stop] { stop->request_stop(); }});
  const std::stop_callback on_stop(context.stop, [conversation] { conversation->abort(); });
  ClientLoop loop(conversation, std::move(context), stop->get_token());
  std::exception_ptr failure;
  std::string summary;
  try {
    summary = co_await loop.run();
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  co_await conversation->close(failure ? "giving up" : "done");
  if (failure) std::rethrow_exception(failure);
  co_return summary;
}

}  // namespace headstart::client
