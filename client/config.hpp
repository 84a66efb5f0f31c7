// A client's own settings: where its data lies, what it trains, whom it joins. How it trains comes from the server.
#pragma once

#include <cstdint>
#include <string>

#include "client/local_worker.hpp"
#include "shared/base/fields.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/net/tls_files.hpp"
#include "shared/worker_process/worker_command.hpp"

namespace headstart::client {

/// Whom this silo's pre-trained model may reach.
enum class Sharing { answers, server, peers };
inline constexpr std::pair<Sharing, std::string_view> sharing_words[] = {
    {Sharing::answers, "answers"}, {Sharing::server, "server"}, {Sharing::peers, "peers"}};

/// How the server may record what this silo measures of each round's model.
enum class MetricSharing { sum, silo };
inline constexpr std::pair<MetricSharing, std::string_view> metric_sharing_words[] = {{MetricSharing::sum, "sum"},
                                                                                      {MetricSharing::silo, "silo"}};

struct ClientConfig {
  std::string server;
  std::string name;
  net::TlsFiles tls;
  double patience = 60;            ///< Seconds.
  double patience_once_in = 3600;  ///< Seconds.
  learn::DataSource data;
  std::string manifest;     ///< Where the silo's samples are a share of a data set that all have.
  std::int64_t share = -1;  ///< Which client of the manifest.
  std::string script;
  std::string own_model;  ///< "", or the name of the architecture to pre-train instead.
  learn::ModelSpec own_spec;
  std::string store;
  std::string keep;  ///< Folder.
  Sharing share_model = Sharing::server;
  MetricSharing share_metrics = MetricSharing::sum;
  std::int64_t min_sum_samples = 5;
  worker_process::WorkerCommand worker;
  std::int64_t min_described_samples = 20;
  bool shows_range = false;
  std::string device = "cpu";
  std::int64_t threads = 1;
  std::string log = "info";
  LogFormat log_format = LogFormat::text;
};

void declare_fields(Fields& fields, ClientConfig& config);

/// The silo's own samples, as stored. Throws Error(usage | data).
learn::Dataset load_own_data(const ClientConfig& config);

SiloOptions worker_options(const ClientConfig& config);

}  // namespace headstart::client
