#include "server/phases/start.hpp"

#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/consolidate.hpp"
#include "server/phases/disclosure.hpp"
#include "server/sessions/client_tasks.hpp"
#include "server/uploads/inspection.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"
#include "shared/learn/train/batch_norm_statistics.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

net::Task<Start> random_start(const RunContext& context) {
  auto making =
      net::offload(context.pool, [&context] { return wire::PackedState(context.make_global_model()->state()); });
  wire::PackedState state = co_await std::move(making);
  co_return Start{StartModel::random, std::move(state), nlohmann::json::object()};
}

net::Task<Start> best_local_start(const RunContext& context, const LocalModels& models) {
  const LocalModel* best = models.best_shared();
  if (best == nullptr) {
    throw Error(Errc::run_failed,
                "no pre-trained model of the federated architecture with share_model: peers has a rating");
  }
  auto loading = net::offload(context.pool, [&models, best] { return models.load(*best); });
  context.observer.on_note(fmt::format("best local model: {}'s", best->client));
  wire::PackedState state = co_await std::move(loading);
  const nlohmann::json report = {{"client", best->client}};
  co_return Start{StartModel::best_local, std::move(state), report};
}

namespace {

using Members = std::vector<const LocalModel*>;

/// An average shows a silo's model to the others where it is most of it, and where two are averaged.
void require_consent_to_average(const Members& members) {
  if (members.empty()) throw Error(Errc::run_failed, "no pre-trained model of the federated architecture to average");
  double total = 0;
  for (const LocalModel* member : members) total += static_cast<double>(member->num_examples);
  for (const LocalModel* member : members) {
    const double share = static_cast<double>(member->num_examples) / total;
    if (members.size() < 3 || share <= dominant_share || member->shares_with_peers) continue;
    throw Error(
        Errc::run_failed,
        fmt::format("{:.1f}% of the average of {} pre-trained models would be {}'s, which shows it to the other "
                    "silos, and that silo says share_model: server. Have it say peers, or choose another "
                    "start.model",
                    100 * share, members.size(), member->client));
  }
  if (members.size() >= 3) return;
  for (const LocalModel* member : members) {
    if (member->shares_with_peers) continue;
    throw Error(
        Errc::run_failed,
        fmt::format("the average is of {} pre-trained model(s) of the federated architecture, which shows {}'s to "
                    "the other silos, and that silo says share_model: server. Three models hide each other; "
                    "else have it say peers, or choose another start.model",
                    members.size(), member->client));
  }
}

/// Leaves out the models whose norm stands out.
void leave_out_outliers(const RunContext& context, const Norms& norms, Members& members) {
  const double limit = outlier_factor * median_of(norms);
  std::erase_if(members, [&](const LocalModel* member) {
    const double norm = norms.at(member->client);
    if (norm <= limit) return false;
    context.leave_out({PhaseKind::averaging}, member->client,
                      fmt::format("its model's L2 norm is {:.6g}; {:.6g} at most is averaged, {} times the median",
                                  norm, limit, outlier_factor));
    return true;
  });
}

/// The average with normalisation statistics that every client re-estimates, those with an architecture of their own
/// included: their models are not in the average.
net::Task<wire::PackedState> with_statistics_of_clients(const RunContext& context, wire::PackedState average) {
  const auto clients = context.roster.active();
  context.observer.on_phase({PhaseKind::statistics}, clients.size());
  learn::WeightedMean sum(context.global_schema);
  auto hashing = net::offload(context.pool, [&average] { return average.digest(); });
  const std::string digest = co_await std::move(hashing);
  const DigestedState sent{digest, average};
  const auto take_from = [&](ClientSession& client) -> net::Task<bool> {
    auto asking = reestimate_statistics(client, DisclosurePolicy::release_model("average model", sent));
    Upload upload = co_await std::move(asking);
    const std::string what = "statistics";
    const NormBound unbounded{sent.state};
    auto inspecting = inspect(context.intake(), client.name(), upload, sum.blocks(), unbounded, what);
    const Inspection seen = co_await std::move(inspecting);
    if (seen.violation) throw Error(Errc::run_failed, *seen.violation);
    const learn::Contribution contribution{client.name(), client.info().num_examples};
    auto adding = net::offload(context.pool, [&] { sum.accept(upload, contribution); });
    co_await std::move(adding);
    co_return true;
  };
  const auto answers = co_await context.roster.ask<bool>(clients, take_from);
  for (const auto& answer : answers) {
    if (!answer.value) {
      context.leave_out({PhaseKind::statistics}, answer.client->name(), answer.reason);
    }
  }
  // Whatever came back beside the statistics, the parameters stay those that were sent.
  auto reporting = net::offload(context.pool, [&] {
    const wire::PackedState returned(std::move(sum).report());
    const auto network = context.make_global_model();
    network->load(returned.state());
    const at::NoGradGuard no_grad;
    for (const learn::NamedTensor& named : network->named_state()) {
      if (named.tensor.requires_grad()) named.tensor.copy_(average.state().at(named.name));
    }
    return wire::PackedState(network->state());
  });
  co_return co_await std::move(reporting);
}

}  // namespace

net::Task<Start> average_start(const RunContext& context, const LocalModels& models) {
  Members members;
  for (const auto& [name, model] : models.models()) {
    if (model.has_federated_architecture && model.num_bytes) members.push_back(&model);
  }
  require_consent_to_average(members);
  auto measuring = net::offload(context.pool, [&] {
    Norms norms;
    for (const LocalModel* member : members) norms[member->client] = norm_of(models.load(*member).state());
    return norms;
  });
  const Norms norms = co_await std::move(measuring);
  leave_out_outliers(context, norms, members);
  require_consent_to_average(members);
  auto averaging = net::offload(context.pool, [&] {
    learn::WeightedMean sum(context.global_schema);
    for (const LocalModel* model : members) {
      if (const auto violation = learn::add_update(sum, models.load(*model).state(), model->num_examples)) {
        throw Error(Errc::run_failed, fmt::format("client {}: {}", model->client, *violation));
      }
    }
    wire::PackedState average(std::move(sum).report());
    if (context.data.transfer.size() == 0) return average;
    const auto network = context.make_global_model();
    network->load(average.state());
    learn::reestimate_statistics(*network, context.data.transfer.x.to(context.device));
    return wire::PackedState(network->state());
  });
  wire::PackedState average = co_await std::move(averaging);
  const nlohmann::json report = {{"statistics", "public set"}, {"norms", norms}};
  Start start{StartModel::average, std::move(average), report};
  if (context.data.transfer.size() > 0) co_return start;

  auto estimating = with_statistics_of_clients(context, std::move(start.state));
  start.state = co_await std::move(estimating);
  start.report["statistics"] = "clients";
  co_return start;
}

net::Task<Start> kd_start(const RunContext& context, const LocalModels& models, const Recovery& earlier) {
  auto distilling = distilled_start(context, models, earlier);
  DistilledStart seed = co_await std::move(distilling);
  Start start{StartModel::kd, std::move(seed.state), std::move(seed.report)};
  // The gate: is the seed better than what it could be replaced by?
  const bool is_gated = context.options().consolidation.gate;
  const LocalModel* best = models.best_shared();
  if (best == nullptr) {
    if (is_gated) context.observer.on_note("gate: no rated model may reach other silos, the seed stands");
    co_return start;
  }
  context.observer.on_phase({PhaseKind::seed_rating}, 1);
  // By the same clients as the model that it is compared with.
  auto judging = rate_start(context, start.state, best->is_rated_by_owner ? std::string() : best->client);
  const learn::Evaluation rating = co_await std::move(judging);
  if (rating.num_samples() == 0) {
    context.observer.on_note("gate: nobody rated the seed, which stands");
    co_return start;
  }
  const learn::Metric metric = context.metric();
  const bool passes = metric.score(rating) > metric.score(*best->rating);
  start.report["gate"] = {{"seed_accuracy", rating.accuracy()},
                          {"best_local_accuracy", best->rating->accuracy()},
                          {"best_local", best->client},
                          {"both_counted_by", counted_by(context.options().validation, *best)},
                          {"passes", passes},
                          {"acts", is_gated && !passes}};
  if (!metric.is_accuracy()) {
    start.report["gate"]["seed_value"] = context.metric_value(rating);
    start.report["gate"]["best_local_value"] = context.metric_value(*best->rating);
  }
  if (!is_gated || passes) co_return start;
  context.observer.on_note(fmt::format("gate: the seed ({}) is not better than {}'s model ({}), which is used instead",
                                       context.rating_words(rating), best->client,
                                       context.rating_words(*best->rating)));
  Start fallback = co_await best_local_start(context, models);
  fallback.report["refused_seed"] = start.report;
  co_return fallback;
}

}  // namespace headstart::server
