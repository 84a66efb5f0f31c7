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

  /// What was spent before round 1; `needs_models`: the start needs the clients' models, and is charged at least a
  /// round.
  void on_start(double seconds, std::uint64_t bytes, bool needs_models);
  /// `seconds` and `bytes`: since the run's first step, all that moved before the round's model was there.
  void on_round(std::int64_t round, double accuracy, double seconds, std::uint64_t bytes);

  [[nodiscard]] bool all_reached() const;
  [[nodiscard]] bool is_empty() const { return targets_.empty(); }
  /// The lowest accuracy not reached yet; 0 where there is none.
  [[nodiscard]] double next() const;
  /// A list: accuracy; the round that reached it, or null; `charged` and `uncharged`, each with rounds, seconds and
  /// bytes, or null: with what was spent before round 1, and without. Before round 1 rounds are charged for bytes:
  /// those moved, by the median of a round, rounded up, at least 1 where the clients' models were needed. Null where no
  /// round tells what one costs.
  [[nodiscard]] nlohmann::json report() const;

 private:
  struct Target {
    double accuracy = 0;
    std::int64_t round = -1;
    double seconds = 0;
    std::uint64_t bytes = 0;
    [[nodiscard]] bool is_reached() const { return round >= 0; }
  };
  [[nodiscard]] nlohmann::json charged_rounds(std::int64_t round) const;

  std::vector<Target> targets_;  ///< Ascending.
  double start_seconds_ = 0;
  std::uint64_t start_bytes_ = 0;
  bool needs_models_ = false;
  std::uint64_t bytes_so_far_ = 0;
  std::vector<std::uint64_t> round_bytes_;  ///< Of round 1 and on.
};

}  // namespace headstart::server
