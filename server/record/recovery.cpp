#include "server/record/recovery.hpp"

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

/// Whether what the run had to do without stays so when a run that had not started is gone on with: most phases are
/// gone through again. `index`: of `left` among all of them.
bool stands_before_the_start(const LeftOut& left, std::size_t index, const Recovery& recovery) {
  const PhaseKind phase = left.phase.kind;
  if (phase == PhaseKind::rating) return true;
  if (index >= recovery.num_left_out_when_distilled) return false;
  return phase == PhaseKind::seed_rating || (recovery.seed && phase == PhaseKind::consolidation);
}

/// Takes back what was written down beyond `milestone`; null: beyond what came before round 1.
void go_back_to(const Milestone* milestone, Recovery& recovery) {
  const std::int64_t round = milestone == nullptr ? -1 : milestone->round;
  std::erase_if(recovery.lines, [round](const json& line) { return line.at("round") > round; });
  if (milestone == nullptr) recovery.start = nullptr;
  std::vector<LeftOut> kept;
  for (std::size_t i = 0; i < recovery.left_out.size(); ++i) {
    LeftOut& left = recovery.left_out[i];
    const PhaseKind phase = left.phase.kind;
    const bool is_of_the_roster = phase == PhaseKind::lobby || phase == PhaseKind::absence;
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
Milestone take_milestone(std::int64_t round, std::vector<Milestone>& milestones, const RunFolder& folder) {
  std::string reason = "the run has no model of that round";
  const auto found = std::ranges::find(milestones, round, &Milestone::round);
  if (found != milestones.end()) {
    try {
      found->state = folder.load_checkpoint(round, found->digest);
      Milestone milestone = std::move(*found);
      milestones.erase(found, milestones.end());
      return milestone;
    } catch (const Error& error) {
      reason = error.what();
    }
  }
  std::vector<std::int64_t> there;
  for (const Milestone& milestone : milestones) {
    if (milestone.round != round && folder.has_checkpoint(milestone.round)) there.push_back(milestone.round);
  }
  throw Error(Errc::usage, fmt::format("--back-to-round {}: {}; there are models of these rounds in {}/checkpoints: {}",
                                       round, reason, folder.path().string(),
                                       there.empty() ? "none" : fmt::format("{}", fmt::join(there, ", "))));
}

void take_roster(const json& event, Recovery& recovery) {
  recovery.roster.clear();
  for (const json& joined : event.at("clients")) {
    ClientInfo client = client_from(joined);
    recovery.roster[client.name] = std::move(client);
  }
}

void take_newcomer(const json& event, Recovery& recovery) {
  if (recovery.roster.empty()) throw Error(Errc::data, "a newcomer to a run without clients");
  ClientInfo client = client_from(event);
  if (recovery.roster.insert_or_assign(client.name, client).second) ++recovery.num_newcomers;
}

void take_resumption(const json& event, Recovery& recovery, std::vector<Milestone>& milestones) {
  const auto round = whole_number<std::int64_t>(event.at("round"));
  std::erase_if(milestones, [round](const auto& milestone) { return milestone.round > round; });
  if (round >= 0 && (milestones.empty() || milestones.back().round != round)) {
    throw Error(Errc::data, fmt::format("resumed from round {}, which was not kept", round));
  }
  go_back_to(milestones.empty() ? nullptr : &milestones.back(), recovery);
  if (event.at("event") == "taken back") forget_best_after(round, recovery);
}

void take_distilled(const json& event, Recovery& recovery) {
  recovery.seed = {.inputs = event.at("inputs").get<std::string>(),
                   .digest = event.at("digest").get<std::string>(),
                   .report = event.at("report")};
  if (!recovery.seed->report.is_object()) throw Error(Errc::data, "seed: expected a report");
  recovery.num_left_out_when_distilled = recovery.left_out.size();
}

void take_start(const json& event, Recovery& recovery) {
  require_byte_counts(event.at("before_rounds"));
  (void)event.at("used").get_ref<const std::string&>();
  (void)event.at("report");
  recovery.start = event;
}

void take_model(const json& event, Recovery& recovery, std::vector<Milestone>& milestones) {
  Milestone milestone = milestone_from(event);
  if (recovery.start.is_null()) throw Error(Errc::data, "a round before the start");
  if (!milestones.empty() && milestones.back().round >= milestone.round) {
    throw Error(Errc::data, fmt::format("round {} after round {}", milestone.round, milestones.back().round));
  }
  milestone.num_left_out = recovery.left_out.size();
  milestones.push_back(std::move(milestone));
}

void take_measurement(const json& event, Recovery& recovery, std::vector<Milestone>& milestones) {
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
}

void take(const json& event, Recovery& recovery, std::vector<Milestone>& milestones) {
  const auto kind = event.at("event").get<std::string>();
  if (kind == "roster") {
    take_roster(event, recovery);
  } else if (kind == "joined") {
    take_newcomer(event, recovery);
  } else if (kind == "resumed" || kind == "taken back") {
    take_resumption(event, recovery, milestones);
  } else if (kind == "local model") {
    recovery.local_models[event.at("client").get<std::string>()] = local_model_from(event.at("model"));
  } else if (kind == "trial") {
    recovery.trials.push_back(trial_from(event));
    recovery.num_left_out_when_distilled = recovery.left_out.size();
  } else if (kind == "seed") {
    take_distilled(event, recovery);
  } else if (kind == "left out") {
    recovery.left_out.push_back({phase_from(event.at("phase").get<std::string>()),
                                 event.at("client").get<std::string>(), event.at("reason").get<std::string>()});
  } else if (kind == "started") {
    take_start(event, recovery);
  } else if (kind == "model") {
    take_model(event, recovery, milestones);
  } else if (kind == "measured") {
    take_measurement(event, recovery, milestones);
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

Recovery recovery_at(Replay replay, std::optional<Milestone> milestone) {
  Recovery recovery = std::move(replay.recovery);
  recovery.milestone = std::move(milestone);
  go_back_to(recovery.milestone ? &*recovery.milestone : nullptr, recovery);
  return recovery;
}

Recovery recover(RunFolder& folder, RunObserver& observer, std::optional<std::int64_t> back_to) {
  if (!folder.journal().damage().empty()) observer.on_note(folder.journal().damage());
  Replay earlier = replay(folder.journal().earlier(), folder.path().string());
  std::vector<Milestone>& milestones = earlier.milestones;
  std::optional<Milestone> found;
  if (back_to) {
    found = take_milestone(*back_to, milestones, folder);
    earlier.recovery.is_best_later = earlier.recovery.best_round > *back_to;
    forget_best_after(*back_to, earlier.recovery);
  }
  // A milestone whose file was pruned is no fault; one whose file is damaged is told.
  while (!milestones.empty() && !found) {
    Milestone newest = std::move(milestones.back());
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

}  // namespace headstart::server
