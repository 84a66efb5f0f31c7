#include "server/operations/live_view.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"

namespace headstart::server {

namespace {

constexpr std::chrono::seconds plain_interval{10};
constexpr std::size_t bar_width = 24;

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::min(seconds, 1e9) + 0.5);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string bytes_text(std::uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 1e9) return fmt::format("{:.2f} GB", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.1f} MB", value / 1e6);
  return fmt::format("{:.1f} kB", value / 1e3);
}

}  // namespace

LiveView::LiveView(std::ostream& out, ViewStyle style, Clock clock)
    : out_(out), style_(style), clock_(std::move(clock)) {}

void LiveView::line(const std::string& text) {
  if (style_ == ViewStyle::log) return spdlog::info("{}", text);
  // In a terminal the status line is wiped first and comes back with the next progress.
  out_ << (style_ == ViewStyle::terminal ? "\r\x1b[2K" : "") << printable(text) << '\n' << std::flush;
}

void LiveView::status(const std::string& text) {
  if (style_ == ViewStyle::terminal) out_ << "\r\x1b[2K" << printable(text) << std::flush;
}

void LiveView::on_lobby(const std::vector<std::string>& present, std::size_t expected) {
  if (present.size() == expected) {
    line(fmt::format("all {} clients are there: {}", expected, fmt::join(present, ", ")));
    return;
  }
  const std::string text = fmt::format("waiting for clients: {} of {}", present.size(), expected);
  if (style_ == ViewStyle::terminal) {
    status(text);
  } else {
    line(text);
  }
}

void LiveView::on_phase(const Phase& phase, std::size_t num_parts) {
  phase_ = phase;
  num_parts_ = num_parts;
  parts_.clear();
  phase_began_ = clock_();
  next_plain_line_ = phase_began_ + plain_interval;
  // Rounds have a line of their own when they are done.
  const std::string words = words_of(phase);
  if (!is_of_a_round(phase.kind)) line(num_parts > 1 ? fmt::format("{} ({} clients)", words, num_parts) : words);
  status(words + " ...");
}

std::string LiveView::progress_text(TimePoint now) const {
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  std::size_t num_finished = 0;
  for (const auto& [name, part] : parts_) {
    done += part.done;
    total += part.total;
    if (part.total > 0 && part.done >= part.total) ++num_finished;
  }
  // Who has not reported yet is taken to have as much to do as the others.
  if (parts_.size() < num_parts_) total = total / std::max<std::size_t>(parts_.size(), 1) * num_parts_;
  const double share = total == 0 ? 0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const double elapsed = seconds_between(phase_began_, now);
  const double rate = elapsed > 0 ? static_cast<double>(done) / elapsed : 0;
  const auto filled = static_cast<std::size_t>(share * bar_width);
  std::string text = fmt::format("{}  [{}{}] {:3.0f}%", words_of(*phase_), std::string(filled, '#'),
                                 std::string(bar_width - filled, '.'), 100 * share);
  if (num_parts_ > 1) text += fmt::format("  {}/{} clients done", num_finished, num_parts_);
  text += fmt::format("  {:.0f} samples/s", rate);
  if (rate > 0)
    text += fmt::format("  {} left", duration_text(static_cast<double>(total - std::min(done, total)) / rate));
  return text;
}

void LiveView::on_progress(const std::string& part, std::uint64_t done, std::uint64_t total) {
  if (!phase_) return;  // a client may report at any time
  parts_[part] = {done, total};
  const TimePoint now = clock_();
  if (style_ == ViewStyle::terminal) {
    status(progress_text(now));
  } else if (now >= next_plain_line_) {
    next_plain_line_ = now + plain_interval;
    line(progress_text(now));
  }
}

void LiveView::on_round(const RoundView& round) {
  std::string text = round.round == 0 ? "start model" : fmt::format("round {}/{}", round.round, round.num_rounds);
  if (round.accuracy) text += fmt::format("  accuracy {:.2f}%", 100 * *round.accuracy);
  if (round.loss) text += fmt::format("  loss {:.4f}", *round.loss);
  if (round.federated_accuracy) text += fmt::format("  at the clients {:.2f}%", 100 * *round.federated_accuracy);
  if (!round.validation.empty()) text += fmt::format("  {} by validation", round.validation);
  if (round.next_target > 0) text += fmt::format("  next target {:.2f}%", 100 * round.next_target);
  if (round.round > 0) text += fmt::format("  {} updates  {}", round.num_updates, bytes_text(round.num_bytes));
  text += fmt::format("  {:.1f} s", round.seconds);
  line(text);
}

void LiveView::on_note(const std::string& text) { line("note: " + text); }

}  // namespace headstart::server
