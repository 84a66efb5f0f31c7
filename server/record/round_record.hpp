// What a run says of one round: a line of rounds.jsonl.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/sessions/client_info.hpp"
#include "server/uploads/update_norms.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::server {

/// Whose updates are in a round's model, and who is not and why.
struct Participation {
  std::vector<std::string> accepted;            ///< In name order: with the seeds, all that the result depends on.
  std::map<std::string, std::string> excluded;  ///< Client and reason.
  /// What the strategy says of the round, by its name (of FedDF teachers, seconds, and why it `failed`), and `head` of
  /// rounds.head=sums; mostly empty.
  nlohmann::json strategy = nlohmann::json::object();
  Norms norms;  ///< Of the accepted updates: the L2 distance from the model they were trained from.
};

/// What of an evaluation is recorded.
struct Measurement {
  double accuracy = 0;                 ///< 0..1.
  double loss = 0;                     ///< Mean over samples; infinite where the model diverged.
  std::vector<double> class_accuracy;  ///< [C] Recall, 0..1.
  std::int64_t num_samples = 0;
};
/// Nothing of nothing.
std::optional<Measurement> measurement_of(const std::optional<learn::Evaluation>& evaluation);

struct RoundRecord {
  std::int64_t round = 0;                      ///< 0: what round 1 starts from.
  double seconds = 0;                          ///< Of the run, when the model was there.
  std::uint64_t bytes_up = 0, bytes_down = 0;  ///< Since the round before.
  std::string model_digest;
  Participation participation;
  std::map<std::string, RefusalCounts> refused;  ///< By client, so far; without those that have none.
  std::optional<Measurement> central;            ///< On the server's test set.
  std::optional<Measurement> federated;          ///< On the clients' held-out data, together.
  std::optional<double> validation_accuracy;     ///< By the validation source.
  /// What best.safetensors is chosen by, where that is not accuracy: `metric` and `value`; null: it is.
  nlohmann::json validation = nullptr;
  nlohmann::json metrics = nlohmann::json::object();  ///< `central`, `federated`: metrics_record(); `own`.
  /// The same of each silo that lets the server record it, by name.
  nlohmann::json silo_metrics = nlohmann::json::object();
};

/// As server/run_files.md has the fields.
nlohmann::json to_json(const RoundRecord& record);
/// The reverse: what it makes is written as it was. What is not there is as in a new record, but for `round`,
/// `bytes_up` and `bytes_down`; keys that no record has are the strategy's. Throws Error(data) or json::exception where
/// it is no record.
RoundRecord round_record_from(const nlohmann::json& line);

}  // namespace headstart::server
