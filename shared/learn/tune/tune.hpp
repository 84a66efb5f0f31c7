// Runs what a search of settings asks for: students distilled from cached teacher logits, judged on validation data.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/tune/setting_search.hpp"

namespace headstart::learn {

/// What all trials of a search share: they differ in temperature and alpha alone, down to the order of samples.
struct TuneProblem {
  std::function<std::unique_ptr<Model>()> make_student;  ///< As every trial begins.
  Samples transfer;
  std::function<Guidance(double temperature)> guidance;  ///< Asked for once a temperature.
  DistillOptions options;                                ///< Its temperature and alpha are replaced.
  Seed seed;
  std::function<Evaluation(Model&)> rate;  ///< By validation data.
  std::function<double(Model&)> measure =
      {};                     ///< Of each trial that ran all epochs; recorded, and nothing decided by it.
  bool rates_epochs = false;  ///< Record the rating after each epoch too.
};

struct TrialRecord {
  KdSetting setting;
  std::int64_t epochs = 0;       ///< Run.
  std::optional<Rating> rating;  ///< The last one; none where the student diverged.
  std::optional<double> measured;
  std::vector<Rating> curve;  ///< After each epoch, where asked for.
};

struct TuneResult {
  std::unique_ptr<Model> student;  ///< Of the best trial, after all its epochs.
  KdSetting setting;
  std::vector<TrialRecord> trials;  ///< In the order of first asking.
  std::int64_t epochs = 0;          ///< Of all trials together: what the search cost.
};

/// Runs `search` to its end. Keeps the students of trials that may still be asked for, and the best.
/// Throws Error(run_failed) where every setting diverged, Error(interrupted) when `stop` is requested, or as Distiller.
TuneResult tune(SettingSearch& search, const TuneProblem& problem, const ProgressCallback& progress = {},
                std::stop_token stop = {});

}  // namespace headstart::learn
