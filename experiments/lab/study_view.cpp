#include "experiments/lab/study_view.hpp"

#include <utility>

#include <fmt/format.h>

namespace headstart::lab {

namespace {

std::string duration_text(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  return seconds < 5400 ? fmt::format("{:.0f} min", seconds / 60) : fmt::format("{:.1f} h", seconds / 3600);
}

}  // namespace

StudyView::StudyView(std::ostream& out, Style style, Clock clock)
    : out_(out), style_(style), clock_(std::move(clock)), begun_(clock_()) {}

void StudyView::on_cell(const DoneCell& cell, const CellCounts& counts) {
  ++num_computed_;
  const TimePoint now = clock_();
  const bool is_last = counts.done == counts.total;
  const double pause = style_ == Style::terminal ? 0.2 : 10;
  if (shown_ && !is_last && seconds_between(*shown_, now) < pause) return;
  shown_ = now;
  const double rate = static_cast<double>(num_computed_) / std::max(seconds_between(begun_, now), 1e-3);
  std::string line = fmt::format("{} of {} cells", counts.done, counts.total);
  if (!is_last) line += ", about " + duration_text(static_cast<double>(counts.total - counts.done) / rate) + " left";
  line += "; " + cell.cell.key;
  if (const auto gain = cell.result.metrics.find("gain"); gain != cell.result.metrics.end()) {
    line += fmt::format(" {:+.1f}", 100 * gain->get<double>());
  }
  if (style_ == Style::terminal) {
    out_ << "\r\x1b[K" << line << (is_last ? "\n" : "") << std::flush;
  } else {
    out_ << line << std::endl;
  }
}

}  // namespace headstart::lab
