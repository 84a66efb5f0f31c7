#include "server/record/recovery.hpp"

#include <algorithm>
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
  if (phase == PhaseKind::describing) return recovery.statistics.has_value();
  if (index >= recovery.num_left_out_when_distilled) return false;
  return phase == PhaseKind::seed_rating || (recovery.seed && phase == PhaseKind::consolidation);
}

/// Takes back what was written down beyond `milestone`; null: beyond what came before round 1.
void go_back_to(const Milestone* milestone, Recovery& recovery) {
  const std::int64_t round = milestone == nullptr ? -1 : milestone->round;
  std::erase_if(recovery.lines, [round](const RoundRecord& line) { return line.round > round; });
  if (milestone == nullptr) recovery.start.reset();
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

/// Goes through the events in order.
class Player {
 public:
  explicit Player(Replay& replay) : recovery_(replay.recovery), milestones_(replay.milestones) {}

  void operator()(RosterEvent event) {
    recovery_.roster.clear();
    for (ClientInfo& client : event.clients) {
      const std::string name = client.name;
      recovery_.roster[name] = std::move(client);
    }
  }
  void operator()(NewcomerEvent event) {
    if (recovery_.roster.empty()) throw Error(Errc::data, "a newcomer to a run without clients");
    const std::string name = event.client.name;
    if (recovery_.roster.insert_or_assign(name, std::move(event.client)).second) ++recovery_.num_newcomers;
  }
  void operator()(const ResumedEvent& event) { resume_from(event.round); }
  void operator()(const TakenBackEvent& event) {
    resume_from(event.round);
    forget_best_after(event.round, recovery_);
  }
  void operator()(LocalModelEvent event) { recovery_.local_models[event.client] = std::move(event.model); }
  void operator()(StatisticsRecord statistics) { recovery_.statistics = std::move(statistics); }
  void operator()(TrialRecord trial) {
    recovery_.trials.push_back(std::move(trial));
    recovery_.num_left_out_when_distilled = recovery_.left_out.size();
  }
  void operator()(DistilledRecord seed) {
    recovery_.seed = std::move(seed);
    recovery_.num_left_out_when_distilled = recovery_.left_out.size();
  }
  void operator()(LeftOut left) { recovery_.left_out.push_back(std::move(left)); }
  void operator()(StartRecord start) { recovery_.start = std::move(start); }
  void operator()(Milestone milestone) {
    if (!recovery_.start) throw Error(Errc::data, "a round before the start");
    if (!milestones_.empty() && milestones_.back().round >= milestone.round) {
      throw Error(Errc::data, fmt::format("round {} after round {}", milestone.round, milestones_.back().round));
    }
    milestone.num_left_out = recovery_.left_out.size();
    milestones_.push_back(std::move(milestone));
  }
  void operator()(RoundRecord record) {
    if (!recovery_.lines.empty() && recovery_.lines.back().round >= record.round) {
      throw Error(Errc::data, fmt::format("round {} is measured twice", record.round));
    }
    if (!milestones_.empty() && milestones_.back().round == record.round) {
      milestones_.back().num_left_out = recovery_.left_out.size();
    }
    recovery_.lines.push_back(std::move(record));
  }
  void operator()(const BestEvent& best) {
    recovery_.best_score = best.score;
    recovery_.best_round = best.round;
  }
  void operator()(const LimitsChangedEvent&) {}
  void operator()(const OverEvent&) {}
  void operator()(const UnknownEvent&) {}

 private:
  void resume_from(std::int64_t round) {
    std::erase_if(milestones_, [round](const Milestone& milestone) { return milestone.round > round; });
    if (round >= 0 && (milestones_.empty() || milestones_.back().round != round)) {
      throw Error(Errc::data, fmt::format("resumed from round {}, which was not kept", round));
    }
    go_back_to(milestones_.empty() ? nullptr : &milestones_.back(), recovery_);
  }

  Recovery& recovery_;
  std::vector<Milestone>& milestones_;
};

void compare(const json& before, const json& now, const std::string& prefix, std::vector<std::string>& differences) {
  static constexpr std::string_view free_to_differ[] = {"run.log",
                                                        "run.log_format",
                                                        "run.folder",
                                                        "listen",
                                                        "tls",
                                                        "timeouts",
                                                        "limits",
                                                        "admin",
                                                        "worker",
                                                        "page",
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
    for (const json& event : events) std::visit(Player(result), event_from(event));
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

std::vector<LimitChange> changed_limits(const json& before, const json& now) {
  std::vector<LimitChange> changes;
  for (const char* key : {"update_norm", "examples", "own_model"}) {
    const json::json_pointer place = json::json_pointer("/config/limits") / key;
    const json was = before.value(place, json());
    const json is = now.value(place, json());
    if (was != is) changes.push_back({std::string("limits.") + key, was, is});
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
