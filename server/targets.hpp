// Rounds, seconds and bytes to each target accuracy.
#pragma once

#include <cstdint>
#include <vector>

#include <nlohmann/json.hpp>

namespace headstart::server {

struct TargetOptions;

/// Follows a run round by round; round 0 is the start model.
class Targets {
 public:
  explicit Targets(const TargetOptions& options);

  /// `seconds` and `bytes`: since the run's first step, all that moved before the round's model was there.
  void on_round(std::int64_t round, double accuracy, double seconds, std::uint64_t bytes);

  [[nodiscard]] bool all_reached() const;
  [[nodiscard]] bool is_empty() const { return targets_.empty(); }
  /// The lowest accuracy not reached yet; 0 where there is none.
  [[nodiscard]] double next() const;
  /// A list: accuracy, and round, seconds, bytes or null.
  [[nodiscard]] nlohmann::json report() const;

 private:
  struct Target {
    double accuracy = 0;
    std::int64_t round = -1;
    double seconds = 0;
    std::uint64_t bytes = 0;
    [[nodiscard]] bool is_reached() const { return round >= 0; }
  };
  std::vector<Target> targets_;  ///< Ascending.
};

}  // namespace headstart::server
