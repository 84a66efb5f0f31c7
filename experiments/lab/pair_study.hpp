// Runs a pair study: claims its cells and computes them on several threads until none is left.
#pragma once

#include <filesystem>
#include <stop_token>
#include <string>

#include "experiments/lab/pair_settings.hpp"
#include "experiments/lab/participants.hpp"
#include "experiments/lab/study_runner.hpp"
#include "shared/base/clock.hpp"

namespace headstart::lab {

/// What tells a study from others: its settings, and the digests of `data`.
nlohmann::json description_of(const PairStudy& study, const StudyData& data);

/// Goes on until every cell of the share is done, by this process or by others that share the store. `data`: those of
/// the settings. A cell that fails ends the run: its error is thrown when the cells under way are finished, naming it.
/// Throws Error(interrupted) on `stop`. All that was finished is in the store either way.
void run_pair_study(const PairStudy& study, const StudyData& data, StudyStore& store, const StudyRunOptions& options,
                    StudyObserver& observer, const Clock& clock, std::stop_token stop);

/// Computes one cell anew, from its settings and `data` alone.
CellResult compute_pair_cell(const Cell& cell, const StudyData& data, const std::filesystem::path& models,
                             const Clock& clock, std::stop_token stop = {});

/// Mean gain, learning and forgetting in points, and how often the gain is positive, for each partition, transfer set
/// and method of a study.
std::string pair_summary(const StudyStore& store);

}  // namespace headstart::lab
