#include "server/rounds.hpp"

#include <fmt/format.h>

#include "server/intake.hpp"
#include "server/round_ensemble.hpp"
#include "server/round_machine.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

/// The sum of one round and who may add to it.
class Collection {
 public:
  Collection(const RunContext& context, const DigestedState& global, std::uint32_t round, RoundMachine& machine,
             std::optional<std::string> suspect)
      : context_(context),
        global_(global),
        round_(round),
        what_(fmt::format("update of round {}", round)),
        machine_(machine),
        suspect_(std::move(suspect)),
        sum_(global.state.state().schema()) {
    if (context.options().strategy == Strategy::feddf) ensemble_.emplace(context, round);
  }

  /// Trains at one client and adds its update, whole or not at all.
  net::Task<bool> collect_from(ClientSession& client) {
    Upload upload = co_await client.train(round_, global_);
    const NormBound bound{global_.state, context_.config.max_update_norm};
    auto inspecting = inspect(context_, client, upload, sum_, bound, what_);
    const Inspection seen = co_await std::move(inspecting);
    if (seen.offence) {
      if (!suspect_) {
        client.refuse_result("invalid", *seen.offence);
        throw Error(Errc::run_failed, fmt::format("update refused: {}", *seen.offence));
      }
      client.refuse_result("invalid",
                           fmt::format("{}; the model that it was trained from may be at fault", *seen.offence));
      throw Error(Errc::run_failed, fmt::format("update refused: {}; the model that it was trained from may be at "
                                                "fault, {}'s update stands out in it",
                                                *seen.offence, *suspect_));
    }
    if (machine_.on_update(client.name()) != Verdict::accepted) co_return false;
    norms_[client.name()] = seen.norm.value();
    const std::int64_t num_examples = client.info().num_examples;
    auto adding = net::offload(context_.pool, [this, &upload, &client, num_examples] {
      sum_.add(upload, num_examples);
      if (!ensemble_) return;
      ensemble_->add(client.name(), received_state(upload, global_.state.state().schema(), client.name()));
    });
    co_await std::move(adding);
    co_return true;
  }

  wire::PackedState report() && { return std::move(sum_).report(); }
  [[nodiscard]] const std::optional<RoundEnsemble>& ensemble() const { return ensemble_; }
  [[nodiscard]] const Norms& norms() const { return norms_; }

 private:
  const RunContext& context_;
  const DigestedState& global_;
  std::uint32_t round_;
  std::string what_;
  RoundMachine& machine_;
  std::optional<std::string> suspect_;
  UploadSum sum_;
  Norms norms_;                            ///< Of what is in the sum.
  std::optional<RoundEnsemble> ensemble_;  ///< Under FedDF.
};

}  // namespace

net::Task<RoundOutcome> run_round(const RunContext& context, const DigestedState& global, std::uint32_t round,
                                  std::optional<std::string> suspect) {
  const auto clients = context.cohort.active();
  const std::set<std::string> gone = context.cohort.gone();
  context.observer.on_phase(fmt::format("round {}", round), clients.size());
  std::vector<std::string> names;
  for (const auto& client : clients) names.push_back(client->name());
  RoundMachine machine(round, names, static_cast<std::size_t>(quorum_of(context.options())));
  if (clients.size() < static_cast<std::size_t>(quorum_of(context.options()))) {
    throw Error(Errc::run_failed,
                fmt::format("round {}: {} of {} clients are left, {} updates are needed", round, clients.size(),
                            context.cohort.all().size(), quorum_of(context.options())));
  }
  Collection collection(context, global, round, machine, std::move(suspect));
  const auto answers = co_await context.cohort.ask<bool>(
      clients, [&collection](ClientSession& client) { return collection.collect_from(client); });
  for (const auto& answer : answers) {
    if (answer.value) continue;
    if (answer.client->is_lost()) {
      machine.on_lost(answer.client->name(), answer.reason);
    } else {
      machine.on_rejected(answer.client->name(), answer.reason);
    }
    context.leave_out(fmt::format("round {}", round), answer.client->name(), answer.reason);
  }
  if (machine.phase() != RoundMachine::Phase::complete) throw Error(Errc::run_failed, machine.failure());
  auto reporting = net::offload(context.pool, [&collection] { return std::move(collection).report(); });
  wire::PackedState state = co_await std::move(reporting);
  nlohmann::json fusion;
  if (const auto& ensemble = collection.ensemble()) {
    context.observer.on_phase(fmt::format("round {}: distillation from {} models", round, ensemble->num_teachers()), 1);
    const TimePoint begun = context.clock();
    fusion["teachers"] = ensemble->num_teachers();
    try {
      auto distilling = net::offload(context.pool, [&ensemble, &state] { return ensemble->distil_into(state); });
      state = co_await std::move(distilling);
    } catch (const Error& error) {
      // The same updates would diverge again: the round keeps its average.
      if (error.code() != Errc::run_failed) throw;
      fusion["failed"] = error.what();
      context.observer.on_note(fmt::format("round {}: the average stands, {}", round, error.what()));
    }
    fusion["seconds"] = ensemble->teaching_seconds() + seconds_between(begun, context.clock());
  }
  std::map<std::string, std::string> excluded = machine.excluded();
  for (const std::string& name : gone) excluded.emplace(name, "it is away for longer than timeouts.absence");
  co_return RoundOutcome{std::move(state),
                         {machine.accepted(), std::move(excluded), std::move(fusion), collection.norms()}};
}

}  // namespace headstart::server
