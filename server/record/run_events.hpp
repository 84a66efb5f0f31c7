// What a run's journal holds: one JSON object an event, and what each stands for.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/operations/phase.hpp"
#include "server/sessions/client_info.hpp"
#include "server/uploads/update_norms.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "shared/learn/tune/setting_search.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::server {

/// What a run had to do without.
struct LeftOut {
  Phase phase;         ///< As far as recorded() tells.
  std::string client;  ///< Of the lobby: how many clients.
  std::string reason;
};

/// Whose updates are in a round's model, and who is not and why.
struct Participation {
  std::vector<std::string> accepted;            ///< In name order: with the seeds, all that the result depends on.
  std::map<std::string, std::string> excluded;  ///< Client and reason.
  /// What the strategy says of the round, by its name (of FedDF teachers, seconds, and why it `failed`); mostly empty.
  nlohmann::json strategy = nlohmann::json::object();
  Norms norms;  ///< Of the accepted updates: the L2 distance from the model they were trained from.
};

/// A client's pre-trained model, as far as the journal keeps it.
struct LocalModelRecord {
  std::int64_t num_examples = 0;
  bool shares_with_peers = false;
  learn::ModelSpec spec;
  std::string architecture;
  bool has_federated_architecture = true;
  Pretraining pretraining;
  /// Of the model's file in the run's folder, where its weights were collected.
  std::optional<std::uint64_t> num_bytes;
  std::string digest;                       ///< SHA-256 of the weights.
  std::optional<learn::Evaluation> rating;  ///< By the validation source; at clients not by its own.
  bool is_rated_by_owner = false;           ///< `rating` is its own client's, as no other has held-out samples.
};

/// A consolidation with one of the settings that tuning tries.
struct TrialRecord {
  std::string inputs;  ///< Digest of what it was distilled from, and where.
  learn::KdSetting setting;
  learn::Rating rating;
  std::string digest;  ///< SHA-256 of the weights, which are kept of the best trial so far.
  nlohmann::json report;
};

/// What consolidation came to, kept until the run's first model is.
struct DistilledRecord {
  std::string inputs;  ///< Digest of what it was distilled from.
  std::string digest;  ///< SHA-256 of the weights.
  nlohmann::json report;
};

/// A global model that was kept, and the run's counts when it was there.
struct Milestone {
  std::int64_t round = 0;
  std::string digest;
  Participation participation;
  std::uint64_t bytes_up = 0, bytes_down = 0;
  double seconds = 0;
  std::size_t num_left_out = 0;  ///< Of Recovery::left_out, what was written down before the next round began.
  /// The global model, and what the strategy remembers, under "server/"; loaded from the checkpoint.
  wire::PackedState state;
};

/// All of a new run's clients in one event: a server that is killed meanwhile leaves all of them or none.
nlohmann::json roster_event(const std::vector<ClientInfo>& clients);
/// A newcomer between rounds.
nlohmann::json joined_event(const ClientInfo& client);
/// A server was started again; what was written down beyond `milestone` does not count.
nlohmann::json resumed_event(const std::optional<Milestone>& milestone);
/// The operator went back to the model of `round`; what came after it lies in the folder `kept_in`, the best model so
/// far among it where `is_best_later`.
nlohmann::json taken_back_event(std::int64_t round, const std::string& kept_in, bool is_best_later);
bool is_taken_back_event(const nlohmann::json& event);
/// `changes`: as changed_limits() has them.
nlohmann::json limits_changed_event(const nlohmann::json& changes);
nlohmann::json trial_event(const TrialRecord& trial);
nlohmann::json seed_event(const DistilledRecord& seed);
nlohmann::json local_model_event(const std::string& client, const LocalModelRecord& model);
nlohmann::json left_out_event(const LeftOut& left_out);
/// `report`, `before_rounds`: as summary.json has them.
nlohmann::json started_event(const std::string& used, const nlohmann::json& report,
                             const nlohmann::json& before_rounds);
nlohmann::json milestone_event(const Milestone& milestone);
nlohmann::json measured_event(const nlohmann::json& line);
nlohmann::json best_event(std::int64_t round, double score);
/// The run is finished and its clients know.
nlohmann::json over_event();
bool is_over_event(const nlohmann::json& event);

nlohmann::json to_json(const learn::Evaluation& evaluation);
learn::Evaluation evaluation_from(const nlohmann::json& json);

// The readers of what the functions above have made. Each throws Error(data) or json::exception where it is none.
ClientInfo client_from(const nlohmann::json& event);
LocalModelRecord local_model_from(const nlohmann::json& record);
TrialRecord trial_from(const nlohmann::json& event);
Milestone milestone_from(const nlohmann::json& event);
/// Of "bytes_up" and "bytes_down".
void require_byte_counts(const nlohmann::json& counts);

/// json::get() would cut fractions off and turn negative numbers into large ones. Throws Error(data).
template <class Integer>
Integer whole_number(const nlohmann::json& value);

}  // namespace headstart::server
