// What every phase of a run works with.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <stop_token>

#include <boost/asio/thread_pool.hpp>
#include <fmt/format.h>

#include "server/config/server_config.hpp"
#include "server/operations/run_observer.hpp"
#include "server/phases/central_data.hpp"
#include "server/record/recovery.hpp"
#include "server/record/run_folder.hpp"
#include "server/sessions/client_tasks.hpp"
#include "server/sessions/roster.hpp"
#include "server/uploads/inspection.hpp"
#include "shared/base/clock.hpp"

namespace headstart::server {

/// A client with more than this part of all examples is named: its update is most of every average.
inline constexpr double dominant_share = 0.5;

/// References outlive the run. Coroutines run on `executor` (one thread), computation on `pool`.
struct RunContext {
  net::asio::any_io_executor executor;
  net::asio::thread_pool& pool;
  const ServerConfig& config;
  const CentralData& data;
  const learn::Schema& global_schema;
  RunFolder& folder;
  Roster& roster;
  RunObserver& observer;
  Clock clock;
  c10::Device device;
  std::stop_token stop;
  std::vector<LeftOut>& left_out;

  [[nodiscard]] Intake intake() const { return {pool, folder.audit()}; }
  [[nodiscard]] const FederationOptions& options() const { return config.federation; }
  [[nodiscard]] const plan::Terms& terms() const { return config.terms; }
  /// What makes a model better, by the validation source.
  [[nodiscard]] learn::Metric metric() const { return terms().validation_metric(); }
  /// What a client is asked to count of a model that it rates.
  [[nodiscard]] plan::EvaluateSettings rating_settings() const { return {.counts_scores = metric().needs_scores()}; }
  /// By the metric; null where it is not defined.
  [[nodiscard]] nlohmann::json metric_value(const learn::Evaluation& rating) const {
    const std::optional<double> value = metric().value(rating);
    return value ? nlohmann::json(*value) : nlohmann::json();
  }
  /// A rating in words: "0.8125", or with another metric than accuracy "recall:1 0.8125".
  [[nodiscard]] std::string rating_words(const learn::Evaluation& rating) const {
    if (metric().is_accuracy()) return fmt::format("{:.4f}", rating.accuracy());
    const std::optional<double> value = metric().value(rating);
    return metric().text() + (value ? fmt::format(" {:.4f}", *value) : std::string(" undefined"));
  }
  /// The untrained global model: the random start.
  [[nodiscard]] std::unique_ptr<learn::Model> make_global_model() const {
    auto model = learn::make_model(terms().model, data.task, terms().seeds().child("model"));
    model->to(device);
    return learn::in_precision(std::move(model), terms().precision);
  }
  /// What a file for the user holds of the global state `state`: see learn::Model::complete().
  [[nodiscard]] wire::PackedState complete(const wire::PackedState& state) const {
    if (!terms().model.is_scripted()) return state;
    return wire::PackedState(make_global_model()->complete(state.state()));
  }
  /// Who counts for a model of `owner`: all active clients but the owner, whose held-out data chose the model's epoch.
  /// Empty: a model of nobody's own, which all count for.
  [[nodiscard]] std::vector<std::shared_ptr<ClientSession>> judges_of(const std::string& owner) const {
    std::vector<std::shared_ptr<ClientSession>> clients = roster.active();
    std::erase_if(clients, [&owner](const auto& client) { return client->name() == owner; });
    return clients;
  }
  /// Goes on without what `client` should have given to `phase`: said to the observer and recorded in the summary.
  void leave_out(const Phase& phase, const std::string& client, const std::string& reason) const {
    if (stop.stop_requested()) return;  // the phase itself will be gone through again
    observer.on_note(fmt::format("{} without {}: {}", recorded(phase), client, reason));
    left_out.push_back({phase, client, reason});
    folder.write_down(left_out.back());
  }
  /// The counts of `clients` on their own data, summed: `ask(ClientSession&)` returns Task<plan::EvaluationFigures>.
  /// Left out of `phase` is whoever gives no answer, or measures an infinite loss where others measure a finite one:
  /// one client cannot have a model count as diverged. `shown`, where it is not null: those of the sum that may be
  /// recorded by themselves. Throws Error(interrupted) where the run is stopped meanwhile, as the answers are then not
  /// all there.
  template <class Ask>
  net::Task<learn::Evaluation> evaluate_at_clients(PhaseKind phase, std::vector<std::shared_ptr<ClientSession>> clients,
                                                   Ask ask, std::map<std::string, learn::Evaluation>* shown) const {
    auto asking = roster.ask<plan::EvaluationFigures>(std::move(clients), std::move(ask));
    const auto answers = co_await std::move(asking);
    if (stop.stop_requested()) throw Error(Errc::interrupted, "stopped while clients evaluated");
    const bool is_finite_somewhere = std::ranges::any_of(answers, [](const Answer<plan::EvaluationFigures>& answer) {
      return answer.value && answer.value->counts.num_samples() > 0 && std::isfinite(answer.value->counts.loss_sum);
    });
    auto sum = learn::Evaluation::of_none(data.task.num_classes);
    for (const Answer<plan::EvaluationFigures>& answer : answers) {
      if (!answer.value) {
        leave_out({phase}, answer.client->name(), answer.reason);
      } else if (is_finite_somewhere && !std::isfinite(answer.value->counts.loss_sum)) {
        leave_out({phase}, answer.client->name(), "it measured an infinite loss, and others a finite one");
      } else {
        sum += answer.value->counts;
        if (shown != nullptr && answer.value->is_shown) shown->emplace(answer.client->name(), answer.value->counts);
      }
    }
    co_return sum;
  }
};

}  // namespace headstart::server
