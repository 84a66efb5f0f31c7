// The choice of temperature and alpha by validation data: what to try next, as a value; nothing here trains.
// Source of grid and stages: Alballa & Canini 2024 (arXiv 2402.14922), section III.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "shared/base/fields.hpp"
#include "shared/learn/metrics/metric.hpp"

namespace headstart::learn {

/// What a search chooses: temperature T, and the weight alpha of the distillation term.
struct KdSetting {
  double temperature = 1;
  double alpha = 0.5;
  friend bool operator==(const KdSetting&, const KdSetting&) = default;
};

/// The settings that are searched: all temperatures times all alphas, or the temperatures alone where the transfer set
/// has no labels and alpha no effect.
struct SettingGrid {
  std::vector<double> temperatures = {0.1, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7};
  std::vector<double> alphas = {0.1, 0.25, 0.5, 0.75, 0.9};
};
void declare_fields(Fields& fields, const std::string& prefix, SettingGrid& grid);

/// How a student does on validation data.
struct Rating {
  double accuracy = 0;  ///< 0..1.
  double loss = 0;      ///< Mean cross-entropy.
  /// Metric::score() of another metric than accuracy, which then decides; none: accuracy does.
  std::optional<double> score = {};

  [[nodiscard]] double deciding() const { return score.value_or(accuracy); }  ///< 0..1, higher is better.
};
/// Higher score or accuracy, then lower loss; never true of equals.
bool is_better(const Rating& candidate, const Rating& best);
Rating rating_of(const Evaluation& evaluation, const Metric& metric = {});

/// A student distilled with one setting from the start to `epochs` in all.
struct Ask {
  std::size_t trial = 0;  ///< From 0, in the order of first asking: a later ask of the same trial goes on with it.
  KdSetting setting;
  std::int64_t epochs = 0;
};

/// Asks for trials and is told how they did: `while (auto ask = search.next()) search.tell(rate(*ask));`. The same
/// ratings lead to the same questions and the same answer.
class SettingSearch {
 public:
  virtual ~SettingSearch() = default;

  /// None when the search is over.
  virtual std::optional<Ask> next() = 0;
  /// The rating of what next() asked for last; none where that student diverged, which is worse than any.
  virtual void tell(const std::optional<Rating>& rating) = 0;
  /// Trials that will not be asked for again, so that whoever runs them can let them go.
  [[nodiscard]] virtual bool is_over_for(std::size_t trial) const = 0;
  /// Of the trials that ran all epochs, the best; among equals the first asked for. Throws Error(run_failed) where all
  /// of them diverged.
  [[nodiscard]] virtual Ask best() const = 0;
};

/// Every setting of the grid, all `epochs`.
std::unique_ptr<SettingSearch> grid_search(const SettingGrid& grid, std::int64_t epochs, bool has_labels);
/// "Tuned KD": alpha at T = 1 first, then T at the best alpha.
std::unique_ptr<SettingSearch> staged_search(const SettingGrid& grid, std::int64_t epochs, bool has_labels);

/// The tuner: a few settings that between them suit most pairs, then, one by one, the settings that promise most over
/// the best so far: expected improvement (Jones et al. 1998) under a Gaussian process over (log T, alpha). Asks for
/// automatic_budget() trials at most, all `epochs` each, and for fewer where nothing promises any more.
std::unique_ptr<SettingSearch> automatic_search(const SettingGrid& grid, std::int64_t epochs, bool has_labels);

/// 13% of the grid, but never fewer than what the search begins with and one more: 7 of 55 settings with labels, 4 of
/// 11 without.
std::int64_t automatic_budget(const SettingGrid& grid, bool has_labels);

}  // namespace headstart::learn
