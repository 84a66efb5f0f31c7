// How often one client may come: who joins and leaves all the time is let in ever more slowly, and fills no log.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <string>

#include "shared/base/clock.hpp"

namespace headstart::server {

/// Ten times in a row each may come at once, and then every five seconds; what was not used is saved up again, ten
/// times at most.
class Pace {
 public:
  static constexpr double burst = 10;
  static constexpr std::chrono::milliseconds interval = std::chrono::seconds(5);

  /// Counts `whom` as coming at `now`; how long it waits.
  std::chrono::milliseconds wait(const std::string& whom, TimePoint now) {
    if (levels_.size() >= max_apart) {
      std::erase_if(levels_, [&](const auto& entry) { return level_at(entry.second, now) >= burst; });
    }
    Level& level =
        levels_.try_emplace(levels_.size() < max_apart ? whom : std::string(), Level{burst, now}).first->second;
    // Who comes while it has to wait does not wait longer for it.
    level = {std::max(level_at(level, now) - 1, -1.0), now};
    if (level.left >= 0) return std::chrono::milliseconds(0);
    return std::chrono::ceil<std::chrono::milliseconds>(-level.left * interval);
  }

 private:
  /// Beyond it all others have one pace.
  static constexpr std::size_t max_apart = 4096;

  struct Level {
    double left;
    TimePoint at;
  };
  static double level_at(const Level& level, TimePoint now) {
    return std::min(burst, level.left + std::chrono::duration<double>(now - level.at) / interval);
  }

  std::map<std::string, Level> levels_;
};

}  // namespace headstart::server
