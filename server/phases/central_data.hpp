// What the server itself holds of the data: the test set, and the draws that the manifest gives it; and what a sample
// of the run means.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/config/server_config.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/data/feature_statistics.hpp"
#include "shared/learn/data/sample_figures.hpp"
#include "shared/learn/data/sample_terms.hpp"

namespace headstart::server {

struct CentralData {
  learn::Task task;
  learn::SampleTerms samples;
  learn::Samples test;         ///< Measures and decides nothing. Empty where evaluation.central is off.
  learn::Samples validation;   ///< Empty unless validation.source is server.
  learn::Samples transfer;     ///< The public set of the consolidation, without labels; empty unless it is needed.
  learn::Tensor public_bytes;  ///< The same as stored, uint8, which is how it is sent; undefined: stored otherwise.
  std::optional<learn::SampleFigures> figures;  ///< Of the server's own samples; nothing where it holds none.
  /// The samples are not normalised yet, and samples.mean is empty: the silos' statistics say by what.
  bool awaits_statistics = false;
  std::string dataset;
  std::int64_t num_training = 0;     ///< Samples of the training split, as the manifest has it; 0: not known.
  std::string manifest_digest;       ///< SHA-256 of the manifest file; empty without one.
  std::vector<std::string> remarks;  ///< For the log: what is odd about the data, and does not end the run.
};

/// Loads what `config` needs and no more; `train`: the training split, where it is loaded already. Where nothing is
/// needed, a known set or the settings data.classes and data.shape say what a sample is. Throws Error(data) for files
/// that are missing, damaged or do not fit, Error(usage) where the configuration needs a draw that the manifest does
/// not have, or says too little.
CentralData load_central_data(const ServerConfig& config, std::optional<learn::Dataset> train = std::nullopt);

/// Normalises the samples, which await it.
void normalise_by(const learn::FeatureScaling& scaling, CentralData& data);

}  // namespace headstart::server
