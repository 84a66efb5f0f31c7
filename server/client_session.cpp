#include "server/client_session.hpp"

#include <fmt/format.h>

#include "shared/base/error.hpp"

namespace headstart::server {

ClientSession::ClientSession(std::shared_ptr<session::ServerConversation> conversation, ClientInfo info,
                             std::int64_t num_classes, std::uint64_t model_bytes, UploadSlots& slots)
    : conversation_(std::move(conversation)),
      info_(std::move(info)),
      num_classes_(num_classes),
      model_bytes_(model_bytes),
      slots_(slots) {}

void ClientSession::break_off(const std::string& what) {
  conversation_->abort();
  throw Error(Errc::protocol, fmt::format("client {}: {}", name(), what));
}

template <class Answer>
net::Task<Answer> ClientSession::answer() {
  const wire::ClientMessage message = co_await conversation_->next_message();
  if (const auto* failed = std::get_if<wire::TaskFailed>(&message)) {
    if (failed->task != task_) break_off("reports the failure of a task it was not given");
    throw Error(Errc::run_failed, fmt::format("client {}: {}", name(), failed->reason.value));
  }
  const auto* expected = std::get_if<Answer>(&message);
  if (expected == nullptr || expected->task != task_) break_off("answered out of turn");
  co_return *expected;
}

net::Task<Upload> ClientSession::result(std::uint64_t num_bytes) {
  const auto offer = co_await answer<wire::Offer>();
  if (offer.num_bytes != num_bytes) {
    break_off(fmt::format("offers a result of {} bytes; the agreed schema has {}", offer.num_bytes, num_bytes));
  }
  Upload upload = co_await slots_.acquire(num_bytes);
  conversation_->post(wire::Grant{task_});
  co_await conversation_->receive_attachment(upload.sink());
  co_return upload;
}

net::Task<wire::PretrainDone> ClientSession::pretrain() {
  conversation_->post(wire::PretrainTask{++task_});
  co_return co_await answer<wire::PretrainDone>();
}

net::Task<Upload> ClientSession::exchange(std::uint64_t num_bytes) {
  conversation_->post(wire::ExchangeTask{++task_});
  co_return co_await result(num_bytes);
}

net::Task<Upload> ClientSession::train(std::uint32_t round, const GlobalModel& model) {
  const bool follows = must_send(model);
  conversation_->post(wire::TrainTask{++task_, round, model.version, follows});
  if (follows) conversation_->post_attachment(session::source_of(model.state));
  held_version_ = model.version;
  co_return co_await result(model_bytes_);
}

net::Task<learn::Evaluation> ClientSession::evaluate(const GlobalModel& model) {
  const bool follows = must_send(model);
  conversation_->post(wire::EvaluateTask{++task_, model.version, follows, {}});
  if (follows) conversation_->post_attachment(session::source_of(model.state));
  held_version_ = model.version;
  co_return co_await evaluation();
}

net::Task<learn::Evaluation> ClientSession::evaluate_candidate(const learn::ModelSpec& spec,
                                                               std::shared_ptr<session::ByteSource> state) {
  conversation_->post(wire::EvaluateTask{++task_, 0, true, session::to_json_text(spec)});
  conversation_->post_attachment(std::move(state));
  co_return co_await evaluation();
}

net::Task<learn::Evaluation> ClientSession::evaluation() {
  const auto report = co_await answer<wire::EvaluationReport>();
  if (report.total.values.size() != static_cast<std::size_t>(num_classes_)) {
    break_off(fmt::format("reports on {} classes; the run has {}", report.total.values.size(), num_classes_));
  }
  learn::Evaluation evaluation;
  evaluation.correct.assign(report.correct.values.begin(), report.correct.values.end());
  evaluation.total.assign(report.total.values.begin(), report.total.values.end());
  evaluation.predicted.assign(report.predicted.values.begin(), report.predicted.values.end());
  evaluation.loss_sum = report.loss_sum;
  if (evaluation.num_samples() > info_.num_held_out) {
    break_off(fmt::format("reports on {} samples; it announced {}", evaluation.num_samples(), info_.num_held_out));
  }
  co_return evaluation;
}

net::Task<Upload> ClientSession::logits(const wire::PackedState& samples) {
  const auto num_samples = static_cast<std::uint64_t>(samples.state().tensors().front().tensor.size(0));
  conversation_->post(wire::LogitsTask{++task_, num_samples});
  conversation_->post_attachment(session::source_of(samples));
  co_return co_await result(num_samples * static_cast<std::uint64_t>(num_classes_) * sizeof(float));
}

net::Task<Upload> ClientSession::distill(const wire::PackedState& student, const wire::PackedState& weights,
                                         const std::vector<TeacherSource>& teachers) {
  conversation_->post(wire::DistillTask{++task_, static_cast<std::uint32_t>(teachers.size())});
  conversation_->post_attachment(session::source_of(student));
  conversation_->post_attachment(session::source_of(weights));
  for (const TeacherSource& teacher : teachers) {
    conversation_->post(wire::TeacherFollows{teacher.client, session::to_json_text(teacher.spec)});
    conversation_->post_attachment(teacher.state);
  }
  co_return co_await result(model_bytes_);
}

net::Task<Upload> ClientSession::reestimate_statistics(const wire::PackedState& model) {
  conversation_->post(wire::StatisticsTask{++task_});
  conversation_->post_attachment(session::source_of(model));
  co_return co_await result(model_bytes_);
}

void ClientSession::refuse_result(const std::string& reason) {
  conversation_->post(wire::ResultRefused{task_, reason});
}

net::Task<> ClientSession::finish(std::string summary) {
  conversation_->post(wire::Finished{std::move(summary)});
  co_await conversation_->close("the run is over");
}

}  // namespace headstart::server
