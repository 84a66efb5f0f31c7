#include "server/run/run.hpp"

#include <cmath>

#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/disclosure.hpp"
#include "server/phases/federated_statistics.hpp"
#include "server/phases/head_from_sums.hpp"
#include "server/phases/round.hpp"
#include "server/phases/run_terms.hpp"
#include "server/phases/start_choice.hpp"
#include "server/record/metrics_record.hpp"
#include "server/record/round_record.hpp"
#include "server/sessions/client_tasks.hpp"
#include "shared/base/version.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

constexpr std::uint64_t max_default_upload_memory = std::uint64_t{1} << 30;

std::uint64_t upload_budget(const FederationOptions& options, std::uint64_t model_bytes) {
  if (options.upload_memory > 0) return static_cast<std::uint64_t>(options.upload_memory);
  return std::min(2 * model_bytes, max_default_upload_memory);
}

/// Whose data judge which models, in words for summary.json.
nlohmann::json what_is_counted(const FederationOptions& options) {
  const ValidationSource source = options.validation;
  const char* const words[] = {"nothing", "the server's validation set, for all models",
                               "clients' held-out data: of a pre-trained model those of all clients but its own, of "
                               "seeds and global models those of all clients"};
  return {{"source", word_of(Choices<ValidationSource>(validation_words), source)},
          {"counts", words[static_cast<std::size_t>(source)]},
          {"metric", options.metric}};
}

/// What a sample is, with the keys of a model file's metadata, which are JSON texts there.
nlohmann::json samples_record(const plan::Terms& terms) {
  nlohmann::json record = {{"stored", word_of(Choices<learn::Stored>(learn::stored_words), terms.samples.stored)}};
  const wire::Metadata metadata = plan::metadata_of(terms, terms.architecture);
  for (const char* key : {"input_shape", "scale", "range", "mean", "deviation", "classes", "table"}) {
    if (metadata.contains(key)) record[key] = parse_json(metadata.at(key), key);
  }
  // The run is the same before they are known and after.
  if (terms.statistics == plan::StatisticsSource::federated) record["mean"] = record["deviation"] = nullptr;
  return record;
}

/// Whether a server that is started again can go on with a run that ends with `code`. Its clients are then left waiting
/// for it, as those of a server that was killed are; of any other end they are told, and end too.
bool can_be_gone_on_with(Errc code) {
  switch (code) {
    case Errc::interrupted:  // whoever stops a server may start it again
    case Errc::storage:      // room is made
    case Errc::network:
    case Errc::data:      // a damaged file of the run's folder is found and made again
    case Errc::internal:  // a bug; the journal is whole up to it
      return true;
    case Errc::run_failed:  // the same would happen again, or clients are gone for good
    case Errc::usage:
    case Errc::rejected:
    case Errc::protocol:
    case Errc::peer_closed:
      return false;
  }
  return false;
}

ClientStatus status_of(const ClientSession& client) {
  return {.name = client.name(),
          .is_connected = !client.is_lost(),
          .num_connections = client.num_connections(),
          .bytes_received = client.bytes_up(),
          .bytes_sent = client.bytes_down(),
          .refusals = client.refusals(),
          .is_awaited = client.is_awaited(),
          .is_asked = client.is_asked(),
          .num_examples = client.info().num_examples,
          .task = client.task(),
          .tasks = client.task_times()};
}

}  // namespace

Run::Run(net::asio::any_io_executor executor, net::asio::thread_pool& pool, const ServerConfig& config,
         CentralData data, RunFolder& folder, RunObserver& observer, Clock clock)
    : config_(config),
      data_(std::move(data)),
      folder_(folder),
      observer_(observer, clock),
      recovery_(recover(folder, observer_, config.back_to_round)),
      clients_{Roster(executor, patience_of(config.federation.timeouts), clock), {}, {}, {}},
      context_{std::move(executor),
               pool,
               config_,
               data_,
               federated_.schema,
               folder,
               clients_.roster,
               observer_,
               std::move(clock),
               learn::device_of(config.device),
               stop_.get_token(),
               state_.left_out},
      local_models_(context_),
      targets_(config.federation.targets) {
  learn::require_precision(config_.terms.precision, context_.device);
  config_.terms = run_terms(config_, data_);
  require_named_head(config_.federation, config_.terms, data_.task);
  federated_.measured = context_.make_global_model();
  federated_.schema = federated_.measured->schema();
  federated_.strategy =
      strategy_row(config_.federation.strategy.name).make(config_.federation.strategy, strategy_tools());
  if (data_.test.size() == 0 && data_.validation.size() == 0) federated_.measured.reset();
  const learn::Schema update = learn::joined(federated_.schema, federated_.strategy->returned_parts(federated_.schema));
  clients_.slots = std::make_unique<UploadSlots>(
      context_.executor, upload_budget(config_.federation, update.num_bytes()), folder.staging());
  const std::size_t num_expected =
      recovery_.roster.empty() ? static_cast<std::size_t>(config_.federation.num_clients) : recovery_.roster.size();
  clients_.lobby = std::make_unique<Lobby>(num_expected);
  if (recovery_.milestone) state_.num_rounds_done = state_.num_kept = recovery_.milestone->round;
  if (!recovery_.lines.empty()) state_.num_measured = recovery_.lines.back().round;
  clients_.admission =
      std::make_unique<Admission>(context_.executor, admission_rules(), *clients_.lobby, clients_.roster,
                                  *clients_.slots, folder.audit(), observer_, context_.clock);
}

AdmissionRules Run::admission_rules() {
  const Timeouts& timeouts = config_.federation.timeouts;
  std::map<std::string, RefusalCounts> refusals;
  if (!recovery_.lines.empty()) refusals = recovery_.lines.back().refused;
  AdmissionCriteria criteria{.terms = config_.terms,
                             .schema_digest = federated_.schema.digest(),
                             .figures = data_.figures,
                             .model_bytes = federated_.schema.num_bytes(),
                             .num_late = config_.federation.num_late,
                             .roster = recovery_.roster,
                             .num_newcomers = recovery_.num_newcomers,
                             .max_violations = ClientSession::max_violations};
  return {.criteria = std::move(criteria),
          .tasks = tasks_of(config_.federation, data_),
          .allowed_clients = config_.allowed_clients,
          .quorum = static_cast<std::size_t>(quorum_of(config_.federation)),
          .handshake_limit = milliseconds_of(timeouts.handshake),
          .silence = milliseconds_of(timeouts.silence),
          .lobby_limit = milliseconds_of(timeouts.lobby),
          .patience = patience_of(timeouts),
          .wall_clock = folder_.audit().clock(),
          .refusals = std::move(refusals),
          .keep_newcomer = [this](const ClientInfo& client) {
            folder_.write_down(NewcomerEvent{client});
            note_consent(client);
          }};
}

StrategyTools Run::strategy_tools() const {
  StrategyTools tools{.make_model = [this] { return context_.make_global_model(); },
                      .public_samples = {},
                      .num_classes = data_.task.num_classes,
                      .seeds = config_.terms.seeds(),
                      .clock = context_.clock,
                      .stop = stop_.get_token()};
  if (data_.transfer.size() > 0) tools.public_samples = data_.transfer.x.to(context_.device);
  return tools;
}

net::Task<nlohmann::json> Run::run() {
  nlohmann::json record = run_record();
  const bool goes_back = config_.back_to_round.has_value();
  nlohmann::json finished = goes_back ? nlohmann::json() : folder_.earlier_summary();
  const nlohmann::json earlier = folder_.earlier_run();
  if (!earlier.is_null()) {
    require_same_run(earlier, record, folder_.path().string(),
                     finished.is_null() ? "an unfinished run" : "a finished run");
  }
  if (!finished.is_null()) {
    show_records(earlier);
    observer_.on_end(finished, false);
  }
  if (folder_.is_over() && !goes_back) co_return report_finished(std::move(finished));
  require_enough_clients();
  if (!finished.is_null()) {
    auto parting = resume_farewell(std::move(finished));
    co_return co_await std::move(parting);
  }
  if (goes_back) go_back();
  if (!earlier.is_null()) record["changed"] = note_changed_limits(earlier, record);
  const std::int64_t last_round = recovery_.milestone ? recovery_.milestone->round : -1;
  if (!recovery_.roster.empty()) folder_.write_down(ResumedEvent{last_round});
  folder_.discard_checkpoints_after(last_round);
  folder_.rewrite_rounds(recovery_.lines);
  folder_.write_run(record);
  show_records(record);
  folder_.audit().server_started(std::string(version()), !recovery_.roster.empty());
  std::optional<Error> failure;
  try {
    co_await run_phases();
  } catch (const Error& error) {
    failure = error;
  } catch (const std::exception& error) {
    // A bug, here or in a library: the folder is still closed in order.
    failure = Error(Errc::internal, error.what());
  }
  auto concluding = conclude(std::move(failure));
  co_return co_await std::move(concluding);
}

void Run::show_records(const nlohmann::json& record) {
  observer_.on_run(record);
  for (const RoundRecord& line : recovery_.lines) observer_.on_line(to_json(line));
}

void Run::require_enough_clients() const {
  const FederationOptions& options = config_.federation;
  const std::size_t num_clients = recovery_.roster.size();
  if (num_clients == 0 || options.num_late > 0 || std::cmp_less_equal(quorum_of(options), num_clients)) return;
  throw Error(Errc::usage, fmt::format("federation.min_clients: {} are needed, and the run that is gone on with has {} "
                                       "clients",
                                       quorum_of(options), num_clients));
}

net::Task<nlohmann::json> Run::conclude(std::optional<Error> failure) {
  const std::string cause = failure ? failure->what() : "";
  if (failure && stop_.stop_requested()) {
    const bool has_model = recovery_.milestone || !state_.global.digest.empty();
    const std::string where = has_model ? fmt::format("after round {}", state_.num_rounds_done) : "before round 1";
    failure = Error(Errc::interrupted, fmt::format("stopped {}; {}", where, what_comes_next(Errc::interrupted)));
  } else if (failure) {
    failure = Error(failure->code(), fmt::format("{}; {}", failure->what(), what_comes_next(failure->code())));
  }
  if (failure) state_.stopped_because = failure->what();
  const nlohmann::json result = summary(state_.stopped_because);
  // Clients are told whatever becomes of the files; but a run whose summary is not there is not done.
  try {
    write_result(result, failure.has_value());
  } catch (const Error& error) {
    if (!failure) failure = Error(error.code(), fmt::format("{}; {}", error.what(), what_comes_next(error.code())));
    state_.stopped_because = failure->what();
  }
  folder_.audit().run_ended(state_.stopped_because);
  observer_.on_end(result, failure.has_value());
  // What is kept where is the operator's business.
  const std::string words = failure ? "the run ended early: " + cause : "the run is done: " + state_.stopped_because;
  const bool is_over = !failure || !can_be_gone_on_with(failure->code());
  if (is_over && !stop_.stop_requested()) co_await finish_clients(words, failure.has_value());
  if (failure) throw *failure;
  end_run();
  co_return result;
}

void Run::go_back() {
  const std::int64_t round = *config_.back_to_round;
  const std::string aside = folder_.keep_aside(round, recovery_.is_best_later);
  folder_.write_down(TakenBackEvent{round, aside, recovery_.is_best_later});
  folder_.reopen(recovery_.is_best_later);
  folder_.audit().taken_back(round, aside);
  observer_.on_note(fmt::format("gone back to the model of round {}; what came after it lies in {}", round,
                                (folder_.path() / aside).string()));
}

nlohmann::json Run::note_changed_limits(const nlohmann::json& earlier, const nlohmann::json& record) {
  nlohmann::json all = earlier.value("changed", nlohmann::json::array());
  const std::vector<LimitChange> changes = changed_limits(earlier, record);
  if (changes.empty()) return all;
  folder_.write_down(LimitsChangedEvent{changes});
  for (const LimitChange& change : changes) {
    observer_.on_note(
        fmt::format("{} was {}, is {} from here on", change.setting, change.was.dump(), change.is.dump()));
    nlohmann::json entry = to_json(change);
    entry["after_round"] = recovery_.milestone ? recovery_.milestone->round : -1;
    all.push_back(std::move(entry));
  }
  return all;
}

void Run::note_dominant_clients() {
  const auto clients = clients_.roster.active();
  double total = 0;
  double total_held_out = 0;
  for (const auto& client : clients) {
    total += static_cast<double>(client->info().num_examples);
    total_held_out += static_cast<double>(client->info().num_held_out);
  }
  for (const auto& client : clients) {
    const double share = static_cast<double>(client->info().num_held_out) / total_held_out;
    const bool counts = config_.federation.validation == ValidationSource::federated && clients.size() > 1;
    if (!counts || !(share > dominant_share) || !state_.dominant_judges.insert(client->name()).second) continue;
    observer_.on_note(fmt::format(
        "{} holds {} of {:.0f} held-out samples, {:.1f}%: what federated validation finds is mostly what it "
        "finds",
        client->name(), client->info().num_held_out, total_held_out, 100 * share));
  }
  for (const auto& client : clients) {
    const std::int64_t num_examples = client->info().num_examples;
    const double share = static_cast<double>(num_examples) / total;
    if (clients.size() < 2 || share <= dominant_share || state_.dominant.contains(client->name())) continue;
    state_.dominant[client->name()] = {{"examples", num_examples}, {"share", share}};
    observer_.on_note(
        fmt::format("{} brings {} of {:.0f} examples, {:.1f}%: its update is as much of every round's model",
                    client->name(), num_examples, total, 100 * share));
  }
}

std::string Run::suspicion() const {
  if (state_.norms.empty()) return "";
  std::string words = largest_update_words(state_.num_rounds_done, state_.norms);
  if (folder_.has_checkpoint(state_.num_rounds_done - 1)) {
    words += fmt::format("; --back-to-round {} goes back before it", state_.num_rounds_done - 1);
  }
  return words;
}

void Run::note_collapse(const std::optional<learn::Evaluation>& now, const std::optional<learn::Evaluation>& before) {
  if (!now) return;
  const bool is_worse = before && (now->loss() > 10 * before->loss() || now->accuracy() < before->accuracy() / 2);
  if (std::isfinite(now->loss()) && !is_worse) return;
  const auto words_of = [](const learn::Evaluation& evaluation) {
    return fmt::format("accuracy {:.4f}, loss {:.6g}", evaluation.accuracy(), evaluation.loss());
  };
  const std::string suspect = suspicion();
  observer_.on_note(fmt::format("round {}: the model has collapsed: {}{}{}", state_.num_rounds_done, words_of(*now),
                                before ? ", after " + words_of(*before) : "", suspect.empty() ? "" : "; " + suspect));
}

nlohmann::json Run::report_finished(nlohmann::json summary) {
  observer_.on_note(fmt::format("{}: this run is finished, and nothing is left to do; another one needs another folder",
                                folder_.path().string()));
  clients_.lobby->close();
  clients_.admission->close();
  return summary;
}

void Run::end_run() {
  if (stop_.stop_requested()) {
    throw Error(Errc::interrupted,
                fmt::format("{}: the run is finished, but stopped before every client was told; the same command tells "
                            "the others",
                            folder_.path().string()));
  }
  folder_.write_down(OverEvent{});
}

net::Task<nlohmann::json> Run::resume_farewell(nlohmann::json summary) {
  const std::string words = "the run is done: " + summary.value("stopped_because", std::string());
  observer_.on_note(fmt::format("{}: the run is finished; telling the clients that come within {} s",
                                folder_.path().string(), config_.federation.timeouts.absence));
  folder_.audit().server_started(std::string(version()), true);
  clients_.lobby->close();
  clients_.admission->start_farewell(words, false);
  co_await clients_.admission->wait_until_told();
  clients_.admission->close();
  folder_.discard_temporary();
  end_run();
  co_return summary;
}

void Run::write_result(const nlohmann::json& result, bool is_failure) {
  // A run that failed leaves its summary under another name, so that nobody takes it for a finished one, and what an
  // operator needs to go on with it.
  if (is_failure) return folder_.write_interrupted(result);
  folder_.write_summary(result);
  folder_.discard_temporary();
}

net::Task<> Run::run_phases() {
  local_models_.restore(recovery_.local_models);
  state_.left_out = recovery_.left_out;
  state_.best_score = recovery_.best_score;
  co_await gather_clients();
  state_.began_at = context_.clock();
  co_await settle_statistics();
  if (recovery_.milestone) {
    resume();
  } else {
    apply_consents();
    Start start = co_await make_start();
    if (!state_.consent_fallback.empty()) start.report["fell_back"] = state_.consent_fallback;
    state_.start_used = start.used;
    state_.start_report = std::move(start.report);
    state_.before_rounds = BeforeRounds{.seconds = seconds(),
                                        .bytes_up = bytes_up(),
                                        .bytes_down = bytes_down(),
                                        .pretrain_seconds = local_models_.longest_pretraining(),
                                        .pretrain_reused_seconds = state_.reused_seconds};
    count_start();
    state_.bytes_up = bytes_up();
    state_.bytes_down = bytes_down();
    const auto used = word_of(Choices<StartModel>(start_words), state_.start_used);
    folder_.write_down(StartRecord{std::string(used), state_.start_report, *state_.before_rounds});
    const Participation nobody;
    ServerState first{std::move(start.state), {}};
    auto adopting = adopt(std::move(first), 0, nobody);
    co_await std::move(adopting);
    co_await record_round(0, nobody);
  }
  co_await run_rounds();
  if (!local_models_.models().empty() && data_.test.size() > 0) {
    observer_.on_phase({PhaseKind::ensemble}, 0);
    state_.ensemble = co_await local_models_.measure_ensemble();
  }
  auto keeping = net::offload(context_.pool, [this] {
    wire::Metadata metadata = plan::metadata_of(config_.terms, state_.num_rounds_done);
    metadata["rounds"] = std::to_string(state_.num_rounds_done);
    folder_.write_final(context_.complete(state_.global.state), metadata);
  });
  co_await std::move(keeping);
  // Until its summary is written a run can be stopped; a server that is started again then does the rest.
  if (stop_.stop_requested()) throw Error(Errc::interrupted, "stopped");
}

net::Task<> Run::gather_clients() {
  for (const auto& [name, client] : recovery_.roster) clients_.roster.expect(name);
  co_await clients_.admission->complete();
  if (!recovery_.roster.empty()) {
    for (const auto& [name, client] : recovery_.roster) note_consent(client);
    const std::string reason =
        fmt::format("it did not return within timeouts.absence to the server that goes on {}",
                    recovery_.milestone ? fmt::format("after round {}", recovery_.milestone->round)
                                        : std::string("before round 1"));
    for (const std::string& name : clients_.roster.missing()) context_.leave_out({PhaseKind::absence}, name, reason);
    co_return;
  }
  std::vector<ClientInfo> clients;
  for (const auto& client : clients_.roster.all()) {
    clients.push_back(client->info());
    note_consent(client->info());
  }
  folder_.write_down(RosterEvent{clients});
  if (const std::size_t num_missing = clients_.lobby->num_expected() - clients.size(); num_missing > 0) {
    context_.leave_out({PhaseKind::lobby}, fmt::format("{} of {} clients", num_missing, clients_.lobby->num_expected()),
                       "they did not come within timeouts.lobby");
  }
}

net::Task<> Run::settle_statistics() {
  if (!data_.awaits_statistics) co_return;
  if (!recovery_.statistics) {
    auto collecting = collect_statistics(context_);
    recovery_.statistics = co_await std::move(collecting);
    folder_.write_down(*recovery_.statistics);
    nlohmann::json record = folder_.earlier_run();  // as this server wrote it when it started
    record["statistics"] = recovery_.statistics->report;
    folder_.write_run(record);
  }
  const StatisticsRecord& statistics = *recovery_.statistics;
  if (std::ssize(statistics.mean) != data_.task.shape.front()) {
    throw Error(Errc::data, fmt::format("{}: the statistics in its journal are of {} features, and samples have {}",
                                        folder_.path().string(), statistics.mean.size(), data_.task.shape.front()));
  }
  const learn::FeatureScaling scaling{statistics.mean, statistics.deviation};
  auto normalising = net::offload(context_.pool, [this, &scaling] { normalise_by(scaling, data_); });
  co_await std::move(normalising);
  config_.terms.samples.mean = statistics.mean;
  config_.terms.samples.deviation = statistics.deviation;
  // What it was given of the public samples was not normalised yet.
  federated_.strategy =
      strategy_row(config_.federation.strategy.name).make(config_.federation.strategy, strategy_tools());
  const auto row = [](const std::vector<double>& values) { return torch::tensor(values, torch::kDouble); };
  const wire::PackedState both = wire::PackedState::of_tensor(
      std::string(plan::input::normalisation), torch::stack({row(statistics.mean), row(statistics.deviation)}));
  clients_.roster.normalise_by(DisclosurePolicy::release_tensors("normalisation", {both.digest(), both}));
}

void Run::note_consent(const ClientInfo& client) {
  if (!pretrains(config_.federation)) return;  // nothing but updates leaves the silos
  Consents& consents = state_.consents;
  std::vector<std::string>& list = client.withholds_model     ? consents.with_nobody
                                   : client.shares_with_peers ? consents.with_peers
                                                              : consents.with_server;
  list.push_back(client.name);
}

void Run::apply_consents() {
  if (!pretrains(config_.federation)) return;
  observer_.on_note(words_of(state_.consents));
  const ConsentRuling ruling = rule_on_consents(config_.federation, state_.consents, data_.transfer.size() > 0);
  if (!ruling.refusal.empty()) throw Error(Errc::run_failed, ruling.refusal);
  std::vector<std::string>& candidates = config_.federation.candidates;
  for (const auto& [start, why] : ruling.dropped) {
    observer_.on_note(fmt::format("start.model auto without {}: {}", start, why));
    std::erase(candidates, start);
  }
  if (ruling.fallback.empty()) return;
  observer_.on_note(ruling.fallback);
  state_.consent_fallback = ruling.fallback;
  config_.federation.consolidation.transfer = ruling.transfer;
}

net::Task<Start> Run::make_start() {
  if (!pretrains(config_.federation)) {
    auto making = chosen_start(context_, local_models_, recovery_);
    co_return co_await std::move(making);
  }
  note_dominant_clients();
  co_await local_models_.pretrain();
  // Models from the store were trained in an earlier run: their time counts as if it had been spent now.
  state_.reused_seconds = std::max(0.0, local_models_.longest_pretraining() - local_models_.phase_seconds());
  co_await local_models_.collect();
  co_await local_models_.rate();
  auto making = chosen_start(context_, local_models_, recovery_);
  co_return co_await std::move(making);
}

void Run::resume() {
  const StartRecord& started = recovery_.start.value();
  for (const auto& [start, word] : start_words) {
    if (word == started.used) state_.start_used = start;
  }
  state_.start_report = started.report;
  state_.before_rounds = started.before_rounds;
  count_start();
  state_.reused_seconds = 0;  // part of state_.earlier_seconds
  const Milestone& milestone = *recovery_.milestone;
  ServerState kept = unpacked(milestone.state);
  state_.memory = std::move(kept.memory);
  state_.global = {state_.memory.is_empty() ? milestone.digest : kept.model.digest(), std::move(kept.model)};
  state_.norms = milestone.participation.norms;
  state_.earlier_seconds = milestone.seconds;
  state_.earlier_bytes_up = milestone.bytes_up;
  state_.earlier_bytes_down = milestone.bytes_down;
  state_.bytes_up = started.before_rounds.bytes_up;
  state_.bytes_down = started.before_rounds.bytes_down;
  for (const RoundRecord& record : recovery_.lines) {
    note_counted(record.round, record.participation);
    state_.bytes_up += record.bytes_up;
    state_.bytes_down += record.bytes_down;
    count(record);
  }
  note_counted(milestone.round, milestone.participation);
  observer_.on_note(fmt::format("going on after round {}", state_.num_rounds_done));
}

void Run::note_counted(std::int64_t round, const Participation& participation) {
  if (round == 0) return;  // what round 1 starts from is nobody's update
  for (const std::string& client : participation.accepted) state_.counted[client] = round;
}

void Run::count_start() {
  const BeforeRounds& before = state_.before_rounds.value();
  targets_.on_start(before.seconds, before.bytes_up + before.bytes_down, pretrains(config_.federation));
  observer_.on_start({{"start_used", word_of(Choices<StartModel>(start_words), state_.start_used)},
                      {"before_rounds", to_json(before)}});
}

void Run::count(const RoundRecord& record) {
  state_.metrics = record.metrics;
  state_.silo_metrics = record.silo_metrics;
  if (!record.central) return;
  state_.last_accuracy = record.central->accuracy;
  state_.best_accuracy = std::max(state_.best_accuracy.value_or(0), *state_.last_accuracy);
  targets_.on_round(record.round, *state_.last_accuracy, record.seconds, state_.bytes_up + state_.bytes_down);
}

net::Task<> Run::adopt(ServerState state, std::int64_t round, const Participation& participation) {
  state_.global.state = std::move(state.model);
  state_.memory = std::move(state.memory);
  state_.num_rounds_done = round;
  state_.norms = participation.norms;
  note_counted(round, participation);
  Milestone milestone{.round = round,
                      .digest = {},
                      .participation = participation,
                      .bytes_up = bytes_up(),
                      .bytes_down = bytes_down(),
                      .seconds = seconds(),
                      .state = {}};
  auto keeping = net::offload(context_.pool, [this, &milestone] {
    state_.global.digest = state_.global.state.digest();
    const wire::PackedState kept = packed({state_.global.state, state_.memory});
    milestone.digest = state_.memory.is_empty() ? state_.global.digest : kept.digest();
    // The file first: the journal names only what is there.
    const wire::Metadata metadata = plan::metadata_of(config_.terms, milestone.round);
    if (!folder_.checkpoint(milestone.round, kept, metadata)) return;
    folder_.write_down(milestone);
    state_.num_kept = milestone.round;
    folder_.prune_checkpoints();
  });
  co_await std::move(keeping);
  folder_.audit().global_model(round, state_.global.digest, participation.accepted);
}

net::Task<bool> Run::keep_best(std::int64_t round, const std::optional<learn::Evaluation>& rating) {
  const learn::Metric metric = context_.metric();
  if (!rating || !config_.federation.checkpoints.best || metric.score(*rating) <= state_.best_score) {
    co_return false;
  }
  state_.best_score = metric.score(*rating);
  auto keeping = net::offload(context_.pool, [this, round, &rating, &metric] {
    wire::Metadata metadata = plan::metadata_of(config_.terms, round);
    metadata["validation_accuracy"] = fmt::format("{:.6f}", rating->accuracy());
    if (!metric.is_accuracy()) {
      metadata["validation_metric"] = metric.text();
      metadata["validation_value"] = fmt::format("{:.6f}", metric.value(*rating).value_or(0));
    }
    folder_.write_best(context_.complete(state_.global.state), metadata);
    folder_.write_down(BestEvent{round, state_.best_score});
  });
  co_await std::move(keeping);
  co_return true;
}

net::Task<> Run::run_rounds() {
  const bool is_measured = !recovery_.lines.empty() && recovery_.lines.back().round == state_.num_rounds_done;
  if (recovery_.milestone && !is_measured) {
    // The earlier server ended between keeping this model and measuring it.
    co_await record_round(state_.num_rounds_done, recovery_.milestone->participation);
  } else if (recovery_.milestone && state_.num_rounds_done == config_.federation.num_rounds) {
    // It may have ended before the silos had the last model.
    auto telling = tell_keepers(state_.num_rounds_done, false, recovery_.milestone->participation);
    co_await std::move(telling);
  }
  clients_.admission->open_for_late();
  const std::int64_t num_rounds = config_.federation.num_rounds;
  state_.stopped_because = fmt::format("all {} rounds are done", num_rounds);
  for (std::int64_t round = state_.num_rounds_done + 1; round <= num_rounds; ++round) {
    if (config_.federation.targets.stop && targets_.all_reached()) break;
    if (stop_.stop_requested()) throw Error(Errc::interrupted, "stopped");
    clients_.admission->disconnect_removed_clients();
    note_dominant_clients();
    std::optional<RoundOutcome> outcome;
    try {
      const ServerState state{state_.global.state, state_.memory};
      auto running = run_round(context_, *federated_.strategy, state, state_.global, static_cast<std::uint32_t>(round),
                               state_.counted, outlier_in(state_.norms));
      outcome = co_await std::move(running);
    } catch (const Error& error) {
      // Updates that cannot be used come from honest clients too, where the model that they were sent is poisoned.
      if (error.code() != Errc::run_failed || !outlier_in(state_.norms)) throw;
      throw Error(error.code(), fmt::format("{}; {}", error.what(), suspicion()));
    }
    if (!outcome->participation.excluded.empty() && outlier_in(state_.norms)) {
      observer_.on_note(
          fmt::format("round {} began from a model in which one update stands out: {}", round, suspicion()));
    }
    if (config_.federation.head.rounds == StartHead::sums) {
      auto fitting = with_head_from_sums(context_, std::move(outcome->state.model), state_.without_sums, round);
      FittedHead fitted = co_await std::move(fitting);
      outcome->state.model = std::move(fitted.state);
      outcome->participation.strategy["head"] = std::move(fitted.report);
    }
    auto adopting = adopt(std::move(outcome->state), round, outcome->participation);
    co_await std::move(adopting);
    co_await record_round(round, outcome->participation);
  }
  if (config_.federation.targets.stop && targets_.all_reached()) state_.stopped_because = "every target is reached";
}

net::Task<> Run::record_round(std::int64_t round, const Participation& participation) {
  // Counted before federated evaluation: the model it sends is the next round's download.
  const std::uint64_t up = bytes_up();
  const std::uint64_t down = bytes_down();
  const std::uint64_t up_now = up - std::exchange(state_.bytes_up, up);
  const std::uint64_t down_now = down - std::exchange(state_.bytes_down, down);
  auto measuring = measure();
  const RoundMeasures measures = co_await std::move(measuring);
  const std::optional<learn::Evaluation>& rating = measures.rating;
  const bool is_best = co_await keep_best(round, rating);
  note_collapse(measures.central, state_.last_central);
  if (!measures.central) note_collapse(measures.federated, state_.last_federated);
  state_.last_central = measures.central;
  state_.last_federated = measures.federated;

  RoundRecord record{.round = round,
                     .seconds = measures.seconds,
                     .bytes_up = up_now,
                     .bytes_down = down_now,
                     .model_digest = state_.global.digest,
                     .participation = participation,
                     .central = measurement_of(measures.central),
                     .federated = measurement_of(measures.federated),
                     .validation_accuracy = rating ? std::optional(rating->accuracy()) : std::nullopt};
  add_metrics(record, measures);
  for (const auto& client : clients_.roster.all()) {
    if (!client->refusals().empty()) record.refused[client->name()] = client->refusals();
  }
  auto keeping = net::offload(context_.pool, [this, &record, round] {
    folder_.write_down(record);
    folder_.append_round(record);
    state_.num_measured = round;
  });
  co_await std::move(keeping);
  count(record);
  RoundView view = view_of(record);
  if (!record.validation.is_null()) view.validation = context_.rating_words(*rating);
  observer_.on_round(view);
  observer_.on_line(to_json(record));
  auto telling = tell_keepers(round, is_best, participation);
  co_await std::move(telling);
}

net::Task<> Run::tell_keepers(std::int64_t round, bool is_best, const Participation& participation) {
  std::vector<std::shared_ptr<ClientSession>> keepers = clients_.roster.active();
  std::erase_if(keepers, [](const auto& client) { return !client->info().keeps_models; });
  if (keepers.empty()) co_return;
  const plan::KeepSettings settings{.round = round,
                                    .num_rounds = config_.federation.num_rounds,
                                    .is_best = is_best,
                                    .took_part = participation.accepted};
  const auto ask = [this, settings](ClientSession& client) {
    return keep(client, DisclosurePolicy::release_model("global model", state_.global), settings);
  };
  auto asking = clients_.roster.ask<bool>(std::move(keepers), ask);
  for (const Answer<bool>& answer : co_await std::move(asking)) {
    if (!answer.value)
      observer_.on_note(fmt::format("{} may not have kept the model: {}", answer.client->name(), answer.reason));
  }
}

net::Task<Run::RoundMeasures> Run::measure() {
  RoundMeasures measures;
  measures.central = co_await evaluate_here(data_.test, learn::Measures::exact);
  measures.seconds = seconds();
  if (config_.federation.checkpoints.best) {
    measures.rating = co_await evaluate_here(data_.validation, context_.metric().measures());
  }
  auto counting = evaluate_at_clients(measures.by_silo);
  std::optional<learn::Evaluation> counted = co_await std::move(counting);
  if (!counted) co_return measures;
  measures.own = counted->own;
  if (counted->num_samples() == 0) co_return measures;
  measures.federated = std::move(counted);
  if (config_.federation.validation == ValidationSource::federated) measures.rating = measures.federated;
  co_return measures;
}

void Run::add_metrics(RoundRecord& record, const RoundMeasures& measures) const {
  if (measures.central) record.metrics["central"] = metrics_record(*measures.central);
  if (measures.federated) record.metrics["federated"] = metrics_record(*measures.federated);
  if (nlohmann::json own = own_record(measures.own); !own.empty()) record.metrics["own"] = std::move(own);
  for (const auto& [name, counts] : measures.by_silo) {
    record.silo_metrics[name] = metrics_record(counts);
    if (nlohmann::json own = own_record(counts.own); !own.empty()) record.silo_metrics[name]["own"] = std::move(own);
  }
  if (!measures.rating || context_.metric().is_accuracy()) return;
  record.validation = {{"metric", context_.metric().text()}, {"value", context_.metric_value(*measures.rating)}};
}

RoundView Run::view_of(const RoundRecord& record) const {
  RoundView view;
  view.round = record.round;
  view.num_rounds = config_.federation.num_rounds;
  view.accuracy = state_.last_accuracy;
  if (record.central) view.loss = record.central->loss;
  if (record.federated) view.federated_accuracy = record.federated->accuracy;
  view.seconds = record.seconds;
  view.num_bytes = record.bytes_up + record.bytes_down;
  view.num_updates = record.participation.accepted.size();
  view.next_target = targets_.next();
  return view;
}

net::Task<std::optional<learn::Evaluation>> Run::evaluate_here(const learn::Samples& samples,
                                                               learn::Measures measures) {
  if (samples.size() == 0) co_return std::nullopt;
  auto measuring = net::offload(context_.pool, [this, &samples, measures] {
    const learn::KeepFreedMemory keep_freed_memory;
    federated_.measured->load(state_.global.state.state());
    return learn::evaluate(*federated_.measured, samples, data_.task.num_classes, measures);
  });
  co_return co_await std::move(measuring);
}

net::Task<std::optional<learn::Evaluation>> Run::evaluate_at_clients(
    std::map<std::string, learn::Evaluation>& by_silo) {
  if (!config_.federation.federated_evaluation) co_return std::nullopt;
  observer_.on_phase({PhaseKind::evaluation, state_.num_rounds_done}, clients_.roster.active().size());
  plan::EvaluateSettings settings{.counts_scores = config_.federation.counts_scores, .by_silo = true};
  const bool rates = config_.federation.validation == ValidationSource::federated;
  if (rates && context_.metric().needs_scores()) settings.counts_scores = true;
  const auto ask = [this, settings](ClientSession& client) {
    return evaluate(client, DisclosurePolicy::release_model("global model", state_.global), true, settings);
  };
  auto counting = context_.evaluate_at_clients(PhaseKind::evaluation, clients_.roster.active(), ask, &by_silo);
  co_return co_await std::move(counting);
}

net::Task<> Run::finish_clients(const std::string& words, bool is_failure) {
  // Also those that are away for the moment: they would go on looking for the server.
  const auto part = [&words, is_failure](ClientSession& client) -> net::Task<bool> {
    auto parting = client.finish(wire::Finished{words, is_failure});
    co_await std::move(parting);
    co_return true;
  };
  clients_.admission->start_farewell(words, is_failure);
  for (const auto& client : clients_.roster.active()) {
    if (client->is_lost()) {
      observer_.on_note(fmt::format("waiting for {}, which is away, to tell it that the run is over", client->name()));
    }
  }
  auto parting = clients_.roster.ask<bool>(clients_.roster.active(), part);
  const auto answers = co_await std::move(parting);
  for (const auto& answer : answers) {
    if (answer.value) continue;
    observer_.on_note(fmt::format("{} may not know that the run is over: {}", answer.client->name(), answer.reason));
  }
  clients_.admission->close();
}

void Run::stop() {
  stop_.request_stop();
  clients_.admission->stop();
  clients_.roster.abort_all();
}

RunStatus Run::status() const {
  RunStatus status;
  observer_.report(status);
  status.takes_clients = clients_.admission->is_open();
  status.round = state_.num_rounds_done;
  status.num_rounds = config_.federation.num_rounds;
  status.seconds = seconds();
  status.num_expected = clients_.lobby->num_expected();
  status.num_left_out = state_.left_out.size();
  for (const auto& client : clients_.roster.all()) status.clients.push_back(status_of(*client));
  for (const std::string& name : clients_.roster.missing()) {
    const bool is_waited_for = !clients_.lobby->is_closed();
    status.clients.push_back({.name = name, .is_awaited = is_waited_for, .is_asked = is_waited_for});
  }
  status.upload_memory = clients_.slots->used();
  status.num_staged = clients_.slots->num_staged();
  return status;
}

double Run::seconds() const {
  return state_.began_at
             ? state_.earlier_seconds + seconds_between(*state_.began_at, context_.clock()) + state_.reused_seconds
             : 0;
}

std::string Run::kept() const {
  if (state_.num_measured < 0 && state_.num_kept < 0) {
    return fmt::format("kept in {}: nothing of a round yet; the same command begins again", folder_.path().string());
  }
  const std::string lines = state_.num_measured < 0 ? "no line of rounds.jsonl"
                                                    : fmt::format("rounds.jsonl up to round {}", state_.num_measured);
  const std::string model =
      state_.num_kept < 0 ? "no checkpoint" : fmt::format("checkpoints up to round {}", state_.num_kept);
  return fmt::format("kept in {}: {}, {}; the same command goes on from there", folder_.path().string(), lines, model);
}

std::string Run::what_comes_next(Errc code) const {
  return kept() + (can_be_gone_on_with(code)
                       ? ", and the clients wait for it (their connect.patience_once_in)"
                       : "; the clients are told that the run ended, and must be started again too");
}

nlohmann::json Run::run_record() const {
  ServerConfig copy = config_;
  Fields fields;
  declare_fields(fields, copy);
  return {{"program", "headstart"},
          {"version", version()},
          {"config", fields.resolved()},
          {"seed", config_.terms.seed},
          {"architecture", config_.terms.architecture},
          {"dataset", data_.dataset},
          {"samples", samples_record(config_.terms)},
          {"statistics", recovery_.statistics ? recovery_.statistics->report : nlohmann::json()},
          {"terms", plan::digest_of(config_.terms)},
          {"manifest_digest", data_.manifest_digest},
          {"validation_source", word_of(Choices<ValidationSource>(validation_words), config_.federation.validation)},
          {"models_leave_silos_for", recipients_of_local_models(config_.federation)},
          {"reproducible_with", learn::platform_record(context_.device.str())}};
}

nlohmann::json Run::summary(const std::string& stopped_because) const {
  const auto start_word = [](StartModel start) { return word_of(Choices<StartModel>(start_words), start); };
  // null where it has not come to that
  const nlohmann::json before_rounds = state_.before_rounds ? to_json(*state_.before_rounds) : nlohmann::json();
  nlohmann::json result = {{"start", start_word(config_.federation.start)},
                           {"start_used", start_word(state_.start_used)},
                           {"start_report", state_.start_report},
                           {"rounds", state_.num_rounds_done},
                           {"stopped_because", stopped_because},
                           {"degraded", !state_.left_out.empty()},
                           {"share_model",
                            {{"peers", state_.consents.with_peers},
                             {"server", state_.consents.with_server},
                             {"answers", state_.consents.with_nobody}}},
                           {"left_out", nlohmann::json::array()},
                           {"validation", what_is_counted(config_.federation)},
                           {"before_rounds", before_rounds},
                           {"targets", targets_.report()},
                           {"models", local_models_.report()},
                           {"dominant", state_.dominant},
                           {"ensemble", state_.ensemble},
                           {"seconds", seconds()},
                           {"bytes_up", bytes_up()},
                           {"bytes_down", bytes_down()},
                           {"metrics", state_.metrics},
                           {"silo_metrics", state_.silo_metrics},
                           {"final_accuracy", nullptr},
                           {"best_accuracy", nullptr}};
  if (state_.last_accuracy) result["final_accuracy"] = *state_.last_accuracy;
  if (state_.best_accuracy) result["best_accuracy"] = *state_.best_accuracy;
  if (!state_.global.digest.empty()) result["model_digest"] = state_.global.digest;
  for (const LeftOut& left : state_.left_out) {
    result["left_out"].push_back({{"phase", recorded(left.phase)}, {"client", left.client}, {"reason", left.reason}});
  }
  return result;
}

}  // namespace headstart::server
