#include "experiments/lab/study_view.hpp"

#include <map>
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

std::string pair_summary(const StudyStore& store) {
  struct Sum {
    std::int64_t count = 0, positive = 0;
    double gain = 0, learning = 0, forgetting = 0, seconds = 0;
  };
  std::map<std::string, Sum> sums;
  store.for_each_done([&sums](const DoneCell& done) {
    const nlohmann::json& pair = done.cell.settings.at("pair");
    if (!pair.contains("teacher")) return;
    const nlohmann::json& metrics = done.result.metrics;
    Sum& sum = sums[fmt::format("{:16} {:15} {:18}", done.cell.settings.at("partition").at("kind").get<std::string>(),
                                pair.at("transfer").get<std::string>(), pair.at("method").get<std::string>())];
    ++sum.count;
    sum.positive += metrics.at("gain").get<double>() > 0 ? 1 : 0;
    sum.gain += metrics.at("gain").get<double>();
    sum.learning += metrics.at("learning").get<double>();
    sum.forgetting += metrics.at("forgetting").get<double>();
    sum.seconds += done.result.seconds;
  });
  std::string text =
      fmt::format("{:16} {:15} {:18} {:>6} {:>7} {:>9} {:>10} {:>9} {:>9}\n", "partition", "transfer set", "method",
                  "pairs", "gain", "learning", "forgetting", "positive", "s a pair");
  for (const auto& [name, sum] : sums) {
    const auto mean = [&sum](double total) { return total / static_cast<double>(sum.count); };
    text += fmt::format("{} {:6} {:+7.2f} {:9.2f} {:10.2f} {:8.0f}% {:9.2f}\n", name, sum.count, 100 * mean(sum.gain),
                        100 * mean(sum.learning), 100 * mean(sum.forgetting),
                        100 * mean(static_cast<double>(sum.positive)), mean(sum.seconds));
  }
  return text;
}

}  // namespace headstart::lab
