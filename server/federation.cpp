#include "server/federation.hpp"

#include <cmath>

#include <fmt/format.h>

#include "server/rounds.hpp"
#include "server/run_terms.hpp"
#include "shared/base/version.hpp"
#include "shared/learn/platform.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

constexpr std::uint64_t max_default_upload_memory = std::uint64_t{1} << 30;

std::uint64_t upload_budget(const FederationOptions& options, std::uint64_t model_bytes) {
  if (options.upload_memory > 0) return static_cast<std::uint64_t>(options.upload_memory);
  return std::min(2 * model_bytes, max_default_upload_memory);
}

nlohmann::json measured(const std::optional<learn::Evaluation>& evaluation) {
  if (!evaluation) return nullptr;
  return {{"accuracy", evaluation->accuracy()},
          {"loss", evaluation->loss()},
          {"class_accuracy", evaluation->class_accuracy()},
          {"samples", evaluation->num_samples()}};
}

/// Whose data judge which models, in words for summary.json.
nlohmann::json what_is_counted(ValidationSource source) {
  const char* const words[] = {"nothing", "the server's validation set, for all models",
                               "clients' held-out data: of a pre-trained model those of all clients but its own, of "
                               "seeds and global models those of all clients"};
  return {{"source", word_of(Choices<ValidationSource>(validation_words), source)},
          {"counts", words[static_cast<std::size_t>(source)]}};
}

/// What a sample is, with the keys of a model file's metadata, which are JSON texts there.
nlohmann::json samples_record(const session::Terms& terms) {
  nlohmann::json record = {{"stored", word_of(Choices<learn::Stored>(learn::stored_words), terms.samples.stored)}};
  const wire::Metadata metadata = session::metadata_of(terms, terms.architecture);
  for (const char* key : {"input_shape", "scale", "range", "mean", "deviation", "classes"}) {
    record[key] = parse_json(metadata.at(key), key);
  }
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

}  // namespace

Federation::Federation(net::asio::any_io_executor executor, net::asio::thread_pool& pool, const ServerConfig& config,
                       CentralData data, RunFolder& folder, FederationObserver& observer, Clock clock)
    : executor_(std::move(executor)),
      config_(config),
      data_(std::move(data)),
      folder_(folder),
      observer_(observer, clock),
      recovery_(recover(folder, observer_, config.back_to_round)),
      cohort_(executor_, patience_of(config.federation.timeouts), clock),
      context_{executor_,         pool,
               config_,           data_,
               global_schema_,    folder,
               cohort_,           observer_,
               std::move(clock),  learn::device_of(config.device),
               stop_.get_token(), left_out_},
      local_models_(context_),
      targets_(config.federation.targets) {
  config_.terms = run_terms(config_, data_);
  evaluated_ = context_.make_global_model();
  global_schema_ = evaluated_->schema();
  if (data_.test.size() == 0 && data_.validation.size() == 0) evaluated_.reset();
  slots_ = std::make_unique<UploadSlots>(executor_, upload_budget(config_.federation, global_schema_.num_bytes()),
                                         folder.staging());
  const std::size_t num_expected =
      recovery_.roster.empty() ? static_cast<std::size_t>(config_.federation.num_clients) : recovery_.roster.size();
  lobby_ = std::make_unique<Lobby>(num_expected);
  const Timeouts& timeouts = config_.federation.timeouts;
  if (recovery_.milestone) num_rounds_done_ = num_kept_ = recovery_.milestone->round;
  if (!recovery_.lines.empty()) num_measured_ = recovery_.lines.back().at("round").get<std::int64_t>();
  std::map<std::string, RefusalCounts> refusals;
  if (!recovery_.lines.empty()) refusals = recovery_.lines.back().value("refused", refusals);
  AdmissionRules rules{.terms = config_.terms,
                       .schema_digest = global_schema_.digest(),
                       .figures = data_.figures,
                       .model_bytes = global_schema_.num_bytes(),
                       .allowed_clients = config_.allowed_clients,
                       .quorum = static_cast<std::size_t>(quorum_of(config_.federation)),
                       .num_late = config_.federation.num_late,
                       .handshake_limit = milliseconds_of(timeouts.handshake),
                       .silence = milliseconds_of(timeouts.silence),
                       .lobby_limit = milliseconds_of(timeouts.lobby),
                       .patience = patience_of(timeouts),
                       .wall_clock = folder.audit().clock(),
                       .roster = recovery_.roster,
                       .refusals = std::move(refusals),
                       .num_newcomers = recovery_.num_newcomers,
                       .keep_newcomer = [this](const ClientInfo& client) {
                         folder_.journal().append(joined_event(client));
                         note_consent(client);
                       }};
  admission_ = std::make_unique<Admission>(executor_, std::move(rules), *lobby_, cohort_, *slots_, folder.audit(),
                                           observer_, context_.clock);
}

net::Task<nlohmann::json> Federation::run() {
  nlohmann::json record = run_record();
  const bool goes_back = config_.back_to_round.has_value();
  nlohmann::json finished = goes_back ? nlohmann::json() : folder_.earlier_summary();
  const nlohmann::json earlier = folder_.earlier_run();
  if (!earlier.is_null()) {
    require_same_run(earlier, record, folder_.path().string(),
                     finished.is_null() ? "an unfinished run" : "a finished run");
  }
  if (folder_.is_over() && !goes_back) co_return leave_as_it_is(std::move(finished));
  const FederationOptions& options = config_.federation;
  if (const std::size_t num_clients = recovery_.roster.size();
      num_clients > 0 && options.num_late == 0 && std::cmp_greater(quorum_of(options), num_clients)) {
    throw Error(Errc::usage,
                fmt::format("federation.min_clients: {} are needed, and the run that is gone on with has {} "
                            "clients",
                            quorum_of(options), num_clients));
  }
  if (!finished.is_null()) {
    auto parting = part_again(std::move(finished));
    co_return co_await std::move(parting);
  }
  if (goes_back) go_back();
  if (!earlier.is_null()) record["changed"] = note_changed_limits(earlier, record);
  if (!recovery_.roster.empty()) folder_.journal().append(resumed_event(recovery_.milestone));
  folder_.discard_checkpoints_after(recovery_.milestone ? recovery_.milestone->round : -1);
  folder_.rewrite_rounds(recovery_.lines);
  folder_.write_run(record);
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
  const std::string cause = failure ? failure->what() : "";
  if (failure && stop_.stop_requested()) {
    const bool has_model = recovery_.milestone || !global_.digest.empty();
    const std::string where = has_model ? fmt::format("after round {}", num_rounds_done_) : "before round 1";
    failure = Error(Errc::interrupted, fmt::format("stopped {}; {}", where, what_comes_next(Errc::interrupted)));
  } else if (failure) {
    failure = Error(failure->code(), fmt::format("{}; {}", failure->what(), what_comes_next(failure->code())));
  }
  if (failure) stopped_because_ = failure->what();
  const nlohmann::json result = summary(stopped_because_);
  // Clients are told whatever becomes of the files; but a run whose summary is not there is not done.
  try {
    write_result(result, failure.has_value());
  } catch (const Error& error) {
    if (!failure) failure = Error(error.code(), fmt::format("{}; {}", error.what(), what_comes_next(error.code())));
    stopped_because_ = failure->what();
  }
  folder_.audit().run_ended(stopped_because_);
  // What is kept where is the operator's business.
  const std::string words = failure ? "the run ended early: " + cause : "the run is done: " + stopped_because_;
  const bool is_over = !failure || !can_be_gone_on_with(failure->code());
  if (is_over && !stop_.stop_requested()) co_await finish_clients(words, failure.has_value());
  if (failure) throw *failure;
  end_run();
  co_return result;
}

void Federation::go_back() {
  const std::int64_t round = *config_.back_to_round;
  const std::string aside = folder_.keep_aside(round, recovery_.is_best_later);
  folder_.journal().append(taken_back_event(round, aside, recovery_.is_best_later));
  folder_.reopen(recovery_.is_best_later);
  folder_.audit().taken_back(round, aside);
  observer_.on_note(fmt::format("gone back to the model of round {}; what came after it lies in {}", round,
                                (folder_.path() / aside).string()));
}

nlohmann::json Federation::note_changed_limits(const nlohmann::json& earlier, const nlohmann::json& record) {
  nlohmann::json all = earlier.value("changed", nlohmann::json::array());
  const nlohmann::json changes = changed_limits(earlier, record);
  if (changes.empty()) return all;
  folder_.journal().append(limits_changed_event(changes));
  for (nlohmann::json change : changes) {
    observer_.on_note(fmt::format("{} was {}, is {} from here on", change.at("setting").get<std::string>(),
                                  change.at("was").dump(), change.at("is").dump()));
    change["after_round"] = recovery_.milestone ? recovery_.milestone->round : -1;
    all.push_back(std::move(change));
  }
  return all;
}

void Federation::note_dominant_clients() {
  const auto clients = cohort_.active();
  double total = 0;
  double total_held_out = 0;
  for (const auto& client : clients) {
    total += static_cast<double>(client->info().num_examples);
    total_held_out += static_cast<double>(client->info().num_held_out);
  }
  for (const auto& client : clients) {
    const double share = static_cast<double>(client->info().num_held_out) / total_held_out;
    const bool counts = config_.federation.validation == ValidationSource::federated && clients.size() > 1;
    if (!counts || !(share > dominant_share) || !dominant_judges_.insert(client->name()).second) continue;
    observer_.on_note(fmt::format(
        "{} holds {} of {:.0f} held-out samples, {:.1f}%: what federated validation finds is mostly what it "
        "finds",
        client->name(), client->info().num_held_out, total_held_out, 100 * share));
  }
  for (const auto& client : clients) {
    const std::int64_t num_examples = client->info().num_examples;
    const double share = static_cast<double>(num_examples) / total;
    if (clients.size() < 2 || share <= dominant_share || dominant_.contains(client->name())) continue;
    dominant_[client->name()] = {{"examples", num_examples}, {"share", share}};
    observer_.on_note(
        fmt::format("{} brings {} of {:.0f} examples, {:.1f}%: its update is as much of every round's model",
                    client->name(), num_examples, total, 100 * share));
  }
}

std::string Federation::suspicion() const {
  if (norms_.empty()) return "";
  std::string words = largest_update_words(num_rounds_done_, norms_);
  if (folder_.has_checkpoint(num_rounds_done_ - 1)) {
    words += fmt::format("; --back-to-round {} goes back before it", num_rounds_done_ - 1);
  }
  return words;
}

void Federation::note_collapse(const std::optional<learn::Evaluation>& now,
                               const std::optional<learn::Evaluation>& before) {
  if (!now) return;
  const bool is_worse = before && (now->loss() > 10 * before->loss() || now->accuracy() < before->accuracy() / 2);
  if (std::isfinite(now->loss()) && !is_worse) return;
  const auto words_of = [](const learn::Evaluation& evaluation) {
    return fmt::format("accuracy {:.4f}, loss {:.6g}", evaluation.accuracy(), evaluation.loss());
  };
  const std::string suspect = suspicion();
  observer_.on_note(fmt::format("round {}: the model has collapsed: {}{}{}", num_rounds_done_, words_of(*now),
                                before ? ", after " + words_of(*before) : "", suspect.empty() ? "" : "; " + suspect));
}

nlohmann::json Federation::leave_as_it_is(nlohmann::json summary) {
  observer_.on_note(fmt::format("{}: this run is finished, and nothing is left to do; another one needs another folder",
                                folder_.path().string()));
  lobby_->close();
  admission_->close();
  return summary;
}

void Federation::end_run() {
  if (stop_.stop_requested()) {
    throw Error(Errc::interrupted,
                fmt::format("{}: the run is finished, but stopped before every client was told; the same command tells "
                            "the others",
                            folder_.path().string()));
  }
  folder_.journal().append(over_event());
}

net::Task<nlohmann::json> Federation::part_again(nlohmann::json summary) {
  const std::string words = "the run is done: " + summary.value("stopped_because", std::string());
  observer_.on_note(fmt::format("{}: the run is finished; telling the clients that come within {} s",
                                folder_.path().string(), config_.federation.timeouts.absence));
  folder_.audit().server_started(std::string(version()), true);
  lobby_->close();
  admission_->begin_farewell(words, false);
  co_await admission_->tell_roster();
  admission_->close();
  folder_.discard_temporary();
  end_run();
  co_return summary;
}

void Federation::write_result(const nlohmann::json& result, bool is_failure) {
  // A run that failed leaves its summary under another name, so that nobody takes it for a finished one, and what an
  // operator needs to go on with it.
  if (is_failure) return folder_.write_interrupted(result);
  folder_.write_summary(result);
  folder_.discard_temporary();
}

net::Task<> Federation::run_phases() {
  local_models_.restore(recovery_.local_models);
  left_out_ = recovery_.left_out;
  best_score_ = recovery_.best_score;
  co_await gather_clients();
  began_at_ = context_.clock();
  if (recovery_.milestone) {
    resume();
  } else {
    apply_consents();
    Start start = co_await make_start();
    if (!consent_fallback_.empty()) start.report["fell_back"] = consent_fallback_;
    start_used_ = start.used;
    start_report_ = std::move(start.report);
    before_rounds_ = {{"seconds", seconds()},
                      {"bytes_up", bytes_up()},
                      {"bytes_down", bytes_down()},
                      {"pretrain_seconds", local_models_.longest_pretraining()},
                      {"pretrain_reused_seconds", reused_seconds_}};
    count_start();
    bytes_up_ = bytes_up();
    bytes_down_ = bytes_down();
    const auto used = word_of(Choices<StartModel>(start_words), start_used_);
    folder_.journal().append(started_event(std::string(used), start_report_, before_rounds_));
    const Participation nobody;
    co_await adopt(std::move(start.state), 0, nobody);
    co_await record_round(0, nobody);
  }
  co_await run_rounds();
  if (!local_models_.models().empty() && data_.test.size() > 0) {
    observer_.on_phase("ensemble of the local models, for the record", 0);
    ensemble_ = co_await local_models_.measure_ensemble();
  }
  auto keeping = net::offload(context_.pool, [this] {
    wire::Metadata metadata = session::metadata_of(config_.terms, num_rounds_done_);
    metadata["rounds"] = std::to_string(num_rounds_done_);
    folder_.write_final(context_.complete(global_.state), metadata);
  });
  co_await std::move(keeping);
  // Until its summary is written a run can be stopped; a server that is started again then does the rest.
  if (stop_.stop_requested()) throw Error(Errc::interrupted, "stopped");
}

net::Task<> Federation::gather_clients() {
  for (const auto& [name, client] : recovery_.roster) cohort_.expect(name);
  co_await admission_->complete();
  if (!recovery_.roster.empty()) {
    for (const auto& [name, client] : recovery_.roster) note_consent(client);
    const std::string reason =
        fmt::format("it did not return within timeouts.absence to the server that goes on {}",
                    recovery_.milestone ? fmt::format("after round {}", recovery_.milestone->round)
                                        : std::string("before round 1"));
    for (const std::string& name : cohort_.missing()) context_.leave_out(phase::absence, name, reason);
    co_return;
  }
  std::vector<ClientInfo> clients;
  for (const auto& client : cohort_.all()) {
    clients.push_back(client->info());
    note_consent(client->info());
  }
  folder_.journal().append(roster_event(clients));
  if (const std::size_t num_missing = lobby_->num_expected() - clients.size(); num_missing > 0) {
    context_.leave_out(phase::lobby, fmt::format("{} of {} clients", num_missing, lobby_->num_expected()),
                       "they did not come within timeouts.lobby");
  }
}

void Federation::note_consent(const ClientInfo& client) {
  if (config_.federation.start == StartModel::random) return;  // nothing but updates leaves the silos
  (client.shares_with_peers ? consents_.with_peers : consents_.with_server).push_back(client.name);
}

void Federation::apply_consents() {
  if (config_.federation.start == StartModel::random) return;
  observer_.on_note(words_of(consents_));
  const ConsentRuling ruling = rule_on_consents(config_.federation, consents_, data_.transfer.size() > 0);
  if (!ruling.refusal.empty()) throw Error(Errc::run_failed, ruling.refusal);
  if (ruling.fallback.empty()) return;
  observer_.on_note(ruling.fallback);
  consent_fallback_ = ruling.fallback;
  config_.federation.consolidation.transfer = ruling.transfer;
}

net::Task<Start> Federation::make_start() {
  const StartModel wanted = config_.federation.start;
  if (wanted == StartModel::random) co_return co_await random_start(context_);
  note_dominant_clients();
  co_await local_models_.pretrain();
  // Models from the store were trained in an earlier run: their time counts as if it had been spent now.
  reused_seconds_ = std::max(0.0, local_models_.longest_pretraining() - local_models_.phase_seconds());
  co_await local_models_.collect();
  co_await local_models_.rate();
  if (wanted == StartModel::best_local) co_return co_await best_local_start(context_, local_models_);
  if (wanted == StartModel::average) co_return co_await average_start(context_, local_models_);
  co_return co_await kd_start(context_, local_models_, recovery_);
}

void Federation::resume() {
  const auto used = recovery_.start.at("used").get<std::string>();
  for (const auto& [start, word] : start_words) {
    if (word == used) start_used_ = start;
  }
  start_report_ = recovery_.start.at("report");
  before_rounds_ = recovery_.start.at("before_rounds");
  count_start();
  reused_seconds_ = 0;  // part of earlier_seconds_
  const Recovery::Milestone& milestone = *recovery_.milestone;
  global_ = {milestone.digest, milestone.state};
  norms_ = milestone.participation.norms;
  earlier_seconds_ = milestone.seconds;
  earlier_bytes_up_ = milestone.bytes_up;
  earlier_bytes_down_ = milestone.bytes_down;
  bytes_up_ = before_rounds_.at("bytes_up").get<std::uint64_t>();
  bytes_down_ = before_rounds_.at("bytes_down").get<std::uint64_t>();
  for (const nlohmann::json& line : recovery_.lines) {
    bytes_up_ += line.at("bytes_up").get<std::uint64_t>();
    bytes_down_ += line.at("bytes_down").get<std::uint64_t>();
    count(line);
  }
  observer_.on_note(fmt::format("going on after round {}", num_rounds_done_));
}

void Federation::count_start() {
  targets_.on_start(
      before_rounds_.at("seconds").get<double>(),
      before_rounds_.at("bytes_up").get<std::uint64_t>() + before_rounds_.at("bytes_down").get<std::uint64_t>(),
      config_.federation.start != StartModel::random);
}

void Federation::count(const nlohmann::json& line) {
  if (!line.contains("accuracy")) return;
  last_accuracy_ = line.at("accuracy").get<double>();
  best_accuracy_ = std::max(best_accuracy_.value_or(0), *last_accuracy_);
  targets_.on_round(line.at("round").get<std::int64_t>(), *last_accuracy_, line.at("seconds").get<double>(),
                    bytes_up_ + bytes_down_);
}

net::Task<> Federation::adopt(wire::PackedState state, std::int64_t round, const Participation& participation) {
  global_.state = std::move(state);
  num_rounds_done_ = round;
  norms_ = participation.norms;
  Recovery::Milestone milestone{.round = round,
                                .digest = {},
                                .participation = participation,
                                .bytes_up = bytes_up(),
                                .bytes_down = bytes_down(),
                                .seconds = seconds(),
                                .state = {}};
  auto keeping = net::offload(context_.pool, [this, &milestone] {
    global_.digest = global_.state.digest();
    milestone.digest = global_.digest;
    // The file first: the journal names only what is there.
    const wire::Metadata metadata = session::metadata_of(config_.terms, milestone.round);
    if (!folder_.checkpoint(milestone.round, global_.state, metadata)) return;
    folder_.journal().append(milestone_event(milestone));
    num_kept_ = milestone.round;
    folder_.prune_checkpoints();
  });
  co_await std::move(keeping);
  folder_.audit().global_model(round, global_.digest, participation.accepted);
}

net::Task<> Federation::keep_best(std::int64_t round, std::optional<double> score) {
  if (!score || !config_.federation.checkpoints.best || *score <= best_score_) co_return;
  best_score_ = *score;
  auto keeping = net::offload(context_.pool, [this, round] {
    wire::Metadata metadata = session::metadata_of(config_.terms, round);
    metadata["validation_accuracy"] = fmt::format("{:.6f}", best_score_);
    folder_.write_best(context_.complete(global_.state), metadata);
    folder_.journal().append(best_event(round, best_score_));
  });
  co_await std::move(keeping);
}

net::Task<> Federation::run_rounds() {
  const bool is_measured = !recovery_.lines.empty() && recovery_.lines.back().at("round") == num_rounds_done_;
  if (recovery_.milestone && !is_measured) {
    // The earlier server ended between keeping this model and measuring it.
    co_await record_round(num_rounds_done_, recovery_.milestone->participation);
  }
  admission_->open_for_late();
  const std::int64_t num_rounds = config_.federation.num_rounds;
  stopped_because_ = fmt::format("all {} rounds are done", num_rounds);
  for (std::int64_t round = num_rounds_done_ + 1; round <= num_rounds; ++round) {
    if (config_.federation.targets.stop && targets_.all_reached()) break;
    if (stop_.stop_requested()) throw Error(Errc::interrupted, "stopped");
    admission_->put_out_unlisted();
    note_dominant_clients();
    std::optional<RoundOutcome> outcome;
    try {
      auto running = run_round(context_, global_, static_cast<std::uint32_t>(round), outlier_in(norms_));
      outcome = co_await std::move(running);
    } catch (const Error& error) {
      // Updates that cannot be used come from honest clients too, where the model that they were sent is poisoned.
      if (error.code() != Errc::run_failed || !outlier_in(norms_)) throw;
      throw Error(error.code(), fmt::format("{}; {}", error.what(), suspicion()));
    }
    if (!outcome->participation.excluded.empty() && outlier_in(norms_)) {
      observer_.on_note(
          fmt::format("round {} began from a model in which one update stands out: {}", round, suspicion()));
    }
    co_await adopt(std::move(outcome->state), round, outcome->participation);
    co_await record_round(round, outcome->participation);
  }
  if (config_.federation.targets.stop && targets_.all_reached()) stopped_because_ = "every target is reached";
}

net::Task<> Federation::record_round(std::int64_t round, const Participation& participation) {
  // Counted before federated evaluation: the model it sends is the next round's download.
  const std::uint64_t up = bytes_up();
  const std::uint64_t down = bytes_down();
  const std::uint64_t up_now = up - std::exchange(bytes_up_, up);
  const std::uint64_t down_now = down - std::exchange(bytes_down_, down);
  const auto central = co_await evaluate_here(data_.test);
  const double seconds_now = seconds();
  std::optional<double> score;
  if (config_.federation.checkpoints.best) {
    const auto validation = co_await evaluate_here(data_.validation);
    if (validation) score = validation->accuracy();
  }
  const auto federated = co_await evaluate_at_clients();
  if (federated && config_.federation.validation == ValidationSource::federated) score = federated->accuracy();
  co_await keep_best(round, score);
  note_collapse(central, last_central_);
  if (!central) note_collapse(federated, last_federated_);
  last_central_ = central;
  last_federated_ = federated;

  nlohmann::json line = measured(central);
  if (line.is_null()) line = nlohmann::json::object();
  line["round"] = round;
  line["seconds"] = seconds_now;
  line["bytes_up"] = up_now;
  line["bytes_down"] = down_now;
  line["model"] = global_.digest;
  line["clients"] = participation.accepted;
  line["excluded"] = participation.excluded;
  line["norms"] = participation.norms;
  line["refused"] = nlohmann::json::object();
  for (const auto& client : cohort_.all()) {
    if (!client->refusals().empty()) line["refused"][client->name()] = client->refusals();
  }
  line["federated"] = measured(federated);
  if (!participation.fusion.is_null()) line["feddf"] = participation.fusion;
  if (score) line["validation_accuracy"] = *score;
  auto keeping = net::offload(context_.pool, [this, &line] {
    folder_.journal().append(measured_event(line));
    folder_.append_round(line);
    num_measured_ = line.at("round").get<std::int64_t>();
  });
  co_await std::move(keeping);
  count(line);

  RoundView view;
  view.round = round;
  view.num_rounds = config_.federation.num_rounds;
  view.accuracy = last_accuracy_;
  if (central) view.loss = central->loss();
  if (federated) view.federated_accuracy = federated->accuracy();
  view.seconds = seconds_now;
  view.num_bytes = up_now + down_now;
  view.num_updates = participation.accepted.size();
  view.next_target = targets_.next();
  observer_.on_round(view);
}

net::Task<std::optional<learn::Evaluation>> Federation::evaluate_here(const learn::Samples& samples) {
  if (samples.size() == 0) co_return std::nullopt;
  auto measuring = net::offload(context_.pool, [this, &samples] {
    const learn::KeepFreedMemory keep_freed_memory;
    evaluated_->load(global_.state.state());
    return learn::evaluate(*evaluated_, samples, data_.task.num_classes);
  });
  co_return co_await std::move(measuring);
}

net::Task<std::optional<learn::Evaluation>> Federation::evaluate_at_clients() {
  if (!config_.federation.federated_evaluation) co_return std::nullopt;
  observer_.on_phase(fmt::format("round {}: evaluation at the clients", num_rounds_done_), cohort_.active().size());
  const auto ask = [this](ClientSession& client) { return client.evaluate(global_); };
  auto counting = context_.evaluate_at_clients(phase::evaluation, cohort_.active(), ask);
  const learn::Evaluation sum = co_await std::move(counting);
  co_return sum.num_samples() > 0 ? std::optional(sum) : std::nullopt;
}

net::Task<> Federation::finish_clients(const std::string& words, bool is_failure) {
  // Also those that are away for the moment: they would go on looking for the server.
  const auto part = [&words, is_failure](ClientSession& client) -> net::Task<bool> {
    auto parting = client.finish(wire::Finished{words, is_failure});
    co_await std::move(parting);
    co_return true;
  };
  admission_->begin_farewell(words, is_failure);
  for (const auto& client : cohort_.active()) {
    if (client->is_lost()) {
      observer_.on_note(fmt::format("waiting for {}, which is away, to tell it that the run is over", client->name()));
    }
  }
  auto parting = cohort_.ask<bool>(cohort_.active(), part);
  const auto answers = co_await std::move(parting);
  for (const auto& answer : answers) {
    if (answer.value) continue;
    observer_.on_note(fmt::format("{} may not know that the run is over: {}", answer.client->name(), answer.reason));
  }
  admission_->close();
}

void Federation::stop() {
  stop_.request_stop();
  admission_->stop();
  cohort_.abort_all();
}

RunStatus Federation::status() const {
  RunStatus status;
  observer_.report(status);
  status.takes_clients = admission_->is_open();
  status.round = num_rounds_done_;
  status.num_rounds = config_.federation.num_rounds;
  status.seconds = seconds();
  status.num_expected = lobby_->num_expected();
  status.num_left_out = left_out_.size();
  for (const auto& client : cohort_.all()) {
    status.clients.push_back({.name = client->name(),
                              .is_connected = !client->is_lost(),
                              .num_connections = client->num_connections(),
                              .bytes_received = client->bytes_up(),
                              .bytes_sent = client->bytes_down(),
                              .refusals = client->refusals()});
  }
  for (const std::string& name : cohort_.missing()) {
    status.clients.push_back({.name = name,
                              .is_connected = false,
                              .num_connections = 0,
                              .bytes_received = 0,
                              .bytes_sent = 0,
                              .refusals = {}});
  }
  status.upload_memory = slots_->used();
  status.num_staged = slots_->num_staged();
  return status;
}

double Federation::seconds() const {
  return began_at_ ? earlier_seconds_ + seconds_between(*began_at_, context_.clock()) + reused_seconds_ : 0;
}

std::string Federation::kept() const {
  if (num_measured_ < 0 && num_kept_ < 0) {
    return fmt::format("kept in {}: nothing of a round yet; the same command begins again", folder_.path().string());
  }
  const std::string lines =
      num_measured_ < 0 ? "no line of rounds.jsonl" : fmt::format("rounds.jsonl up to round {}", num_measured_);
  const std::string model = num_kept_ < 0 ? "no checkpoint" : fmt::format("checkpoints up to round {}", num_kept_);
  return fmt::format("kept in {}: {}, {}; the same command goes on from there", folder_.path().string(), lines, model);
}

std::string Federation::what_comes_next(Errc code) const {
  return kept() + (can_be_gone_on_with(code)
                       ? ", and the clients wait for it (their connect.patience_once_in)"
                       : "; the clients are told that the run ended, and must be started again too");
}

nlohmann::json Federation::run_record() const {
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
          {"terms", session::digest_of(config_.terms)},
          {"manifest_digest", data_.manifest_digest},
          {"validation_source", word_of(Choices<ValidationSource>(validation_words), config_.federation.validation)},
          {"models_leave_silos_for", recipients_of_local_models(config_.federation)},
          {"reproducible_with", learn::platform_record(context_.device.str())}};
}

nlohmann::json Federation::summary(const std::string& stopped_because) const {
  const auto start_word = [](StartModel start) { return word_of(Choices<StartModel>(start_words), start); };
  nlohmann::json result = {{"start", start_word(config_.federation.start)},
                           {"start_used", start_word(start_used_)},
                           {"start_report", start_report_},
                           {"rounds", num_rounds_done_},
                           {"stopped_because", stopped_because},
                           {"degraded", !left_out_.empty()},
                           {"share_model", {{"peers", consents_.with_peers}, {"server", consents_.with_server}}},
                           {"left_out", nlohmann::json::array()},
                           {"validation", what_is_counted(config_.federation.validation)},
                           {"before_rounds", before_rounds_},
                           {"targets", targets_.report()},
                           {"models", local_models_.report()},
                           {"dominant", dominant_},
                           {"ensemble", ensemble_},
                           {"seconds", seconds()},
                           {"bytes_up", bytes_up()},
                           {"bytes_down", bytes_down()},
                           {"final_accuracy", nullptr},
                           {"best_accuracy", nullptr}};
  if (last_accuracy_) result["final_accuracy"] = *last_accuracy_;
  if (best_accuracy_) result["best_accuracy"] = *best_accuracy_;
  if (!global_.digest.empty()) result["model_digest"] = global_.digest;
  for (const LeftOut& left : left_out_) {
    result["left_out"].push_back({{"phase", left.phase}, {"client", left.client}, {"reason", left.reason}});
  }
  return result;
}

}  // namespace headstart::server
