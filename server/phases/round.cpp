#include "server/phases/round.hpp"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "server/phases/disclosure.hpp"
#include "server/phases/round_machine.hpp"
#include "server/sessions/client_tasks.hpp"
#include "server/uploads/inspection.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

/// The aggregate of one round and who may add to it.
class Collection {
 public:
  Collection(const RunContext& context, const Strategy& strategy, const RoundPlan& plan, const DigestedState& global,
             const std::map<std::string, std::int64_t>& counted, RoundMachine& machine,
             std::optional<std::string> suspect)
      : context_(context),
        strategy_(strategy),
        state_(plan.state),
        global_(global),
        counted_(counted),
        round_(plan.round),
        what_(fmt::format("update of round {}", plan.round)),
        machine_(machine),
        suspect_(std::move(suspect)),
        aggregator_(strategy.begin(plan)),
        num_bytes_(aggregator_->blocks().schema().num_bytes()) {}

  /// Before the first is collected.
  net::Task<> prepare(const RoundPlan& plan) {
    auto preparing = net::offload(context_.pool, [this, &plan] {
      for (auto& [name, state] : strategy_.sent_parts(plan)) {
        const std::string digest = state.digest();
        parts_.push_back({name, {digest, std::move(state)}});
      }
    });
    co_await std::move(preparing);
  }

  /// Trains at one client and adds its update, whole or not at all.
  net::Task<bool> collect_from(ClientSession& client) {
    const bool is_kept = aggregator_->keeps_updates();
    const auto place = is_kept ? UploadSlots::Place::disk : UploadSlots::Place::memory;
    auto downloading = download_for(client);
    const DigestedState sent = co_await std::move(downloading);
    const auto last = counted_.find(client.name());
    plan::TrainSettings settings{.round = round_, .counted_round = last == counted_.end() ? 0 : last->second};
    TrainInputs inputs{DisclosurePolicy::release_model("global model", sent), {}};
    for (const auto& [name, part] : parts_) {
      inputs.parts.emplace_back(name, DisclosurePolicy::release_tensors(fmt::format("the round's {}", name), part));
    }
    auto training = train(client, settings, std::move(inputs), num_bytes_, place);
    Upload received = co_await std::move(training);
    auto upload = std::make_unique<Upload>(std::move(received));
    const NormBound bound{sent.state, context_.config.max_update_norm};
    auto inspecting = inspect(context_.intake(), client.name(), *upload, aggregator_->blocks(), bound, what_);
    const Inspection seen = co_await std::move(inspecting);
    if (seen.violation) refuse(client, *seen.violation);
    if (machine_.on_update(client.name()) != Verdict::accepted) co_return false;
    norms_[client.name()] = seen.norm.value();
    const learn::Contribution contribution{client.name(), client.info().num_examples};
    auto adding = net::offload(context_.pool, [&] { aggregator_->accept(*upload, contribution); });
    co_await std::move(adding);
    if (is_kept) kept_.push_back(std::move(upload));
    co_return true;
  }

  /// Once; the updates live on.
  std::unique_ptr<learn::Aggregator> take_aggregator() { return std::move(aggregator_); }
  [[nodiscard]] const Norms& norms() const { return norms_; }

 private:
  /// What the strategy has this client train from: mostly the global model, which is hashed already.
  net::Task<DigestedState> download_for(const ClientSession& client) const {
    const Participant to{client.name(), client.info().num_examples};
    DigestedState sent{{}, strategy_.download(state_, to)};
    if (sent.state.bytes().data() == global_.state.bytes().data()) co_return global_;
    auto hashing = net::offload(context_.pool, [&sent] { return sent.state.digest(); });
    sent.digest = co_await std::move(hashing);
    co_return sent;
  }

  [[noreturn]] void refuse(ClientSession& client, const std::string& violation) const {
    std::string reason = violation;
    std::string for_client = violation;
    if (suspect_) {
      for_client += "; the model that it was trained from may be at fault";
      reason +=
          fmt::format("; the model that it was trained from may be at fault, {}'s update stands out in it", *suspect_);
    }
    client.refuse_result("invalid", for_client);
    throw Error(Errc::run_failed, "update refused: " + reason);
  }

  const RunContext& context_;
  const Strategy& strategy_;
  const ServerState& state_;
  const DigestedState& global_;
  const std::map<std::string, std::int64_t>& counted_;
  std::uint32_t round_;
  std::string what_;
  RoundMachine& machine_;
  std::optional<std::string> suspect_;
  std::unique_ptr<learn::Aggregator> aggregator_;
  std::uint64_t num_bytes_;                                   ///< Of an update.
  std::vector<std::pair<std::string, DigestedState>> parts_;  ///< That are sent beside the model.
  Norms norms_;                                               ///< Of what was accepted.
  std::vector<std::unique_ptr<Upload>> kept_;                 ///< What the aggregator reads again.
};

/// The clients that the strategy selects of those that are there.
std::vector<std::shared_ptr<ClientSession>> selected(const RunContext& context, const Strategy& strategy,
                                                     std::uint32_t round) {
  std::vector<std::shared_ptr<ClientSession>> clients = context.roster.active();
  std::vector<Participant> present;
  for (const auto& client : clients) present.push_back({client->name(), client->info().num_examples});
  const std::vector<std::string> names = strategy.select(round, present);
  std::erase_if(clients,
                [&names](const auto& client) { return std::ranges::find(names, client->name()) == names.end(); });
  return clients;
}

}  // namespace

net::Task<RoundOutcome> run_round(const RunContext& context, const Strategy& strategy, const ServerState& state,
                                  const DigestedState& global, std::uint32_t round,
                                  const std::map<std::string, std::int64_t>& counted,
                                  std::optional<std::string> suspect) {
  const auto clients = selected(context, strategy, round);
  const std::set<std::string> gone = context.roster.gone();
  context.observer.on_phase({PhaseKind::training, round}, clients.size());
  std::vector<std::string> names;
  for (const auto& client : clients) names.push_back(client->name());
  RoundMachine machine(round, names, static_cast<std::size_t>(quorum_of(context.options())));
  if (clients.size() < static_cast<std::size_t>(quorum_of(context.options()))) {
    throw Error(Errc::run_failed,
                fmt::format("round {}: {} of {} clients are left, {} updates are needed", round, clients.size(),
                            context.roster.all().size(), quorum_of(context.options())));
  }
  const RoundPlan plan{round, context.global_schema, state};
  Collection collection(context, strategy, plan, global, counted, machine, std::move(suspect));
  auto preparing = collection.prepare(plan);
  co_await std::move(preparing);
  const auto answers = co_await context.roster.ask<bool>(
      clients, [&collection](ClientSession& client) { return collection.collect_from(client); });
  for (const auto& answer : answers) {
    if (answer.value) continue;
    if (answer.client->is_lost()) {
      machine.on_lost(answer.client->name(), answer.reason);
    } else {
      machine.on_rejected(answer.client->name(), answer.reason);
    }
    context.leave_out({PhaseKind::training, round}, answer.client->name(), answer.reason);
  }
  if (machine.phase() != RoundMachine::Phase::complete) throw Error(Errc::run_failed, machine.failure());
  if (const std::string work = strategy.finishing(); !work.empty()) {
    context.observer.on_phase({PhaseKind::finishing, round, work}, 1);
  }
  nlohmann::json report = nlohmann::json::object();
  auto finishing =
      net::offload(context.pool, [&] { return strategy.finish(plan, collection.take_aggregator(), report); });
  ServerState next = co_await std::move(finishing);
  std::map<std::string, std::string> excluded = machine.excluded();
  for (const std::string& name : gone) excluded.emplace(name, "it is away for longer than timeouts.absence");
  co_return RoundOutcome{std::move(next),
                         {machine.accepted(), std::move(excluded), std::move(report), collection.norms()}};
}

}  // namespace headstart::server
