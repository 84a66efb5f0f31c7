// The settings of a server and of a simulation: one declaration for the file, the command line and the help.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/config/federation_options.hpp"
#include "shared/base/fields.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/net/tls_files.hpp"
#include "shared/plan/terms.hpp"
#include "shared/worker_process/worker_command.hpp"

namespace headstart::server {

/// What a sample of the run means, where no data of the server say it.
struct SampleSettings {
  std::vector<std::string> classes;  ///< Names by label.
  std::vector<std::int64_t> shape;   ///< Of a sample.
  std::vector<double> mean, deviation;
  std::vector<double> range;  ///< Least and greatest value, uint8 divided by 255.
};

struct ServerConfig {
  plan::Terms terms;
  FederationOptions federation;
  std::string folder = "runs/federation";
  std::string device = "cpu";
  std::int64_t threads = 1;
  worker_process::WorkerCommand worker;  ///< Computes a model that is known by its tensors.
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
  std::string page_token;       ///< File with the word that the page asks for; empty: none, and loopback only.
  std::string page_reference;   ///< A run's folder or its rounds.jsonl, drawn beside this run; empty: none.
  LogFormat log_format = LogFormat::text;
  net::TlsFiles tls;
  std::string allowed_clients;  ///< File with the names that may join, one a line; empty: no such list.
  std::string log = "info";
};

void declare_fields(Fields& fields, ServerConfig& config);

/// What no single setting shows: a start that needs a validation source, consolidation that cannot be. Throws
/// Error(usage) naming the settings.
void check(const ServerConfig& config);

}  // namespace headstart::server
