// What the journal and the checkpoints of an earlier server say about a run, and how events are written for it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/operations/run_observer.hpp"
#include "server/record/run_events.hpp"
#include "server/record/run_folder.hpp"

namespace headstart::server {

/// Where a run stood: all empty for a new one.
struct Recovery {
  std::map<std::string, ClientInfo> roster;              ///< Who the run goes on with, newcomers included.
  std::int64_t num_newcomers = 0;                        ///< Of them, who joined between rounds.
  std::map<std::string, LocalModelRecord> local_models;  ///< By client.
  std::optional<StartRecord> start;                      ///< Empty where it has not come to that.
  std::optional<Milestone> milestone;                    ///< The newest whose checkpoint is whole.
  std::vector<RoundRecord> lines;                        ///< Of rounds.jsonl, one a round, none beyond the milestone.
  std::vector<LeftOut> left_out;                         ///< But for what will be gone through again.
  std::optional<StatisticsRecord> statistics;            ///< Where the run's are federated, and known.
  std::vector<TrialRecord> trials;                       ///< As they were finished.
  std::optional<DistilledRecord> seed;
  std::size_t num_left_out_when_distilled = 0;  ///< Of left_out, what stood when the newest trial or the seed was kept.
  double best_score = -1;                       ///< Of best.safetensors, by validation.
  std::int64_t best_round = -1;                 ///< Of which it is.
  bool is_best_later = false;                   ///< It is of a round after the one that was gone back to.
};

/// What a journal's events say, before any checkpoint is looked at.
struct Replay {
  Recovery recovery;
  std::vector<Milestone> milestones;  ///< Each without its state, by rising round.
};

/// `name`: of the run's folder, for the message. Throws Error(data) where an event is none of ours.
Replay replay(const std::vector<nlohmann::json>& events, const std::string& name);

/// Where the run stood at `milestone`, when `replay` holds the milestones before it; empty: none is left.
Recovery recovery_at(Replay replay, std::optional<Milestone> milestone);

/// Reads what there is; what cannot be used is said to `observer`, and the milestone before it is taken. With `back_to`
/// the milestone of that round is taken, as if the run had gone no further; throws Error(usage) where its model is not
/// there, naming those that are.
Recovery recover(RunFolder& folder, RunObserver& observer, std::optional<std::int64_t> back_to = {});

/// What the limits on updates, examples and own models were and are; empty where nothing differs. Both as run.json has
/// them.
std::vector<LimitChange> changed_limits(const nlohmann::json& before, const nlohmann::json& now);

/// Throws Error(usage), naming each difference, where `now` is not the run that `before` describes (both as run.json
/// has them); where and how the server listens, logs and waits may differ, and its limits. `state`, of the former, is
/// for the message: "an unfinished run".
void require_same_run(const nlohmann::json& before, const nlohmann::json& now, const std::string& folder,
                      std::string_view state);

}  // namespace headstart::server
