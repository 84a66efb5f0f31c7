// A run as a person watches it: one moving status line in a terminal, plain lines or a log elsewhere.
#pragma once

#include <map>
#include <optional>
#include <ostream>
#include <string>

#include "server/operations/run_observer.hpp"
#include "shared/base/clock.hpp"

namespace headstart::server {

enum class ViewStyle {
  terminal,
  plain,
  log,  ///< The lines of plain, through the process's logger.
};

/// Writes to `out`, which outlives it.
class LiveView final : public RunObserver {
 public:
  LiveView(std::ostream& out, ViewStyle style, Clock clock);
  ~LiveView() override { status(""); }
  LiveView(const LiveView&) = delete;
  LiveView& operator=(const LiveView&) = delete;

  /// Closing words.
  void finish(const std::string& text) { line(text); }

  void on_lobby(const std::vector<std::string>& present, std::size_t expected) override;
  void on_phase(const Phase& phase, std::size_t num_parts) override;
  void on_progress(const std::string& part, std::uint64_t done, std::uint64_t total) override;
  void on_round(const RoundView& round) override;
  void on_note(const std::string& text) override;

 private:
  struct Part {
    std::uint64_t done = 0;
    std::uint64_t total = 0;
  };
  void line(const std::string& text);
  void status(const std::string& text);
  [[nodiscard]] std::string progress_text(TimePoint now) const;

  std::ostream& out_;
  ViewStyle style_;
  Clock clock_;
  std::optional<Phase> phase_;  ///< The one under way.
  std::size_t num_parts_ = 0;
  TimePoint phase_began_{};
  TimePoint next_plain_line_{};
  std::map<std::string, Part> parts_;
};

}  // namespace headstart::server
