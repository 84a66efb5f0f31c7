// A study as a person watches it: one moving line in a terminal, a line every few seconds elsewhere.
#pragma once

#include <optional>
#include <ostream>
#include <string>

#include "experiments/lab/study_runner.hpp"
#include "shared/base/clock.hpp"

namespace headstart::lab {

class StudyView final : public StudyObserver {
 public:
  enum class Style { terminal, plain };
  /// Writes to `out`, which outlives it.
  StudyView(std::ostream& out, Style style, Clock clock);

  void on_cell(const DoneCell& cell, const CellCounts& counts) override;

 private:
  std::ostream& out_;
  Style style_;
  Clock clock_;
  std::int64_t num_computed_ = 0;  ///< By this process.
  TimePoint begun_;
  std::optional<TimePoint> shown_;
};

}  // namespace headstart::lab
