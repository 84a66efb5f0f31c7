#include "client/peer/round_machine.hpp"

#include <algorithm>
#include <utility>

#include "shared/base/error.hpp"

namespace headstart::peer {

namespace {

/// Messages that cannot be used, of one neighbour, until it is excluded.
constexpr int max_unusable = 3;

/// Of a connection without a word: who is put out again and again is as good as absent.
constexpr std::chrono::seconds useful_span(5);

/// Rounds of which a peer keeps its messages.
constexpr std::size_t num_kept_rounds = 2;

}  // namespace

RoundMachine::RoundMachine(const std::vector<std::string>& neighbours, const Patience& patience, TimePoint now)
    : patience_(patience) {
  for (const std::string& name : neighbours) neighbours_[name].lost_at = now;
}

const RoundMachine::Neighbour& RoundMachine::at(const std::string& name) const {
  const auto found = neighbours_.find(name);
  if (found == neighbours_.end()) throw Error(Errc::internal, "'" + name + "' is no neighbour");
  return found->second;
}
RoundMachine::Neighbour& RoundMachine::at(const std::string& name) {
  return const_cast<Neighbour&>(std::as_const(*this).at(name));
}

void RoundMachine::connected(const std::string& neighbour, TimePoint now) {
  Neighbour& one = at(neighbour);
  one.is_connected = true;
  one.has_spoken = false;
  one.connected_at = now;
  one.ready_rounds.clear();
  if (one.progress == Progress::ready || one.progress == Progress::gone) one.progress = Progress::silent;
}

void RoundMachine::lost(const std::string& neighbour, const std::string& why, TimePoint now) {
  Neighbour& one = at(neighbour);
  if (one.is_connected && (one.has_spoken || now - one.connected_at >= useful_span)) one.lost_at = now;
  one.is_connected = false;
  one.why_lost = why;
}

void RoundMachine::refused(const std::string& neighbour) { at(neighbour).refuses = true; }

void RoundMachine::ready(const std::string& neighbour, std::int64_t round, bool is_empty) {
  Neighbour& one = at(neighbour);
  one.refuses = false;
  one.has_spoken = true;
  one.ready_rounds[round] = is_empty;
  while (one.ready_rounds.size() > num_kept_rounds) one.ready_rounds.erase(one.ready_rounds.begin());
  look_at_newest(one);
}

void RoundMachine::look_at_newest(Neighbour& neighbour) const {
  const auto found = neighbour.ready_rounds.find(round_);
  if (neighbour.progress != Progress::silent || found == neighbour.ready_rounds.end()) return;
  neighbour.progress = found->second ? Progress::settled : Progress::ready;
}

void RoundMachine::gone(const std::string& neighbour, std::int64_t round) {
  Neighbour& one = at(neighbour);
  one.ready_rounds.erase(round);
  if (round == round_ && one.progress == Progress::ready) one.progress = Progress::gone;
}

void RoundMachine::done(const std::string& neighbour) {
  at(neighbour).is_done = true;
  at(neighbour).has_spoken = true;
}

void RoundMachine::told(const std::string& neighbour) { at(neighbour).was_told = true; }

void RoundMachine::received(const std::string& neighbour) { at(neighbour).progress = Progress::settled; }

void RoundMachine::unusable(const std::string& neighbour, const std::string& why) {
  Neighbour& one = at(neighbour);
  one.progress = Progress::unusable;
  one.why_unusable = why;
  ++one.num_unusable;
}

void RoundMachine::begin(std::int64_t round, TimePoint now) {
  round_ = round;
  began_ = now;
  for (auto& [name, neighbour] : neighbours_) {
    neighbour.progress = Progress::silent;
    look_at_newest(neighbour);
  }
}

bool RoundMachine::is_absent(const Neighbour& neighbour, TimePoint now) const {
  return !neighbour.is_connected && now - neighbour.lost_at >= patience_.absence;
}

bool RoundMachine::is_further(const Neighbour& neighbour) const {
  const bool keeps_none = neighbour.progress == Progress::silent || neighbour.progress == Progress::gone;
  return keeps_none && !neighbour.ready_rounds.empty() && neighbour.ready_rounds.rbegin()->first > round_;
}

bool RoundMachine::is_excluded(const std::string& neighbour) const {
  return at(neighbour).num_unusable >= max_unusable;
}

bool RoundMachine::is_wanted(const std::string& neighbour) const {
  return at(neighbour).progress == Progress::ready && !is_excluded(neighbour);
}

std::optional<std::string> RoundMachine::reason_missing(const Neighbour& neighbour, TimePoint now) const {
  if (neighbour.num_unusable >= max_unusable)
    return "excluded after " + std::to_string(max_unusable) + " messages that could not be used";
  if (neighbour.progress == Progress::unusable) return neighbour.why_unusable;
  if (is_further(neighbour)) return "is in a later round, and does not keep its message of this one";
  if (neighbour.progress == Progress::gone) return "does not keep its message of this round";
  if (neighbour.is_done && neighbour.progress == Progress::silent) return "its run is over";
  if (is_absent(neighbour, now)) return "not connected: " + neighbour.why_lost;
  if (now - began_ >= patience_.phase) {
    return neighbour.is_connected ? "did not come before timeouts.phase was over"
                                  : "not connected: " + neighbour.why_lost;
  }
  return std::nullopt;
}

std::optional<Participation> RoundMachine::outcome(TimePoint now) const {
  Participation result;
  std::int64_t num_answers = 0;
  std::int64_t num_counted = 0;  // of whom an answer may come
  for (const auto& [name, neighbour] : neighbours_) {
    const bool is_out = neighbour.num_unusable >= max_unusable;
    if (!is_out) ++num_counted;
    if (neighbour.progress == Progress::settled) {
      result.heard.insert(name);
      ++num_answers;
    } else if (const auto reason = reason_missing(neighbour, now)) {
      result.missing.emplace(name, *reason);
      const bool has_answered =
          neighbour.progress == Progress::unusable || neighbour.is_done || is_further(neighbour) || neighbour.refuses;
      if (has_answered && !is_out) ++num_answers;
    } else {
      return std::nullopt;
    }
  }
  const std::int64_t needed =
      patience_.min_neighbours == 0 ? num_counted : std::min(patience_.min_neighbours, num_counted);
  return num_answers < needed ? std::nullopt : std::optional(std::move(result));
}

std::map<std::string, std::string> RoundMachine::waiting_for(TimePoint now) const {
  std::map<std::string, std::string> waiting;
  for (const auto& [name, neighbour] : neighbours_) {
    if (neighbour.progress == Progress::settled) continue;
    if (const auto reason = reason_missing(neighbour, now)) {
      waiting.emplace(name, *reason);
    } else if (!neighbour.is_connected) {
      waiting.emplace(name, "not connected: " + neighbour.why_lost);
    } else {
      waiting.emplace(name, neighbour.progress == Progress::ready ? "is sending" : "is at work");
    }
  }
  return waiting;
}

std::optional<TimePoint> RoundMachine::next_deadline(TimePoint now) const {
  std::optional<TimePoint> next;
  const auto consider = [&](TimePoint at) {
    if (at > now && (!next || at < *next)) next = at;
  };
  consider(began_ + patience_.phase);
  for (const auto& [name, neighbour] : neighbours_) {
    if (!neighbour.is_connected) consider(neighbour.lost_at + patience_.absence);
  }
  return next;
}

std::optional<std::int64_t> RoundMachine::round_to_skip_to() const {
  std::optional<std::int64_t> earliest;
  for (const auto& [name, neighbour] : neighbours_) {
    if (!neighbour.is_connected || neighbour.num_unusable >= max_unusable) continue;
    if (!is_further(neighbour)) return std::nullopt;
    const std::int64_t newest = neighbour.ready_rounds.rbegin()->first;
    earliest = std::min(earliest.value_or(newest), newest);
  }
  return earliest;
}

bool RoundMachine::may_leave(TimePoint now) const {
  return std::ranges::all_of(neighbours_, [&](const auto& entry) {
    const Neighbour& neighbour = entry.second;
    // One that was not told would wait for this peer as for one that is lost.
    return (neighbour.is_done && neighbour.was_told) || neighbour.num_unusable >= max_unusable ||
           is_absent(neighbour, now);
  });
}

}  // namespace headstart::peer
