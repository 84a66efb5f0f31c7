#include "shared/learn/tune/tune.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

/// One student under way with its setting.
struct Trial {
  std::unique_ptr<Model> student;
  std::unique_ptr<Distiller> distiller;
};

class Trials {
 public:
  Trials(SettingSearch& search, const TuneProblem& problem, const ProgressCallback& progress, std::stop_token stop)
      : search_(search), problem_(problem), progress_(progress), stop_(std::move(stop)) {}

  void run(const Ask& ask) {
    if (ask.trial == records_.size()) begin(ask.setting);
    TrialRecord& record = records_.at(ask.trial);
    const auto found = trials_.find(ask.trial);
    record.rating = found == trials_.end() ? std::nullopt : advance(found->second, record, ask.epochs);
    search_.tell(record.rating);
    if (!record.rating) trials_.erase(ask.trial);
    let_go();
  }

  TuneResult finish() && {
    const Ask best = search_.best();
    TuneResult result{std::move(trials_.at(best.trial).student), best.setting, std::move(records_), 0};
    for (const TrialRecord& record : result.trials) result.epochs += record.epochs;
    return result;
  }

 private:
  void begin(const KdSetting& setting) {
    if (!guidance_.contains(setting.temperature)) {
      guidance_[setting.temperature] = problem_.guidance(setting.temperature);
    }
    DistillOptions options = problem_.options;
    options.temperature = setting.temperature;
    options.alpha = setting.alpha;
    auto student = problem_.make_student();
    auto distiller = std::make_unique<Distiller>(*student, problem_.transfer, guidance_.at(setting.temperature),
                                                 options, problem_.seed);
    trials_.emplace(records_.size(), Trial{std::move(student), std::move(distiller)});
    records_.push_back({.setting = setting});
  }

  std::optional<Rating> advance(Trial& trial, TrialRecord& record, std::int64_t epochs) {
    const auto note = [&](std::int64_t epoch) {
      record.epochs = epoch;
      if (problem_.rates_epochs) record.curve.push_back(rating_of(problem_.rate(*trial.student)));
    };
    try {
      trial.distiller->advance(epochs - trial.distiller->num_epochs(), progress_, stop_, note);
    } catch (const Error& error) {
      if (error.code() != Errc::run_failed) throw;
      return std::nullopt;  // diverged
    }
    const bool is_finished = epochs == problem_.options.epochs;
    if (is_finished && problem_.measure) record.measured = problem_.measure(*trial.student);
    return problem_.rates_epochs ? record.curve.back() : rating_of(problem_.rate(*trial.student));
  }

  void let_go() {
    std::optional<std::size_t> best;
    for (const auto& [number, trial] : trials_) {
      if (trial.distiller->num_epochs() < problem_.options.epochs) continue;
      if (!best || is_better(*records_[number].rating, *records_[*best].rating)) best = number;
    }
    std::erase_if(trials_, [&](const auto& entry) { return entry.first != best && search_.is_over_for(entry.first); });
  }

  SettingSearch& search_;
  const TuneProblem& problem_;
  const ProgressCallback& progress_;
  std::stop_token stop_;
  std::map<double, Guidance> guidance_;
  std::map<std::size_t, Trial> trials_;
  std::vector<TrialRecord> records_;
};

}  // namespace

TuneResult tune(SettingSearch& search, const TuneProblem& problem, const ProgressCallback& progress,
                std::stop_token stop) {
  Trials trials(search, problem, progress, std::move(stop));
  while (const std::optional<Ask> ask = search.next()) trials.run(*ask);
  return std::move(trials).finish();
}

}  // namespace headstart::learn
