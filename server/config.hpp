// The settings of a server and of a simulation: one declaration for the file, the command line and the help.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/client_session.hpp"
#include "server/consolidation.hpp"
#include "shared/base/fields.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/data.hpp"
#include "shared/net/tls_files.hpp"
#include "shared/session/terms.hpp"

namespace headstart::server {

/// What round 1 starts from.
enum class StartModel { random, best_local, average, kd };
inline constexpr std::pair<StartModel, std::string_view> start_words[] = {{StartModel::random, "random"},
                                                                          {StartModel::best_local, "best_local"},
                                                                          {StartModel::average, "average"},
                                                                          {StartModel::kd, "kd"}};

/// Whose data decides (best, worst, class-wise accuracies, gate, kept checkpoint).
enum class ValidationSource { none, server, federated };
inline constexpr std::pair<ValidationSource, std::string_view> validation_words[] = {
    {ValidationSource::none, "none"}, {ValidationSource::server, "server"}, {ValidationSource::federated, "federated"}};

/// What becomes of a round's updates.
enum class Strategy { fedavg, feddf };
inline constexpr std::pair<Strategy, std::string_view> strategy_words[] = {{Strategy::fedavg, "fedavg"},
                                                                           {Strategy::feddf, "feddf"}};

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
  Strategy strategy = Strategy::fedavg;
  /// FedDF's distillation after each round, on unlabeled samples: alpha has no part in it. Adam and averaged logits:
  /// Lin et al. 2020; epochs and batch decided here.
  learn::DistillOptions feddf{.average = learn::TeacherAverage::logits, .epochs = 2, .batch_size = 128};
  StartModel start = StartModel::random;
  ConsolidationOptions consolidation;
  ValidationSource validation = ValidationSource::none;
  bool central_evaluation = true;
  bool federated_evaluation = true;
  TargetOptions targets;
  CheckpointOptions checkpoints;
  std::int64_t upload_memory = 0;  ///< Bytes for updates in flight; 0: two models, at most 1 GiB.
};

/// What a sample of the run means, where no data of the server say it.
struct SampleSettings {
  std::vector<std::string> classes;  ///< Names by label.
  std::vector<std::int64_t> shape;   ///< Channels, height, width.
  std::vector<double> mean, deviation;
  std::vector<double> range;  ///< Least and greatest value, uint8 divided by 255.
};

struct ServerConfig {
  session::Terms terms;
  FederationOptions federation;
  std::string folder = "runs/federation";
  std::string device = "cpu";
  std::int64_t threads = 1;
  learn::DataSource data;
  SampleSettings samples;
  std::string manifest;
  std::string address = "127.0.0.1";
  std::int64_t port = 9840;
  bool insecure = false;
  std::int64_t max_handshakes = 256;                     ///< Connections that have not joined yet.
  std::int64_t receive_memory = std::int64_t{32} << 20;  ///< Bytes for chunks coming in, over all connections.
  double max_update_norm = 0;                            ///< L2, from the model of the round before; 0: none.
  /// Not a setting: go back to the model of this round first; what came after it is kept aside.
  std::optional<std::int64_t> back_to_round;
  std::string admin_address = "127.0.0.1";
  std::int64_t admin_port = 0;  ///< 0: any free one; -1: none.
  LogFormat log_format = LogFormat::text;
  net::TlsFiles tls;
  std::string allowed_clients;  ///< File with the names that may join, one a line; empty: no such list.
  std::string log = "info";
};

void declare_fields(Fields& fields, ServerConfig& config);

/// What no single setting shows: a start that needs a validation source, consolidation that cannot be. Throws
/// Error(usage) naming the settings.
void check(const ServerConfig& config);

/// The least number of updates a round needs.
std::int64_t quorum_of(const FederationOptions& options);

Patience patience_of(const Timeouts& timeouts);
std::chrono::milliseconds milliseconds_of(double seconds);

}  // namespace headstart::server
