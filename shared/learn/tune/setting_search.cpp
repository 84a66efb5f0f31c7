#include "shared/learn/tune/setting_search.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/tune/gaussian_process.hpp"

namespace headstart::learn {

void declare_fields(Fields& fields, const std::string& prefix, SettingGrid& grid) {
  fields.group(prefix, "Temperatures and alphas that a search tries");
  fields.numbers(prefix + ".temperatures", grid.temperatures, "Temperatures that a search tries.",
                 {.min = 0.05, .max = 100});
  fields.numbers(prefix + ".alphas", grid.alphas, "Weights of the distillation term that a search tries.",
                 {.min = 0, .max = 1});
}

bool is_better(const Rating& candidate, const Rating& best) {
  const double gain = candidate.deciding() - best.deciding();
  return gain > 0 || (gain == 0 && candidate.loss < best.loss);
}

Rating rating_of(const Evaluation& evaluation, const Metric& metric) {
  Rating rating{evaluation.accuracy(), evaluation.loss()};
  if (!metric.is_accuracy()) rating.score = metric.score(evaluation);
  return rating;
}

namespace {

/// Trials in stages, each a list of settings, every trial with all epochs.
class StagedSearch : public SettingSearch {
 public:
  StagedSearch(std::vector<KdSetting> first_stage, std::int64_t epochs) : epochs_(epochs) { plan(first_stage); }

  std::optional<Ask> next() override {
    if (asks_.size() == ratings_.size()) plan(next_stage());
    if (asks_.size() == ratings_.size()) return std::nullopt;
    return asks_[ratings_.size()];
  }
  void tell(const std::optional<Rating>& rating) override { ratings_.push_back(rating); }
  [[nodiscard]] bool is_over_for(std::size_t trial) const override { return trial < ratings_.size(); }
  [[nodiscard]] Ask best() const override {
    const Ask* best = nullptr;
    for (std::size_t i = 0; i < ratings_.size(); ++i) {
      if (ratings_[i] && (best == nullptr || is_better(*ratings_[i], *ratings_[best->trial]))) best = &asks_[i];
    }
    if (best == nullptr) throw Error(Errc::run_failed, "no setting of temperature and alpha gave a finite loss");
    return *best;
  }

 protected:
  /// Settings to try after those so far; empty: no more.
  virtual std::vector<KdSetting> next_stage() { return {}; }
  [[nodiscard]] const std::vector<Ask>& asks() const { return asks_; }
  [[nodiscard]] const std::vector<std::optional<Rating>>& ratings() const { return ratings_; }

 private:
  /// A setting that was tried is not tried again.
  void plan(const std::vector<KdSetting>& stage) {
    for (const KdSetting& setting : stage) {
      if (std::ranges::find(asks_, setting, &Ask::setting) != asks_.end()) continue;
      asks_.push_back({asks_.size(), setting, epochs_});
    }
  }

  std::int64_t epochs_;
  std::vector<Ask> asks_;
  std::vector<std::optional<Rating>> ratings_;  ///< Of the first asks.
};

std::vector<KdSetting> settings_of(const std::vector<double>& temperatures, const std::vector<double>& alphas) {
  std::vector<KdSetting> settings;
  for (const double temperature : temperatures) {
    for (const double alpha : alphas) settings.push_back({temperature, alpha});
  }
  return settings;
}

void require_settings(const SettingGrid& grid) {
  if (grid.temperatures.empty() || grid.alphas.empty()) {
    throw Error(Errc::usage,
                "a search needs at least one temperature and one alpha; see grid.temperatures and "
                "grid.alphas");
  }
}

class TunedSearch final : public StagedSearch {
 public:
  TunedSearch(const SettingGrid& grid, std::int64_t epochs, bool has_labels)
      : StagedSearch(has_labels ? settings_of({1}, grid.alphas) : std::vector<KdSetting>{{}}, epochs), grid_(grid) {}

 protected:
  std::vector<KdSetting> next_stage() override {
    if (std::exchange(is_second_, true)) return {};
    return settings_of(grid_.temperatures, {best().setting.alpha});
  }

 private:
  SettingGrid grid_;
  bool is_second_ = false;
};

/// What the tuner begins with: between them they come near the best of most pairs. Few labels and a strong teacher,
/// labels and a weak one, the middle. With labels: what a greedy choice from the grids of 18 pairs takes
/// (label-dirichlet and specialized, seeds 11 and 12); without: chosen by hand.
const std::vector<KdSetting> opening_with_labels = {{0.1, 0.25}, {2.5, 0.25}, {0.1, 0.9}, {1, 0.5}};
const std::vector<KdSetting> opening_without_labels = {{1, 0.5}, {3, 0.5}, {0.5, 0.5}};

std::vector<KdSetting> all_settings(const SettingGrid& grid, bool has_labels) {
  require_settings(grid);
  return settings_of(grid.temperatures, has_labels ? grid.alphas : std::vector<double>{KdSetting().alpha});
}

class AutomaticSearch final : public StagedSearch {
 public:
  AutomaticSearch(const SettingGrid& grid, std::vector<KdSetting> settings, std::int64_t epochs, bool has_labels)
      : StagedSearch(opening(settings, has_labels), epochs),
        settings_(std::move(settings)),
        budget_(automatic_budget(grid, has_labels)) {}

 protected:
  std::vector<KdSetting> next_stage() override {
    if (std::ssize(asks()) >= budget_) return {};
    std::vector<double> scores;
    std::vector<KdSetting> tried;
    for (std::size_t i = 0; i < ratings().size(); ++i) {
      // A student that diverged knows nothing.
      scores.push_back(ratings()[i] ? ratings()[i]->deciding() : 0);
      tried.push_back(asks()[i].setting);
    }
    const Posterior posterior =
        posterior_of(response, places(tried), torch::tensor(scores, torch::kFloat64), places(settings_));
    const Tensor improvement = expected_improvement(posterior, *std::ranges::max_element(scores));
    std::optional<std::size_t> best;
    double most = least_improvement;
    for (std::size_t i = 0; i < settings_.size(); ++i) {
      const double promised = improvement[static_cast<std::int64_t>(i)].item<double>();
      if (promised <= most || std::ranges::find(tried, settings_[i]) != tried.end()) continue;
      most = promised;
      best = i;
    }
    if (!best) return {};
    return {settings_[*best]};
  }

 private:
  /// How far apart settings must be for their accuracies to be strangers: T by a factor of about 3, alpha by 0.3.
  static constexpr double log_temperature_scale = 1.0;
  static constexpr double alpha_scale = 0.3;
  /// Validation accuracy over the settings of one pair, and how much of it is chance.
  static constexpr GaussianProcess response{.deviation = 0.15, .noise = 0.01};
  /// Of accuracy: a trial that promises less is not worth its cost.
  static constexpr double least_improvement = 1e-4;

  static Tensor places(const std::vector<KdSetting>& settings) {
    const Tensor places = torch::empty({std::ssize(settings), 2}, torch::kFloat64);
    for (std::size_t i = 0; i < settings.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      places[row][0] = std::log(settings[i].temperature) / log_temperature_scale;
      places[row][1] = settings[i].alpha / alpha_scale;
    }
    return places;
  }

  /// The settings of the grid next to those that a search begins with.
  static std::vector<KdSetting> opening(const std::vector<KdSetting>& settings, bool has_labels) {
    std::vector<KdSetting> chosen;
    const Tensor all = places(settings);
    for (const KdSetting& wanted : has_labels ? opening_with_labels : opening_without_labels) {
      const Tensor distance = (all - places({wanted})).square().sum(1);
      chosen.push_back(settings[static_cast<std::size_t>(distance.argmin().item<std::int64_t>())]);
    }
    return chosen;
  }

  std::vector<KdSetting> settings_;
  std::int64_t budget_;
};

}  // namespace

std::unique_ptr<SettingSearch> grid_search(const SettingGrid& grid, std::int64_t epochs, bool has_labels) {
  return std::make_unique<StagedSearch>(all_settings(grid, has_labels), epochs);
}

std::unique_ptr<SettingSearch> staged_search(const SettingGrid& grid, std::int64_t epochs, bool has_labels) {
  require_settings(grid);
  return std::make_unique<TunedSearch>(grid, epochs, has_labels);
}

std::unique_ptr<SettingSearch> automatic_search(const SettingGrid& grid, std::int64_t epochs, bool has_labels) {
  return std::make_unique<AutomaticSearch>(grid, all_settings(grid, has_labels), epochs, has_labels);
}

std::int64_t automatic_budget(const SettingGrid& grid, bool has_labels) {
  constexpr double share = 0.13;
  const auto num_settings = static_cast<double>(all_settings(grid, has_labels).size());
  const std::int64_t fewest = std::ssize(has_labels ? opening_with_labels : opening_without_labels) + 1;
  return std::max(fewest, static_cast<std::int64_t>(std::floor(share * num_settings)));
}

}  // namespace headstart::learn
