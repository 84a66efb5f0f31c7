#include "server/sessions/client_tasks.hpp"

#include "shared/base/error.hpp"

namespace headstart::server {

namespace {

/// The state of a result: an order with result_bytes has one.
net::Task<Upload> state_of(net::Task<Outcome> performing) {
  Outcome outcome = co_await std::move(performing);
  co_return std::move(*outcome.state);
}

/// `are_wanted`: of any samples that there are.
void require_scores(bool are_wanted, const learn::Evaluation& counts) {
  if (!are_wanted || counts.scores || counts.num_samples() == 0) return;
  throw Error(
      Errc::run_failed,
      "its figures of an evaluation have no score counts, which validation.metric or evaluation.scores asks for");
}

}  // namespace

net::Task<Pretraining> pretrain(ClientSession& client) {
  TaskOrder order{.kind = plan::task::pretrain};
  auto performing = client.perform(std::move(order));
  const Outcome outcome = co_await std::move(performing);
  co_return client.read(outcome, [](const std::string& text) { return plan::pretraining_from_json_text(text); });
}

net::Task<Upload> exchange(ClientSession& client, std::uint64_t num_bytes) {
  TaskOrder order{.kind = plan::task::exchange, .result_bytes = num_bytes};
  return state_of(client.perform(std::move(order)));
}

net::Task<Upload> train(ClientSession& client, plan::TrainSettings settings, TrainInputs inputs,
                        std::uint64_t num_bytes, UploadSlots::Place place) {
  TaskOrder order{.kind = plan::task::train, .settings = plan::to_json_text(settings), .keeps_inputs = true};
  order.add(plan::input::model, std::move(inputs.model));
  for (auto& [name, part] : inputs.parts) order.add(name, std::move(part));
  order.result_bytes = num_bytes;
  order.place = place;
  return state_of(client.perform(std::move(order)));
}

net::Task<plan::EvaluationFigures> evaluate(ClientSession& client, ReleasedState model, bool keeps_model,
                                            plan::EvaluateSettings settings) {
  TaskOrder order{.kind = plan::task::evaluate, .settings = plan::to_json_text(settings), .keeps_inputs = keeps_model};
  order.add(plan::input::model, std::move(model));
  auto performing = client.perform(std::move(order));
  const Outcome outcome = co_await std::move(performing);
  plan::EvaluationFigures figures = client.read(outcome, [&client](const std::string& text) {
    return plan::evaluation_figures_from_json_text(text, client.num_classes(),
                                                   static_cast<std::uint64_t>(client.info().num_held_out));
  });
  require_scores(settings.counts_scores, figures.counts);
  co_return figures;
}

net::Task<bool> keep(ClientSession& client, ReleasedState model, plan::KeepSettings settings) {
  TaskOrder order{.kind = plan::task::keep, .settings = plan::to_json_text(settings), .keeps_inputs = true};
  order.add(plan::input::model, std::move(model));
  auto performing = client.perform(std::move(order));
  (void)co_await std::move(performing);
  co_return true;
}

net::Task<Upload> logits(ClientSession& client, ReleasedState samples, std::uint64_t num_samples) {
  TaskOrder order{.kind = plan::task::logits};
  order.add(plan::input::samples, std::move(samples));
  order.result_bytes = num_samples * static_cast<std::uint64_t>(client.num_classes()) * sizeof(float);
  return state_of(client.perform(std::move(order)));
}

net::Task<Upload> distill(ClientSession& client, DistillInputs inputs, learn::KdSetting setting) {
  TaskOrder order{.kind = plan::task::distill, .settings = plan::to_json_text(setting), .keeps_inputs = true};
  order.add(plan::input::student, std::move(inputs.student));
  order.add(plan::input::weights, std::move(inputs.weights));
  for (ReleasedState& teacher : inputs.teachers) order.add(plan::input::teacher, std::move(teacher));
  order.result_bytes = client.model_bytes();
  return state_of(client.perform(std::move(order)));
}

net::Task<HeadSum> head_sum(ClientSession& client, plan::HeadSumSettings settings, HeadSumInputs inputs,
                            std::optional<ReleasedState> head, std::int64_t num_values) {
  TaskOrder order{.kind = plan::task::head_sum, .settings = plan::to_json_text(settings), .keeps_inputs = true};
  for (ReleasedState& model : inputs.models) order.add(plan::input::model, std::move(model));
  if (inputs.projection) order.add(plan::input::projection, std::move(*inputs.projection));
  if (inputs.lift) order.add(plan::input::lift, std::move(*inputs.lift));
  if (head) order.add(plan::input::head, std::move(*head));
  order.result_bytes = static_cast<std::uint64_t>(num_values) * sizeof(std::int64_t);
  auto performing = client.perform(std::move(order));
  Outcome outcome = co_await std::move(performing);
  const plan::HeadSumFigures figures = client.read(outcome, [&client](const std::string& text) {
    return plan::head_sum_figures_from_json_text(text, client.num_classes(), client.info().num_examples,
                                                 static_cast<std::uint64_t>(client.info().num_held_out));
  });
  if (figures.held_out) require_scores(settings.counts_scores, *figures.held_out);
  co_return HeadSum{std::move(*outcome.state), figures};
}

net::Task<Upload> densities(ClientSession& client, ReleasedState samples, std::uint64_t num_samples) {
  TaskOrder order{.kind = plan::task::densities, .keeps_inputs = true};
  order.add(plan::input::samples, std::move(samples));
  order.result_bytes = num_samples * sizeof(double);
  return state_of(client.perform(std::move(order)));
}

net::Task<Upload> answers(ClientSession& client, plan::AnswerSettings settings, ReleasedState samples,
                          std::uint64_t num_bytes) {
  TaskOrder order{.kind = plan::task::answers, .settings = plan::to_json_text(settings), .keeps_inputs = true};
  order.add(plan::input::samples, std::move(samples));
  order.result_bytes = num_bytes;
  return state_of(client.perform(std::move(order)));
}

net::Task<Description> describe(ClientSession& client, std::int64_t num_features) {
  constexpr std::uint64_t num_rows = 6;
  TaskOrder order{.kind = plan::task::describe};
  order.result_bytes = num_rows * static_cast<std::uint64_t>(num_features) * sizeof(double);
  auto performing = client.perform(std::move(order));
  Outcome outcome = co_await std::move(performing);
  const plan::DescribeFigures figures = client.read(outcome, [&client](const std::string& text) {
    return plan::describe_figures_from_json_text(text, client.info().num_examples);
  });
  co_return Description{std::move(*outcome.state), figures};
}

net::Task<Upload> reestimate_statistics(ClientSession& client, ReleasedState model) {
  TaskOrder order{.kind = plan::task::statistics};
  order.add(plan::input::model, std::move(model));
  order.result_bytes = client.model_bytes();
  return state_of(client.perform(std::move(order)));
}

}  // namespace headstart::server
