// Computes the cells of a study on several threads, until none is left.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "experiments/lab/study_store.hpp"
#include "shared/base/clock.hpp"

namespace headstart::lab {

/// Which part of a study a process owns: of the cells that are shared out every `count`-th, from `index`.
struct Share {
  std::int64_t index = 0;
  std::int64_t count = 1;

  [[nodiscard]] bool owns(std::int64_t number) const { return number % count == index; }
};
/// "2/5": the third of five. Throws Error(usage).
Share share_of(const std::string& text);

struct StudyRunOptions {
  Share share;
  std::size_t num_jobs = 1;      ///< Cells at the same time.
  std::filesystem::path models;  ///< Folder of pre-trained models.
};

/// What a person wants to know meanwhile. Called under a lock, from any thread.
class StudyObserver {
 public:
  virtual ~StudyObserver() = default;
  /// After each cell. `counts` are of all cells known so far, other processes' included.
  virtual void on_cell(const DoneCell& /*cell*/, const CellCounts& /*counts*/) {}
};

/// Returns a cell's result. Called from several threads at once.
using ComputeCell = std::function<CellResult(const Cell& cell, std::stop_token stop)>;

/// Goes on until every cell of the store is done, by this process or by others that share it. A cell that fails ends
/// the run: its error is thrown when the cells under way are finished, naming it. Throws Error(interrupted) on `stop`.
/// All that was finished is in the store either way.
void run_cells(StudyStore& store, const ComputeCell& compute, std::size_t num_jobs, StudyObserver& observer,
               std::stop_token stop);

/// The metrics that `measure` returns, with the seconds it took and what computed them.
CellResult measured(const Clock& clock, const std::function<nlohmann::json()>& measure);

}  // namespace headstart::lab
