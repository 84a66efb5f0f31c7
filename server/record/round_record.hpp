// What a run says of one round: a line of rounds.jsonl.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "server/record/run_events.hpp"

namespace headstart::server {

struct RoundRecord {
  std::int64_t round = 0;                      ///< 0: what round 1 starts from.
  double seconds = 0;                          ///< Of the run, when the model was there.
  std::uint64_t bytes_up = 0, bytes_down = 0;  ///< Since the round before.
  std::string model_digest;
  Participation participation;
  std::map<std::string, RefusalCounts> refused;  ///< By client, so far; without those that have none.
  std::optional<learn::Evaluation> central;      ///< On the server's test set.
  std::optional<learn::Evaluation> federated;    ///< On the clients' held-out data, together.
  std::optional<double> validation_accuracy;     ///< What best.safetensors is chosen by.
};

/// As server/run_files.md has the fields.
nlohmann::json to_json(const RoundRecord& record);

/// Accuracy, loss and class accuracies, as rounds.jsonl and summary.json have them; null without a measurement.
nlohmann::json measured(const std::optional<learn::Evaluation>& evaluation);

}  // namespace headstart::server
