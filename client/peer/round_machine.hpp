// What a round of a peer waits for, and when it goes on without. No sockets, no clock of its own, no tensors.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "shared/base/clock.hpp"

namespace headstart::peer {

/// How long neighbours are waited for.
struct Patience {
  std::chrono::milliseconds absence = std::chrono::minutes(10);  ///< For one that is not connected.
  std::chrono::milliseconds phase = std::chrono::hours(24);      ///< For all, from a round's own message on.
  std::int64_t min_neighbours = 0;                               ///< That a round needs messages or words of; 0: all.
};

/// What became of a neighbour in a round that goes on.
struct Participation {
  std::set<std::string> heard;                 ///< Whose message is here, or who had none to send.
  std::map<std::string, std::string> missing;  ///< Why not.
};

/// Follows the neighbours of one peer over all rounds. Events and questions come with the time, which never goes back.
class RoundMachine {
 public:
  /// At `now` nobody is connected.
  RoundMachine(const std::vector<std::string>& neighbours, const Patience& patience, TimePoint now);

  // ---- events

  /// What it said to be ready before counts no more: it says so again.
  void connected(const std::string& neighbour, TimePoint now);
  /// `why`: for whoever asks what a round waits for. A connection on which nothing was said to be ready, and which
  /// lasted a few seconds at most, does not end an absence.
  void lost(const std::string& neighbour, const std::string& why, TimePoint now);
  /// After lost(): because it does not take this peer. Once it is absent it counts as one that has answered.
  void refused(const std::string& neighbour);
  /// It said that its message of `round` is ready; `is_empty`: it has none for this peer.
  void ready(const std::string& neighbour, std::int64_t round, bool is_empty);
  /// It does not keep its message of `round` any more.
  void gone(const std::string& neighbour, std::int64_t round);
  /// It has combined its last round.
  void done(const std::string& neighbour);
  /// It was told the same of this peer.
  void told(const std::string& neighbour);
  /// Its message of the round under way is here and may be used.
  void received(const std::string& neighbour);
  /// Its message of the round under way cannot be used. The third of one neighbour excludes it from the run.
  void unusable(const std::string& neighbour, const std::string& why);

  // ---- a round

  /// This peer's own message of `round` is done. What was heard of earlier rounds does not count any more.
  void begin(std::int64_t round, TimePoint now);
  /// Who took part, where the round may go on; nothing where it waits.
  [[nodiscard]] std::optional<Participation> outcome(TimePoint now) const;
  /// Whom it waits for, and why: "not connected (Connection refused)", "trains", "is sending".
  [[nodiscard]] std::map<std::string, std::string> waiting_for(TimePoint now) const;
  /// When outcome() may change without an event; nothing where never.
  [[nodiscard]] std::optional<TimePoint> next_deadline(TimePoint now) const;

  /// The round to begin in place of the one under way, where no connected neighbour keeps its message of that any more,
  /// as all are further: the earliest that one of them is in. So no single neighbour can have a peer skip rounds that
  /// others go through with it.
  [[nodiscard]] std::optional<std::int64_t> round_to_skip_to() const;

  [[nodiscard]] bool is_excluded(const std::string& neighbour) const;
  /// Whether its message of the round under way is ready, and neither here nor found unusable.
  [[nodiscard]] bool is_wanted(const std::string& neighbour) const;
  /// After the last round: nobody needs this peer any more, or will come in time to say so.
  [[nodiscard]] bool may_leave(TimePoint now) const;

 private:
  enum class Progress { silent, ready, settled, unusable, gone };
  struct Neighbour {
    bool is_connected = false;
    bool is_done = false;
    bool was_told = false;
    bool refuses = false;     ///< Its last connection ended so.
    bool has_spoken = false;  ///< On the last connection.
    TimePoint connected_at{};
    TimePoint lost_at;
    std::string why_lost = "has not been heard of";
    /// That it said to be ready, and keeps: the newest two. True: it has nothing for this peer.
    std::map<std::int64_t, bool> ready_rounds;
    Progress progress = Progress::silent;
    std::string why_unusable;
    int num_unusable = 0;
  };
  [[nodiscard]] const Neighbour& at(const std::string& name) const;
  [[nodiscard]] Neighbour& at(const std::string& name);
  void look_at_newest(Neighbour& neighbour) const;
  [[nodiscard]] bool is_absent(const Neighbour& neighbour, TimePoint now) const;
  /// It is in a later round, and its message of the one under way is not kept.
  [[nodiscard]] bool is_further(const Neighbour& neighbour) const;
  /// Why it is not waited for; nothing where it is, or where it is settled.
  [[nodiscard]] std::optional<std::string> reason_missing(const Neighbour& neighbour, TimePoint now) const;

  std::map<std::string, Neighbour> neighbours_;
  Patience patience_;
  std::int64_t round_ = 0;
  TimePoint began_{};
};

}  // namespace headstart::peer
