// Runs a study of peers: claims its cells and computes them on several threads until none is left.
#pragma once

#include <filesystem>
#include <stop_token>
#include <string>

#include "experiments/lab/participants.hpp"
#include "experiments/lab/peer_settings.hpp"
#include "experiments/lab/study_runner.hpp"
#include "shared/base/clock.hpp"

namespace headstart::lab {

/// What tells a study from others: its settings, and the digests of `data`.
nlohmann::json description_of(const PeerStudy& study, const StudyData& data);

/// As run_pair_study(). A share is one of all cells.
void run_peer_study(const PeerStudy& study, const StudyData& data, StudyStore& store, const StudyRunOptions& options,
                    StudyObserver& observer, const Clock& clock, std::stop_token stop);

/// Computes one cell anew, from its settings and `data` alone.
CellResult compute_peer_cell(const Cell& cell, const StudyData& data, const std::filesystem::path& models,
                             const Clock& clock, std::stop_token stop = {});

/// Global and own accuracy, gain and bytes of each partition, graph and method, means over the seeds.
std::string peer_summary(const StudyStore& store);

}  // namespace headstart::lab
