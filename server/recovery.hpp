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

namespace headstart::server {

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
  std::string digest;  ///< SHA-256 of the weights.
  std::optional<learn::Evaluation> rating;
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
    wire::PackedState state;
  };

  std::map<std::string, ClientInfo> roster;
  std::map<std::string, LocalModelRecord> local_models;  ///< By client.
  nlohmann::json start;                                  ///< The event "started"; null where it has not come to that.
  std::optional<Milestone> milestone;                    ///< The newest whose checkpoint is whole.
  std::uint64_t bytes_up_before = 0, bytes_down_before = 0;  ///< When the model before that one was there.
  std::vector<nlohmann::json> lines;                         ///< Of rounds.jsonl, none beyond the milestone.
  std::vector<LeftOut> left_out;
  double best_score = -1;  ///< Of best.safetensors, by validation.
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

/// Reads what there is; what cannot be used is said to `observer`, and the milestone before it is taken.
Recovery recover(RunFolder& folder, FederationObserver& observer);

nlohmann::json joined_event(const ClientInfo& client);
nlohmann::json local_model_event(const std::string& client, const LocalModelRecord& model);
nlohmann::json left_out_event(const LeftOut& left_out);
/// `report`, `before_rounds`: as summary.json has them.
nlohmann::json started_event(const std::string& used, const nlohmann::json& report,
                             const nlohmann::json& before_rounds);
nlohmann::json milestone_event(const Recovery::Milestone& milestone);
nlohmann::json measured_event(const nlohmann::json& line);
nlohmann::json best_event(std::int64_t round, double score);

/// Throws Error(usage), naming each difference, where `now` is not the run that `before` describes (both as run.json
/// has them); where and how the server listens, logs and waits may differ.
void require_same_run(const nlohmann::json& before, const nlohmann::json& now, const std::string& folder);

nlohmann::json to_json(const learn::Evaluation& evaluation);
learn::Evaluation evaluation_from(const nlohmann::json& json);

}  // namespace headstart::server
