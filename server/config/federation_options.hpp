// The settings of a federation: who takes part, how long they are waited for, and what the rounds do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/config/consolidation_options.hpp"
#include "server/strategies/strategy_options.hpp"

namespace headstart::server {

/// What round 1 starts from.
enum class StartModel {
  random,
  best_local,
  average,
  kd,
  automatic,  ///< The best of start.candidates by the validation source.
};
inline constexpr std::pair<StartModel, std::string_view> start_words[] = {{StartModel::random, "random"},
                                                                          {StartModel::best_local, "best_local"},
                                                                          {StartModel::average, "average"},
                                                                          {StartModel::kd, "kd"},
                                                                          {StartModel::automatic, "auto"}};

/// Whose data decides (best, worst, class-wise accuracies, gate, kept checkpoint).
enum class ValidationSource { none, server, federated };
inline constexpr std::pair<ValidationSource, std::string_view> validation_words[] = {
    {ValidationSource::none, "none"}, {ValidationSource::server, "server"}, {ValidationSource::federated, "federated"}};

/// What becomes of the head of the model that round 1 starts from.
enum class StartHead {
  own,   ///< It stays.
  sums,  ///< It is fitted to all silos' training samples by sums over them.
};
inline constexpr std::pair<StartHead, std::string_view> start_head_words[] = {{StartHead::own, "own"},
                                                                              {StartHead::sums, "sums"}};

/// How a head is fitted.
enum class HeadMethod {
  steps,     ///< Cross-entropy: a gradient a step.
  ridge,     ///< Least squares, from one exchange.
  gaussian,  ///< One Gaussian a class, from one exchange.
};
inline constexpr std::pair<HeadMethod, std::string_view> head_method_words[] = {
    {HeadMethod::steps, "steps"}, {HeadMethod::ridge, "ridge"}, {HeadMethod::gaussian, "gaussian"}};

/// A start that start.model auto tries: "kd", "kd+head".
struct StartCandidate {
  StartModel model = StartModel::random;
  StartHead head = StartHead::own;

  friend bool operator==(const StartCandidate&, const StartCandidate&) = default;
};
/// "kd+head".
std::string text_of(const StartCandidate& candidate);

struct HeadOptions {
  StartHead start = StartHead::own;
  StartHead rounds = StartHead::own;  ///< Of each round's model.
  HeadMethod method = HeadMethod::steps;
  std::int64_t steps = 15;       ///< Gradients that silos are asked for.
  double damping = 0.01;         ///< Of the features' second moments, relative to their mean.
  std::int64_t min_samples = 1;  ///< Of a class at a silo, for them to be in its sums; a silo may ask for more.
};

struct TargetOptions {
  std::vector<double> accuracies;  ///< Absolute, 0..1.
  double reference = 0;            ///< An accuracy that fractions refer to; 0: none.
  std::vector<double> fractions;   ///< Of the reference.
  bool stop = false;               ///< End the run at the first round that reaches all targets.
};

struct CheckpointOptions {
  std::int64_t every = 1;  ///< Rounds between checkpoints; 0: none.
  std::int64_t keep = 2;   ///< Newest ones kept; 0: all.
  bool best = true;        ///< Keep the best model by the validation source.
};

/// How long something is waited for, in seconds. check() holds handshake <= silence <= task <= phase, absence <= phase.
struct Timeouts {
  double handshake = 10;  ///< A new connection's way to its first message.
  double silence = 30;    ///< A connection without a heartbeat.
  double absence = 120;   ///< A client without a connection.
  double task = 600;      ///< A task without progress.
  double phase = 86400;   ///< A round, or one phase before them.
  double lobby = 0;       ///< Clients that have not come yet; 0: for ever.
};

struct FederationOptions {
  std::int64_t num_clients = 10;
  std::int64_t num_rounds = 100;
  std::int64_t min_clients = 0;  ///< Updates that a round needs; 0: half of the clients, rounded up.
  std::int64_t num_late = 0;     ///< Newcomers that may join between rounds.
  Timeouts timeouts;
  StrategyOptions strategy;
  StartModel start = StartModel::random;
  std::vector<std::string> candidates = {"best_local", "best_local+head", "kd", "kd+head"};  ///< Of start auto.
  HeadOptions head;
  ConsolidationOptions consolidation;
  ValidationSource validation = ValidationSource::none;
  std::string metric = "accuracy";  ///< What the validation source measures: learn::metric_of().
  bool central_evaluation = true;
  bool federated_evaluation = true;
  bool counts_scores = false;  ///< Clients also count their held-out samples by score.
  TargetOptions targets;
  CheckpointOptions checkpoints;
  std::int64_t upload_memory = 0;  ///< Bytes for updates in flight; 0: two models, at most 1 GiB.
};

/// What round 1 may come to start from: the configured start, or each of start.candidates. Throws Error(usage), naming
/// the word, where one of these is no start.
std::vector<StartCandidate> possible_starts(const FederationOptions& options);
/// Whether one of them is `model`.
bool may_start_from(const FederationOptions& options, StartModel model);
/// Whether a start may need the clients' own pre-trained models.
bool pretrains(const FederationOptions& options);
/// Whether pre-trained models, or logits of them, are what teaches in a start kd.
bool teaches_by_models(const FederationOptions& options);
/// Whether sums for a head are asked for: after the start, or after a round.
bool fits_heads(const FederationOptions& options);

/// The least number of updates a round needs.
std::int64_t quorum_of(const FederationOptions& options);

}  // namespace headstart::server
