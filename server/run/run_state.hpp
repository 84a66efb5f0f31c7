// What a run has come to so far.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/phases/disclosure.hpp"
#include "server/phases/feature_sums.hpp"
#include "server/record/run_events.hpp"
#include "server/sessions/client_session.hpp"
#include "shared/base/clock.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::server {

struct RunState {
  // The global model.
  DigestedState global;
  learn::StateDict memory;   ///< What the strategy remembers beside it.
  Norms norms;               ///< Of the updates in it.
  WithoutSums without_sums;  ///< Silos that do not send sums for the heads of rounds any more.
  /// By client, the last round whose result of its is in the model: what a client remembers counts up to there.
  std::map<std::string, std::int64_t> counted;
  std::int64_t num_rounds_done = 0;
  std::int64_t num_measured = -1;  ///< The last round with a line in rounds.jsonl; -1: none.
  std::int64_t num_kept = -1;      ///< The last round whose model is among the checkpoints; -1: none.
  std::optional<double> last_accuracy, best_accuracy;
  std::optional<learn::Evaluation> last_central, last_federated;  ///< As this server has measured the last round.
  double best_score = -1;                                         ///< Of best.safetensors, by Metric::score().
  /// Of the last round, as its line has them.
  nlohmann::json metrics = nlohmann::json::object(), silo_metrics = nlohmann::json::object();

  // What it took.
  std::optional<TimePoint> began_at;
  double earlier_seconds = 0;  ///< Of the run under an earlier server.
  std::uint64_t earlier_bytes_up = 0, earlier_bytes_down = 0;
  double reused_seconds = 0;                   ///< Of pre-training that was done in an earlier run.
  std::uint64_t bytes_up = 0, bytes_down = 0;  ///< When the last round's model was there.

  // How it began.
  Consents consents;
  std::string consent_fallback;  ///< A sentence where consents changed the transfer set.
  StartModel start_used = StartModel::random;
  nlohmann::json start_report;  ///< As summary.json has it.
  std::optional<BeforeRounds> before_rounds;

  // What it had to do without, and who weighs most.
  std::vector<LeftOut> left_out;
  std::set<std::string> dominant_judges;               ///< Named, as they hold most of the held-out samples.
  nlohmann::json dominant = nlohmann::json::object();  ///< As summary.json has it, by client.

  // How it ended.
  nlohmann::json ensemble;  ///< Of the local models, as summary.json has it.
  std::string stopped_because;
};

}  // namespace headstart::server
