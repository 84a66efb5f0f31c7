// What the page of a run under way is sent: the whole to a new viewer, then what is new.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/operations/run_status.hpp"
#include "shared/base/clock.hpp"
#include "shared/net/http.hpp"

namespace headstart::server {

/// Remembers what an observer is told, as text that viewers are sent, and passes it on. A viewer is a place in that
/// text: one that is slow costs no memory, and is sent the newest state when it has read what it has. All calls on the
/// executor; what is sent is joined from texts made once, so that many viewers cost little time.
class RunPage final : public RunObserver {
 public:
  struct Fixed {
    std::string name;                    ///< Of the run: that of its folder.
    nlohmann::json partition = nullptr;  ///< partition_counts().
    nlohmann::json reference = nullptr;  ///< reference_run().
  };

  /// `next` outlives it.
  RunPage(RunObserver& next, const Fixed& fixed, Clock clock, WallClock wall_clock);

  /// Where silos and times come from; to be called before there is a viewer.
  void watch(std::function<RunStatus()> status) { status_ = std::move(status); }

  /// What a viewer has got; nothing so far.
  struct Place {
    std::size_t num_rounds = 0;
    std::size_t num_notes = 0;
    std::uint64_t facts = 0, newest = 0, status = 0;  ///< Versions.
    bool has_begun = false, has_end = false;
  };
  /// One server-sent event with what has come since `place`, which it moves; empty where nothing has. Its id is what
  /// place_of() reads.
  std::string news(Place& place);
  /// The place after the event of this id, where it is one of this page; else the beginning.
  [[nodiscard]] Place place_of(std::string_view event_id) const;

  /// Events for one viewer, who has seen that of `last_event_id`; empty: none. Never ends; says something at least
  /// every 15 s. The page outlives it.
  std::shared_ptr<net::HttpStream> viewer(std::string_view last_event_id);

  void on_lobby(const std::vector<std::string>& present, std::size_t expected) override;
  void on_phase(const Phase& phase, std::size_t num_parts) override;
  void on_progress(const std::string& part, std::uint64_t done, std::uint64_t total) override;
  void on_round(const RoundView& round) override { next_.on_round(round); }
  void on_refusal(RefusalCode code) override { next_.on_refusal(code); }
  void on_note(const std::string& text) override;
  void on_run(const nlohmann::json& run) override;
  void on_start(const nlohmann::json& start) override;
  void on_line(const nlohmann::json& line) override;
  void on_end(const nlohmann::json& summary, bool is_failure) override;

 private:
  class Viewer;
  /// Renews status_text_ where it is older than viewers are asked.
  void refresh();
  [[nodiscard]] std::string id_of(const Place& place) const;
  [[nodiscard]] std::size_t num_notes() const { return num_dropped_notes_ + notes_.size(); }

  RunObserver& next_;
  std::string name_text_, partition_text_, reference_text_;  ///< JSON.
  Clock clock_;
  WallClock wall_clock_;
  std::string epoch_;  ///< Of this process: no other gives the same places.
  std::function<RunStatus()> status_;
  nlohmann::json facts_ = nlohmann::json::object();
  std::string facts_text_, newest_text_, status_text_, end_text_;  ///< JSON; empty: nothing yet.
  std::uint64_t facts_version_ = 0, newest_version_ = 0, status_version_ = 0;
  std::vector<std::string> rounds_;  ///< round_point() of each, as JSON.
  std::deque<std::string> notes_;    ///< The newest max_page_notes.
  std::size_t num_dropped_notes_ = 0;
  std::optional<TimePoint> refreshed_at_;
  double run_seconds_ = 0;
  TimePoint began_at_;
};

}  // namespace headstart::server
