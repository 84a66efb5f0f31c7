#include "server/operations/run_page.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "server/operations/page_data.hpp"
#include "shared/base/files.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/time_text.hpp"

namespace headstart::server {

namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds age_of_status{400};
constexpr std::chrono::seconds longest_silence{15};
constexpr std::size_t max_note_bytes = 1000;

/// A name for what a silo is at.
const char* state_of(const ClientStatus& client) {
  if (!client.is_connected) return client.is_awaited ? "awaited" : "away";
  if (client.task) return "working";
  return client.is_asked ? "asked" : "ready";
}

/// To a tenth, so that clocks that are read twice do not make two texts of one instant.
double tenths(double seconds) { return std::round(10 * seconds) / 10; }

json silo_json(const ClientStatus& client, const RunStatus& run, double now) {
  json silo = {{"name", client.name},
               {"state", state_of(client)},
               {"asked", client.is_asked},
               {"examples", client.num_examples},
               {"connections", client.num_connections},
               {"up", client.bytes_received},
               {"down", client.bytes_sent}};
  if (!client.refusals.empty()) silo["refused"] = client.refusals;
  if (client.task) {
    silo["task"] = client.task->kind;
    silo["since"] = tenths(now - client.task->seconds);
    const auto part = run.parts.find(client.name);
    if (part != run.parts.end()) silo["progress"] = part->second;
  }
  for (const auto& [kind, times] : client.tasks) {
    silo["tasks"][kind] = {{"count", times.count}, {"seconds", times.seconds}, {"last", times.last}};
  }
  return silo;
}

/// Times are seconds of the page's own clock, whose `now` each event has: a status that stands has one text.
json status_json(const RunStatus& run, double now) {
  json status = {{"phase", words_of(run.phase)},
                 {"kind", label_of(run.phase.kind)},
                 {"since", tenths(now - run.phase_seconds)},
                 {"progress", run.progress},
                 {"round", run.round},
                 {"rounds", run.num_rounds},
                 {"expected", run.num_expected},
                 {"left_out", run.num_left_out},
                 {"not_admitted", run.num_refused},
                 {"takes_clients", run.takes_clients},
                 {"silos", json::array()}};
  const auto server = run.parts.find("server");
  if (server != run.parts.end()) status["server_progress"] = server->second;
  for (const ClientStatus& client : run.clients) status["silos"].push_back(silo_json(client, run, now));
  return status;
}

/// `[first, ...]` of texts that are JSON.
template <class Texts>
std::string list_of(const Texts& texts, std::size_t first) {
  const auto begin = texts.begin() + static_cast<std::ptrdiff_t>(std::min(first, texts.size()));
  return fmt::format("[{}]", fmt::join(begin, texts.end(), ","));
}

}  // namespace

class RunPage::Viewer final : public net::HttpStream {
 public:
  Viewer(RunPage& page, Place place) : page_(page), place_(place), spoke_at_(page.clock_()) {}

  std::optional<std::string> next() override {
    std::string event = page_.news(place_);
    const TimePoint now = page_.clock_();
    if (event.empty() && now - spoke_at_ >= longest_silence) event = ": still here\n\n";
    if (!event.empty()) spoke_at_ = now;
    return event;
  }

 private:
  RunPage& page_;
  Place place_;
  TimePoint spoke_at_;
};

RunPage::RunPage(RunObserver& next, const Fixed& fixed, Clock clock, WallClock wall_clock)
    : next_(next),
      name_text_(to_line(fixed.name)),
      partition_text_(to_line(fixed.partition)),
      reference_text_(to_line(fixed.reference)),
      clock_(std::move(clock)),
      wall_clock_(std::move(wall_clock)),
      epoch_(fmt::format("{:x}", wall_clock_().time_since_epoch().count())),
      status_([] { return RunStatus{}; }),
      began_at_(clock_()) {}

void RunPage::refresh() {
  const TimePoint now = clock_();
  if (refreshed_at_ && now - *refreshed_at_ < age_of_status) return;
  refreshed_at_ = now;
  const RunStatus run = status_();
  run_seconds_ = run.seconds;
  std::string text = to_line(status_json(run, seconds_between(began_at_, now)));
  if (text == status_text_) return;
  status_text_ = std::move(text);
  ++status_version_;
}

std::string RunPage::id_of(const Place& place) const {
  return fmt::format("{}-{}-{}-{}-{}", epoch_, place.facts, place.newest, place.num_rounds, place.num_notes);
}

RunPage::Place RunPage::place_of(std::string_view event_id) const {
  if (!event_id.starts_with(epoch_ + "-")) return {};
  event_id.remove_prefix(epoch_.size());
  std::uint64_t numbers[4] = {};
  for (std::uint64_t& number : numbers) {
    if (!event_id.starts_with('-')) return {};
    event_id.remove_prefix(1);
    const auto [end, code] = std::from_chars(event_id.data(), event_id.data() + event_id.size(), number);
    if (code != std::errc()) return {};
    event_id.remove_prefix(static_cast<std::size_t>(end - event_id.data()));
  }
  const auto [facts, newest, num_rounds, num_seen_notes] = numbers;
  const bool is_possible = facts <= facts_version_ && newest <= newest_version_ && num_rounds <= rounds_.size() &&
                           num_seen_notes <= num_notes() && event_id.empty();
  if (!is_possible) return {};
  return {.num_rounds = num_rounds, .num_notes = num_seen_notes, .facts = facts, .newest = newest, .has_begun = true};
}

std::string RunPage::news(Place& place) {
  refresh();
  std::string text;
  const auto add = [&text](std::string_view key, std::string_view value) {
    text += fmt::format(",\"{}\":{}", key, value);
  };
  if (!place.has_begun) {
    add("first", "true");
    add("partition", partition_text_);
    add("reference", reference_text_);
  }
  if (std::exchange(place.facts, facts_version_) != facts_version_) add("facts", facts_text_);
  if (const std::size_t first = std::exchange(place.num_rounds, rounds_.size()); first != rounds_.size()) {
    add("rounds_from", std::to_string(first));
    add("rounds", list_of(rounds_, first));
  }
  if (std::exchange(place.newest, newest_version_) != newest_version_) add("newest", newest_text_);
  if (const std::size_t first = std::exchange(place.num_notes, num_notes()); first != num_notes()) {
    add("notes_from", std::to_string(std::max(first, num_dropped_notes_)));
    add("notes", list_of(notes_, first - std::min(first, num_dropped_notes_)));
  }
  if (std::exchange(place.status, status_version_) != status_version_) add("status", status_text_);
  if (!end_text_.empty() && !std::exchange(place.has_end, true)) add("end", end_text_);
  place.has_begun = true;
  if (text.empty()) return "";
  return fmt::format("id: {}\ndata: {{\"run\":{},\"now\":{:.1f},\"seconds\":{:.1f}{}}}\n\n", id_of(place), name_text_,
                     seconds_between(began_at_, clock_()), run_seconds_, text);
}

std::shared_ptr<net::HttpStream> RunPage::viewer(std::string_view last_event_id) {
  return std::make_shared<Viewer>(*this, place_of(last_event_id));
}

void RunPage::on_lobby(const std::vector<std::string>& present, std::size_t expected) {
  refreshed_at_.reset();
  next_.on_lobby(present, expected);
}

void RunPage::on_phase(const Phase& phase, std::size_t num_parts) {
  refreshed_at_.reset();
  next_.on_phase(phase, num_parts);
}

void RunPage::on_progress(const std::string& part, std::uint64_t done, std::uint64_t total) {
  next_.on_progress(part, done, total);
}

void RunPage::on_note(const std::string& text) {
  notes_.push_back(to_line({{"at", utc_text(wall_clock_())}, {"text", printable(text, max_note_bytes)}}));
  if (notes_.size() > max_page_notes) {
    notes_.pop_front();
    ++num_dropped_notes_;
  }
  next_.on_note(text);
}

void RunPage::on_run(const json& run) {
  facts_.update(run_facts(run));
  facts_text_ = to_line(facts_);
  ++facts_version_;
  next_.on_run(run);
}

void RunPage::on_start(const json& start) {
  facts_.update(start);
  facts_text_ = to_line(facts_);
  ++facts_version_;
  next_.on_start(start);
}

void RunPage::on_line(const json& line) {
  rounds_.push_back(to_line(round_point(line)));
  newest_text_ = to_line(newest_round(line));
  ++newest_version_;
  next_.on_line(line);
}

void RunPage::on_end(const json& summary, bool is_failure) {
  end_text_ = to_line(run_end(summary, is_failure));
  next_.on_end(summary, is_failure);
}

}  // namespace headstart::server
