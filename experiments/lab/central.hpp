// Centralised training on all clients' data: what no federation may do, as a reference for those that are compared.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "shared/base/clock.hpp"
#include "shared/base/fields.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/models/mixed_precision.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/learn/train/train.hpp"

namespace headstart::lab {

struct CentralSettings {
  std::string folder = "runs/central";
  std::int64_t seed = 1;
  std::int64_t threads = 1;
  std::string device = "cpu";
  learn::Precision precision = learn::Precision::float32;
  learn::DataSource data;
  std::vector<double> mean, deviation;  ///< Per channel, in place of the data set's own, as a run may set them.
  std::string manifest;
  /// Held out of the clients' samples to choose the epoch; heeded only where the manifest has no validation set.
  double held_out = 0.1;
  learn::ModelSpec model;
  /// One optimiser over all epochs, as each client pre-trains: centralised training has no rounds.
  learn::PretrainOptions training;
};

void declare_fields(Fields& fields, CentralSettings& settings);

/// Trains one model on the samples of all clients of the manifest. The epoch is chosen on the manifest's validation
/// set, or, where it has none, on samples held out of the clients'; the test set (the manifest's, or all of it) is
/// measured once, for the chosen epoch. Makes settings.folder with run.json (resolved configuration, versions) and, at
/// the end, summary.json; returns the latter. Throws Error(storage) where the folder exists, Error(usage) without a
/// manifest, Error(data) where it does not fit the data, Error(interrupted) on `stop`.
nlohmann::json train_centrally(const CentralSettings& settings, const Clock& clock, std::stop_token stop = {});

}  // namespace headstart::lab
