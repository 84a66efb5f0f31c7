// What a run's journal holds: one JSON object an event, and what each stands for.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/operations/phase.hpp"
#include "server/record/round_record.hpp"
#include "server/sessions/client_info.hpp"
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

/// A client's pre-trained model, as far as the journal keeps it.
struct LocalModelRecord {
  std::int64_t num_examples = 0;
  bool shares_with_peers = false;
  bool withholds_model = false;
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

/// What all samples of the run are normalised by, as the silos' statistics said.
struct StatisticsRecord {
  std::vector<double> mean, deviation;  ///< Of each channel.
  nlohmann::json report;                ///< As run.json has it.
};

/// What came before round 1.
struct BeforeRounds {
  double seconds = 0;
  std::uint64_t bytes_up = 0, bytes_down = 0;
  double pretrain_seconds = 0;         ///< The longest local pre-training, as first trained.
  double pretrain_reused_seconds = 0;  ///< Of pre-training that was done in an earlier run.
};

/// The model that round 1 starts from is there.
struct StartRecord {
  std::string used;       ///< The word of its StartModel.
  nlohmann::json report;  ///< How it was made, as summary.json has it.
  BeforeRounds before_rounds;
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
struct RosterEvent {
  std::vector<ClientInfo> clients;
};
/// A newcomer between rounds.
struct NewcomerEvent {
  ClientInfo client;
};
/// A server was started again; what was written down beyond the milestone of `round` does not count.
struct ResumedEvent {
  std::int64_t round = -1;  ///< -1: none.
};
/// The operator went back to the model of `round`; what came after it lies in the folder `kept_in`, the best model so
/// far among it where `is_best_later`.
struct TakenBackEvent {
  std::int64_t round = 0;
  std::string kept_in;
  bool is_best_later = false;
};
struct LimitChange {
  std::string setting;
  nlohmann::json was, is;  ///< Values of the setting.
};
struct LimitsChangedEvent {
  std::vector<LimitChange> changes;
};
struct LocalModelEvent {
  std::string client;
  LocalModelRecord model;
};
/// The best model so far, by validation, was kept.
struct BestEvent {
  std::int64_t round = 0;
  double score = 0;
};
/// The run is finished and its clients know.
struct OverEvent {};
/// Of another version; it is passed over.
struct UnknownEvent {};

/// One line of the journal. LeftOut, StatisticsRecord, TrialRecord, DistilledRecord, StartRecord, Milestone and
/// RoundRecord are events too: they say that such a thing came to be.
using RunEvent = std::variant<RosterEvent, NewcomerEvent, ResumedEvent, TakenBackEvent, LimitsChangedEvent,
                              StatisticsRecord, TrialRecord, DistilledRecord, LocalModelEvent, LeftOut, StartRecord,
                              Milestone, RoundRecord, BestEvent, OverEvent, UnknownEvent>;

/// As the journal has it. No event is written from UnknownEvent.
nlohmann::json json_of(const RunEvent& event);
/// The reverse; a Milestone is without its state. Throws Error(data) or json::exception where it is none.
RunEvent event_from(const nlohmann::json& json);

nlohmann::json to_json(const LimitChange& change);
nlohmann::json to_json(const BeforeRounds& before);
nlohmann::json to_json(const learn::Evaluation& evaluation);
/// Throws Error(data) or json::exception where it is none.
learn::Evaluation evaluation_from(const nlohmann::json& json);

}  // namespace headstart::server
