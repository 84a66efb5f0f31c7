// Runs a pair study: claims its cells and computes them on several threads until none is left.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "experiments/lab/pair_settings.hpp"
#include "experiments/lab/participants.hpp"
#include "shared/base/clock.hpp"

namespace headstart::lab {

/// Which part of a study a process owns: of the pairs' cells of each partition and seed every `count`-th, from
/// `index`. Every share has all participants.
struct Share {
  std::int64_t index = 0;
  std::int64_t count = 1;
};
/// "2/5": the third of five. Throws Error(usage).
Share share_of(const std::string& text);

/// What a person wants to know meanwhile. Called under a lock, from any thread.
class StudyObserver {
 public:
  virtual ~StudyObserver() = default;
  /// After each cell. `counts` are of all cells known so far, other processes' included.
  virtual void on_cell(const DoneCell& /*cell*/, const CellCounts& /*counts*/) {}
};

struct StudyRunOptions {
  Share share;
  std::size_t num_jobs = 1;      ///< Cells at the same time.
  std::filesystem::path models;  ///< Folder of pre-trained models.
};

/// What tells a study from others: its settings, and the digests of `data`.
nlohmann::json description_of(const PairStudy& study, const StudyData& data);

/// Throws Error(data), naming `file`, where `data` are not those of the study that `description` tells of.
void require_data_of(const nlohmann::json& description, const StudyData& data, const std::string& file);

/// Goes on until every cell of the share is done, by this process or by others that share the store. `data`: those of
/// the settings. A cell that fails ends the run: its error is thrown when the cells under way are finished, naming it.
/// Throws Error(interrupted) on `stop`. All that was finished is in the store either way.
void run_pair_study(const PairStudy& study, const StudyData& data, StudyStore& store, const StudyRunOptions& options,
                    StudyObserver& observer, const Clock& clock, std::stop_token stop);

/// Computes one cell anew, from its settings and `data` alone.
CellResult compute_cell(const Cell& cell, const StudyData& data, const std::filesystem::path& models,
                        const Clock& clock, std::stop_token stop = {});

}  // namespace headstart::lab
