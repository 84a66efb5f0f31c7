// What the journal and the checkpoints of an earlier server say about a run, and how events are written for it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/client_session.hpp"
#include "server/observer.hpp"
#include "server/run_folder.hpp"
#include "server/update_norms.hpp"

namespace headstart::server {

/// Phases that can have to do without a client, as LeftOut names them; a round is "round 7".
namespace phase {
inline constexpr char lobby[] = "lobby";     ///< Who never came; the client is then a number.
inline constexpr char absence[] = "return";  ///< Who did not come back to a server that was started again.
inline constexpr char pretraining[] = "local pre-training";
inline constexpr char exchange[] = "exchange of models";
inline constexpr char rating[] = "rating of the models";
inline constexpr char averaging[] = "average of the models";
inline constexpr char statistics[] = "statistics";
inline constexpr char consolidation[] = "consolidation";
inline constexpr char seed_rating[] = "rating of the seed";
inline constexpr char evaluation[] = "evaluation";  ///< After a round.
}  // namespace phase

/// What a run had to do without.
struct LeftOut {
  std::string phase;
  std::string client;
  std::string reason;
};

/// Whose updates are in a round's model, and who is not and why.
struct Participation {
  std::vector<std::string> accepted;            ///< In name order: with the seeds, all that the result depends on.
  std::map<std::string, std::string> excluded;  ///< Client and reason.
  nlohmann::json fusion;  ///< What FedDF cost: teachers, seconds, and why it `failed`; null for FedAvg.
  Norms norms;            ///< Of the accepted updates: the L2 distance from the model they were trained from.
};

/// A client's pre-trained model, as far as the journal keeps it.
struct LocalModelRecord {
  std::int64_t num_examples = 0;
  bool shares_with_peers = false;
  learn::ModelSpec spec;
  std::string architecture;
  bool has_federated_architecture = true;
  wire::PretrainDone pretraining;
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
struct SeedRecord {
  std::string inputs;  ///< Digest of what it was distilled from.
  std::string digest;  ///< SHA-256 of the weights.
  nlohmann::json report;
};

/// Where a run stood: all empty for a new one.
struct Recovery {
  /// A global model that was kept, and the run's counts when it was there.
  struct Milestone {
    std::int64_t round = 0;
    std::string digest;
    Participation participation;
    std::uint64_t bytes_up = 0, bytes_down = 0;
    double seconds = 0;
    std::size_t num_left_out = 0;  ///< Of Recovery::left_out, what was written down before the next round began.
    wire::PackedState state;
  };

  std::map<std::string, ClientInfo> roster;              ///< Who the run goes on with, newcomers included.
  std::int64_t num_newcomers = 0;                        ///< Of them, who joined between rounds.
  std::map<std::string, LocalModelRecord> local_models;  ///< By client.
  nlohmann::json start;                                  ///< The event "started"; null where it has not come to that.
  std::optional<Milestone> milestone;                    ///< The newest whose checkpoint is whole.
  std::vector<nlohmann::json> lines;                     ///< Of rounds.jsonl, one a round, none beyond the milestone.
  std::vector<LeftOut> left_out;                         ///< But for what will be gone through again.
  std::vector<TrialRecord> trials;                       ///< As they were finished.
  std::optional<SeedRecord> seed;
  std::size_t num_left_out_when_distilled = 0;  ///< Of left_out, what stood when the newest trial or the seed was kept.
  double best_score = -1;                       ///< Of best.safetensors, by validation.
  std::int64_t best_round = -1;                 ///< Of which it is.
  bool is_best_later = false;                   ///< It is of a round after the one that was gone back to.
};

/// What a journal's events say, before any checkpoint is looked at.
struct Replay {
  Recovery recovery;
  std::vector<Recovery::Milestone> milestones;  ///< Each without its state, by rising round.
};

/// `name`: of the run's folder, for the message. Throws Error(data) where an event is none of ours.
Replay replay(const std::vector<nlohmann::json>& events, const std::string& name);

/// Where the run stood at `milestone`, when `replay` holds the milestones before it; empty: none is left.
Recovery recovery_at(Replay replay, std::optional<Recovery::Milestone> milestone);

/// Reads what there is; what cannot be used is said to `observer`, and the milestone before it is taken. With `back_to`
/// the milestone of that round is taken, as if the run had gone no further; throws Error(usage) where its model is not
/// there, naming those that are.
Recovery recover(RunFolder& folder, FederationObserver& observer, std::optional<std::int64_t> back_to = {});

/// All of a new run's clients in one event: a server that is killed meanwhile leaves all of them or none.
nlohmann::json roster_event(const std::vector<ClientInfo>& clients);
/// A newcomer between rounds.
nlohmann::json joined_event(const ClientInfo& client);
/// A server was started again; what was written down beyond `milestone` does not count.
nlohmann::json resumed_event(const std::optional<Recovery::Milestone>& milestone);
/// The operator went back to the model of `round`; what came after it lies in the folder `kept_in`, the best model so
/// far among it where `is_best_later`.
nlohmann::json taken_back_event(std::int64_t round, const std::string& kept_in, bool is_best_later);
bool is_taken_back_event(const nlohmann::json& event);
/// `changes`: as changed_limits() has them.
nlohmann::json limits_changed_event(const nlohmann::json& changes);
nlohmann::json trial_event(const TrialRecord& trial);
nlohmann::json seed_event(const SeedRecord& seed);
nlohmann::json local_model_event(const std::string& client, const LocalModelRecord& model);
nlohmann::json left_out_event(const LeftOut& left_out);
/// `report`, `before_rounds`: as summary.json has them.
nlohmann::json started_event(const std::string& used, const nlohmann::json& report,
                             const nlohmann::json& before_rounds);
nlohmann::json milestone_event(const Recovery::Milestone& milestone);
nlohmann::json measured_event(const nlohmann::json& line);
nlohmann::json best_event(std::int64_t round, double score);
/// The run is finished and its clients know.
nlohmann::json over_event();
bool is_over_event(const nlohmann::json& event);

/// What the limits on updates, examples and own models were and are: a list of {setting, was, is}, empty where nothing
/// differs. Both as run.json has them.
nlohmann::json changed_limits(const nlohmann::json& before, const nlohmann::json& now);

/// Throws Error(usage), naming each difference, where `now` is not the run that `before` describes (both as run.json
/// has them); where and how the server listens, logs and waits may differ, and its limits. `state`, of the former, is
/// for the message: "an unfinished run".
void require_same_run(const nlohmann::json& before, const nlohmann::json& now, const std::string& folder,
                      std::string_view state);

nlohmann::json to_json(const learn::Evaluation& evaluation);
learn::Evaluation evaluation_from(const nlohmann::json& json);

}  // namespace headstart::server
