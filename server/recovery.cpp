#include "server/recovery.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"

namespace headstart::server {

namespace {

using nlohmann::json;

/// json::get() would cut fractions off and turn negative numbers into large ones.
template <class Integer>
Integer whole_number(const json& value) {
  const bool is_whole = value.is_number_unsigned()  ? std::in_range<Integer>(value.get<std::uint64_t>())
                        : value.is_number_integer() ? std::in_range<Integer>(value.get<std::int64_t>())
                                                    : false;
  if (!is_whole) throw Error(Errc::data, fmt::format("expected a whole number, got {}", to_line(value)));
  return value.get<Integer>();
}

/// Of a model that diverged it is infinite, which JSON writes as null.
double loss_from(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::infinity() : value.get<double>();
}

/// What is counted from there on.
void require_byte_counts(const json& counts) {
  (void)whole_number<std::uint64_t>(counts.at("bytes_up"));
  (void)whole_number<std::uint64_t>(counts.at("bytes_down"));
}

ClientInfo client_from(const json& event) {
  ClientInfo client;
  client.name = event.at("client").get<std::string>();
  client.num_examples = whole_number<std::int64_t>(event.at("examples"));
  client.num_held_out = whole_number<std::int64_t>(event.at("held_out"));
  client.shares_with_peers = event.at("shares_with_peers").get<bool>();
  client.own_architecture = event.at("own_architecture").get<std::string>();
  if (event.contains("own_model")) {
    client.own_model = session::spec_from_json_text(event.at("own_model").get<std::string>());
  }
  return client;
}

json to_json(const ClientInfo& client) {
  json object = {{"client", client.name},
                 {"examples", client.num_examples},
                 {"held_out", client.num_held_out},
                 {"shares_with_peers", client.shares_with_peers},
                 {"own_architecture", client.own_architecture}};
  if (client.own_model) object["own_model"] = session::to_json_text(*client.own_model);
  return object;
}

LocalModelRecord local_model_from(const json& record) {
  LocalModelRecord model;
  model.num_examples = whole_number<std::int64_t>(record.at("examples"));
  model.shares_with_peers = record.at("shares_with_peers").get<bool>();
  model.spec = session::spec_from_json_text(record.at("spec").get<std::string>());
  model.architecture = record.at("architecture").get<std::string>();
  model.has_federated_architecture = record.at("federated").get<bool>();
  model.pretraining.is_reused = record.at("reused").get<bool>();
  model.pretraining.seconds = record.at("seconds").get<double>();
  model.pretraining.num_epochs = whole_number<std::uint32_t>(record.at("epochs"));
  model.pretraining.best_epoch = whole_number<std::uint32_t>(record.at("best_epoch"));
  if (!record.contains("digest")) return model;
  model.digest = record.at("digest").get<std::string>();
  model.num_bytes = whole_number<std::uint64_t>(record.at("bytes"));
  if (record.contains("rating")) model.rating = evaluation_from(record.at("rating"));
  if (record.contains("rated_by_owner")) model.is_rated_by_owner = record.at("rated_by_owner").get<bool>();
  return model;
}

TrialRecord trial_from(const json& event) {
  TrialRecord trial{.inputs = event.at("inputs").get<std::string>(),
                    .setting = {event.at("temperature").get<double>(), event.at("alpha").get<double>()},
                    .rating = {event.at("accuracy").get<double>(), loss_from(event.at("loss"))},
                    .digest = event.at("digest").get<std::string>(),
                    .report = event.at("report")};
  if (!trial.report.is_object()) throw Error(Errc::data, "trial: expected a report");
  return trial;
}

Recovery::Milestone milestone_from(const json& event) {
  Recovery::Milestone milestone;
  milestone.round = whole_number<std::int64_t>(event.at("round"));
  milestone.digest = event.at("digest").get<std::string>();
  milestone.participation.accepted = event.at("accepted").get<std::vector<std::string>>();
  milestone.participation.excluded = event.at("excluded").get<std::map<std::string, std::string>>();
  if (event.contains("feddf")) {
    if (!event.at("feddf").is_object()) throw Error(Errc::data, "feddf: expected an object");
    milestone.participation.fusion = event.at("feddf");
  }
  if (event.contains("norms")) milestone.participation.norms = event.at("norms").get<Norms>();
  milestone.bytes_up = whole_number<std::uint64_t>(event.at("bytes_up"));
  milestone.bytes_down = whole_number<std::uint64_t>(event.at("bytes_down"));
  milestone.seconds = event.at("seconds").get<double>();
  return milestone;
}

/// Whether what the run had to do without stays so when a run that had not started is gone on with: most phases are
/// gone through again. `index`: of `left` among all of them.
bool stands_before_the_start(const LeftOut& left, std::size_t index, const Recovery& recovery) {
  if (left.phase == phase::rating) return true;
  if (index >= recovery.num_left_out_when_distilled) return false;
  return left.phase == phase::seed_rating || (recovery.seed && left.phase == phase::consolidation);
}

/// Takes back what was written down beyond `milestone`; null: beyond what came before round 1.
void go_back_to(const Recovery::Milestone* milestone, Recovery& recovery) {
  const std::int64_t round = milestone == nullptr ? -1 : milestone->round;
  std::erase_if(recovery.lines, [round](const json& line) { return line.at("round") > round; });
  if (milestone == nullptr) recovery.start = nullptr;
  std::vector<LeftOut> kept;
  for (std::size_t i = 0; i < recovery.left_out.size(); ++i) {
    LeftOut& left = recovery.left_out[i];
    const bool is_of_the_roster = left.phase == phase::lobby || left.phase == phase::absence;
    const bool counts = milestone == nullptr ? stands_before_the_start(left, i, recovery) : i < milestone->num_left_out;
    if (is_of_the_roster || counts) kept.push_back(std::move(left));
  }
  recovery.left_out = std::move(kept);
  if (milestone == nullptr) recovery.num_left_out_when_distilled = recovery.left_out.size();
}

void forget_best_after(std::int64_t round, Recovery& recovery) {
  if (recovery.best_round <= round) return;
  recovery.best_round = -1;
  recovery.best_score = -1;
}

/// Takes the milestone of `round` and drops those after it.
Recovery::Milestone take_milestone(std::int64_t round, std::vector<Recovery::Milestone>& milestones,
                                   const RunFolder& folder) {
  std::string reason = "the run has no model of that round";
  const auto found = std::ranges::find(milestones, round, &Recovery::Milestone::round);
  if (found != milestones.end()) {
    try {
      found->state = folder.load_checkpoint(round, found->digest);
      Recovery::Milestone milestone = std::move(*found);
      milestones.erase(found, milestones.end());
      return milestone;
    } catch (const Error& error) {
      reason = error.what();
    }
  }
  std::vector<std::int64_t> there;
  for (const Recovery::Milestone& milestone : milestones) {
    if (milestone.round != round && folder.has_checkpoint(milestone.round)) there.push_back(milestone.round);
  }
  throw Error(Errc::usage, fmt::format("--back-to-round {}: {}; there are models of these rounds in {}/checkpoints: {}",
                                       round, reason, folder.path().string(),
                                       there.empty() ? "none" : fmt::format("{}", fmt::join(there, ", "))));
}

/// What is named by one event each and needs no second look.
void take(const json& event, Recovery& recovery, std::vector<Recovery::Milestone>& milestones) {
  const auto kind = event.at("event").get<std::string>();
  if (kind == "roster") {
    recovery.roster.clear();
    for (const json& joined : event.at("clients")) {
      ClientInfo client = client_from(joined);
      recovery.roster[client.name] = std::move(client);
    }
  } else if (kind == "joined") {
    if (recovery.roster.empty()) throw Error(Errc::data, "a newcomer to a run without clients");
    ClientInfo client = client_from(event);
    if (recovery.roster.insert_or_assign(client.name, client).second) ++recovery.num_newcomers;
  } else if (kind == "resumed" || kind == "taken back") {
    const auto round = whole_number<std::int64_t>(event.at("round"));
    std::erase_if(milestones, [round](const auto& milestone) { return milestone.round > round; });
    if (round >= 0 && (milestones.empty() || milestones.back().round != round)) {
      throw Error(Errc::data, fmt::format("resumed from round {}, which was not kept", round));
    }
    go_back_to(milestones.empty() ? nullptr : &milestones.back(), recovery);
    if (kind == "taken back") forget_best_after(round, recovery);
  } else if (kind == "local model") {
    recovery.local_models[event.at("client").get<std::string>()] = local_model_from(event.at("model"));
  } else if (kind == "trial") {
    recovery.trials.push_back(trial_from(event));
    recovery.num_left_out_when_distilled = recovery.left_out.size();
  } else if (kind == "seed") {
    recovery.seed = {.inputs = event.at("inputs").get<std::string>(),
                     .digest = event.at("digest").get<std::string>(),
                     .report = event.at("report")};
    if (!recovery.seed->report.is_object()) throw Error(Errc::data, "seed: expected a report");
    recovery.num_left_out_when_distilled = recovery.left_out.size();
  } else if (kind == "left out") {
    recovery.left_out.push_back({event.at("phase").get<std::string>(), event.at("client").get<std::string>(),
                                 event.at("reason").get<std::string>()});
  } else if (kind == "started") {
    require_byte_counts(event.at("before_rounds"));
    (void)event.at("used").get_ref<const std::string&>();
    (void)event.at("report");
    recovery.start = event;
  } else if (kind == "model") {
    Recovery::Milestone milestone = milestone_from(event);
    if (recovery.start.is_null()) throw Error(Errc::data, "a round before the start");
    if (!milestones.empty() && milestones.back().round >= milestone.round) {
      throw Error(Errc::data, fmt::format("round {} after round {}", milestone.round, milestones.back().round));
    }
    milestone.num_left_out = recovery.left_out.size();
    milestones.push_back(std::move(milestone));
  } else if (kind == "measured") {
    const json& line = event.at("line");
    const auto round = whole_number<std::int64_t>(line.at("round"));
    require_byte_counts(line);
    if (!recovery.lines.empty() && recovery.lines.back().at("round") >= round) {
      throw Error(Errc::data, fmt::format("round {} is measured twice", round));
    }
    if (line.contains("accuracy")) {
      (void)line.at("accuracy").get<double>();
      (void)line.at("seconds").get<double>();
    }
    if (!milestones.empty() && milestones.back().round == round) {
      milestones.back().num_left_out = recovery.left_out.size();
    }
    recovery.lines.push_back(line);
  } else if (kind == "best") {
    recovery.best_score = event.at("score").get<double>();
    recovery.best_round = whole_number<std::int64_t>(event.at("round"));
  }
}

void compare(const json& before, const json& now, const std::string& prefix, std::vector<std::string>& differences) {
  static constexpr std::string_view free_to_differ[] = {"run.log",
                                                        "run.log_format",
                                                        "run.folder",
                                                        "listen",
                                                        "tls",
                                                        "timeouts",
                                                        "limits",
                                                        "admin",
                                                        "checkpoints",
                                                        "federation.min_clients",
                                                        "federation.upload_memory"};
  if (std::ranges::find(free_to_differ, prefix) != std::end(free_to_differ)) return;
  if (before.is_object() && now.is_object()) {
    const auto inner = [&](const std::string& key) { return prefix.empty() ? key : prefix + "." + key; };
    for (const auto& [key, value] : before.items()) compare(value, now.value(key, json()), inner(key), differences);
    for (const auto& [key, value] : now.items()) {
      if (!before.contains(key)) compare(json(), value, inner(key), differences);
    }
  } else if (before != now) {
    differences.push_back(fmt::format("{} was {}, is {}", prefix, before.dump(), now.dump()));
  }
}

}  // namespace

Replay replay(const std::vector<json>& events, const std::string& name) {
  Replay result;
  const auto refuse = [&name](const std::exception& error) {
    return Error(Errc::data,
                 fmt::format("{}: the journal is of another version of headstart ({})", name, error.what()));
  };
  try {
    for (const json& event : events) take(event, result.recovery, result.milestones);
  } catch (const json::exception& error) {
    throw refuse(error);
  } catch (const Error& error) {
    throw refuse(error);
  }
  return result;
}

Recovery recovery_at(Replay replay, std::optional<Recovery::Milestone> milestone) {
  Recovery recovery = std::move(replay.recovery);
  recovery.milestone = std::move(milestone);
  go_back_to(recovery.milestone ? &*recovery.milestone : nullptr, recovery);
  return recovery;
}

Recovery recover(RunFolder& folder, FederationObserver& observer, std::optional<std::int64_t> back_to) {
  if (!folder.journal().damage().empty()) observer.on_note(folder.journal().damage());
  Replay earlier = replay(folder.journal().earlier(), folder.path().string());
  std::vector<Recovery::Milestone>& milestones = earlier.milestones;
  std::optional<Recovery::Milestone> found;
  if (back_to) {
    found = take_milestone(*back_to, milestones, folder);
    earlier.recovery.is_best_later = earlier.recovery.best_round > *back_to;
    forget_best_after(*back_to, earlier.recovery);
  }
  // A milestone whose file was pruned is no fault; one whose file is damaged is told.
  while (!milestones.empty() && !found) {
    Recovery::Milestone newest = std::move(milestones.back());
    milestones.pop_back();
    try {
      newest.state = folder.load_checkpoint(newest.round, newest.digest);
      found = std::move(newest);
    } catch (const Error& error) {
      observer.on_note(fmt::format("{}; going back to {}", error.what(),
                                   milestones.empty() ? std::string("what came before round 1")
                                                      : fmt::format("round {}", milestones.back().round)));
    }
  }
  return recovery_at(std::move(earlier), std::move(found));
}

json roster_event(const std::vector<ClientInfo>& clients) {
  json list = json::array();
  for (const ClientInfo& client : clients) list.push_back(to_json(client));
  return {{"event", "roster"}, {"clients", list}};
}

json joined_event(const ClientInfo& client) {
  json event = to_json(client);
  event["event"] = "joined";
  return event;
}

json resumed_event(const std::optional<Recovery::Milestone>& milestone) {
  return {{"event", "resumed"}, {"round", milestone ? milestone->round : -1}};
}

json taken_back_event(std::int64_t round, const std::string& kept_in, bool is_best_later) {
  return {{"event", "taken back"}, {"round", round}, {"kept_in", kept_in}, {"best", is_best_later}};
}

bool is_taken_back_event(const json& event) { return event.contains("event") && event.at("event") == "taken back"; }

json limits_changed_event(const json& changes) { return {{"event", "limits changed"}, {"changes", changes}}; }

json trial_event(const TrialRecord& trial) {
  return {{"event", "trial"},
          {"inputs", trial.inputs},
          {"temperature", trial.setting.temperature},
          {"alpha", trial.setting.alpha},
          {"accuracy", trial.rating.accuracy},
          {"loss", trial.rating.loss},
          {"digest", trial.digest},
          {"report", trial.report}};
}

json seed_event(const SeedRecord& seed) {
  return {{"event", "seed"}, {"inputs", seed.inputs}, {"digest", seed.digest}, {"report", seed.report}};
}

json local_model_event(const std::string& client, const LocalModelRecord& model) {
  json record = {{"examples", model.num_examples},
                 {"shares_with_peers", model.shares_with_peers},
                 {"spec", session::to_json_text(model.spec)},
                 {"architecture", model.architecture},
                 {"federated", model.has_federated_architecture},
                 {"reused", model.pretraining.is_reused.value},
                 {"seconds", model.pretraining.seconds},
                 {"epochs", model.pretraining.num_epochs},
                 {"best_epoch", model.pretraining.best_epoch}};
  if (model.num_bytes) {
    record["digest"] = model.digest;
    record["bytes"] = *model.num_bytes;
    if (model.rating) record["rating"] = to_json(*model.rating);
    if (model.is_rated_by_owner) record["rated_by_owner"] = true;
  }
  return {{"event", "local model"}, {"client", client}, {"model", record}};
}

json left_out_event(const LeftOut& left_out) {
  return {{"event", "left out"}, {"phase", left_out.phase}, {"client", left_out.client}, {"reason", left_out.reason}};
}

json started_event(const std::string& used, const json& report, const json& before_rounds) {
  return {{"event", "started"}, {"used", used}, {"report", report}, {"before_rounds", before_rounds}};
}

json milestone_event(const Recovery::Milestone& milestone) {
  json event = {{"event", "model"},
                {"round", milestone.round},
                {"digest", milestone.digest},
                {"accepted", milestone.participation.accepted},
                {"excluded", milestone.participation.excluded},
                {"bytes_up", milestone.bytes_up},
                {"bytes_down", milestone.bytes_down},
                {"seconds", milestone.seconds}};
  if (!milestone.participation.fusion.is_null()) event["feddf"] = milestone.participation.fusion;
  if (!milestone.participation.norms.empty()) event["norms"] = milestone.participation.norms;
  return event;
}

json measured_event(const json& line) { return {{"event", "measured"}, {"line", line}}; }

json best_event(std::int64_t round, double score) { return {{"event", "best"}, {"round", round}, {"score", score}}; }

json over_event() { return {{"event", "over"}}; }

bool is_over_event(const json& event) { return event.contains("event") && event.at("event") == "over"; }

json changed_limits(const json& before, const json& now) {
  json changes = json::array();
  for (const char* key : {"update_norm", "examples", "own_model"}) {
    const json::json_pointer place = json::json_pointer("/config/limits") / key;
    const json was = before.value(place, json());
    const json is = now.value(place, json());
    if (was != is) changes.push_back({{"setting", std::string("limits.") + key}, {"was", was}, {"is", is}});
  }
  return changes;
}

void require_same_run(const json& before, const json& now, const std::string& folder, std::string_view state) {
  std::vector<std::string> differences;
  compare(before.value("config", json::object()), now.value("config", json::object()), "", differences);
  for (const char* key : {"version", "architecture", "dataset", "samples", "manifest_digest"}) {
    compare(before.value(key, json()), now.value(key, json()), key, differences);
  }
  if (differences.empty()) return;
  throw Error(
      Errc::usage,
      fmt::format("run.folder {} holds {} that is not this one: {}. Choose another folder, or give the settings that "
                  "it was begun with",
                  folder, state, fmt::join(differences, "; ")));
}

json to_json(const learn::Evaluation& evaluation) {
  return {{"correct", evaluation.correct},
          {"total", evaluation.total},
          {"predicted", evaluation.predicted},
          {"loss_sum", evaluation.loss_sum}};
}

learn::Evaluation evaluation_from(const json& json) {
  learn::Evaluation evaluation;
  const auto counts = [&json](const char* key) {
    std::vector<std::int64_t> values;
    for (const auto& value : json.at(key)) values.push_back(whole_number<std::int64_t>(value));
    return values;
  };
  evaluation.correct = counts("correct");
  evaluation.total = counts("total");
  evaluation.predicted = counts("predicted");
  evaluation.loss_sum = loss_from(json.at("loss_sum"));
  return evaluation;
}

}  // namespace headstart::server
