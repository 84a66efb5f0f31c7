#include "shared/learn/setting_search.hpp"

#include <algorithm>
#include <utility>

#include "shared/base/error.hpp"

namespace headstart::learn {

void declare_fields(Fields& fields, const std::string& prefix, SettingGrid& grid) {
  fields.numbers(prefix + ".temperatures", grid.temperatures, "Temperatures that a search tries.",
                 {.min = 0.05, .max = 100});
  fields.numbers(prefix + ".alphas", grid.alphas, "Weights of the distillation term that a search tries.",
                 {.min = 0, .max = 1});
}

bool is_better(const Rating& candidate, const Rating& best) {
  return candidate.accuracy > best.accuracy || (candidate.accuracy == best.accuracy && candidate.loss < best.loss);
}

Rating rating_of(const Evaluation& evaluation) { return {evaluation.accuracy(), evaluation.loss()}; }

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

void require_settings(const SettingGrid& grid) {
  if (grid.temperatures.empty() || grid.alphas.empty()) {
    throw Error(Errc::usage,
                "a search needs at least one temperature and one alpha; see grid.temperatures and "
                "grid.alphas");
  }
}

}  // namespace

std::unique_ptr<SettingSearch> grid_search(const SettingGrid& grid, std::int64_t epochs, bool has_labels) {
  require_settings(grid);
  const std::vector<double> any_alpha = {KdSetting().alpha};
  return std::make_unique<StagedSearch>(settings_of(grid.temperatures, has_labels ? grid.alphas : any_alpha), epochs);
}

std::unique_ptr<SettingSearch> staged_search(const SettingGrid& grid, std::int64_t epochs, bool has_labels) {
  require_settings(grid);
  return std::make_unique<TunedSearch>(grid, epochs, has_labels);
}

}  // namespace headstart::learn
