// What the commands of all studies have in common.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <utility>

#include <CLI/CLI.hpp>

#include "experiments/lab/participants.hpp"
#include "experiments/lab/study_runner.hpp"
#include "shared/base/clock.hpp"

namespace headstart::lab {

struct StudyOptions {
  std::string file;
  std::string share;
  std::string models;
  std::int64_t num_jobs = 0;
  std::string log = "info";
};
/// `shared_out`: what a share is a part of, for the help ("the pairs").
void add_study_options(CLI::App& app, StudyOptions& options, const std::string& shared_out);

/// Where pre-trained models are kept: `models`, or beside the study's file.
std::filesystem::path models_beside(const std::filesystem::path& file, const std::string& models);

struct StudyParts {
  learn::DataSource source;
  std::function<nlohmann::json(const StudyData&)> describe;
  std::function<void(const StudyData&, StudyStore&, const StudyRunOptions&, StudyObserver&, std::stop_token)> run;
  std::function<std::string(const StudyStore&)> summarise;
};
/// Runs a study to its end, as a command; returns the exit status. Throws as its parts do.
int run_study(const StudyOptions& options, const StudyParts& parts);

/// The same of a kind of study with check() and description_of() of its own.
template <class Study>
int run_study(const StudyOptions& options, const Study& study,
              void (*run)(const Study&, const StudyData&, StudyStore&, const StudyRunOptions&, StudyObserver&,
                          const Clock&, std::stop_token),
              std::string (*summarise)(const StudyStore&)) {
  check(study);
  return run_study(options, {.source = study.settings.data,
                             .describe = [&study](const StudyData& data) { return description_of(study, data); },
                             .run =
                                 [&study, run](const StudyData& data, StudyStore& store, const StudyRunOptions& how,
                                               StudyObserver& observer, std::stop_token stop) {
                                   run(study, data, store, how, observer, std::chrono::steady_clock::now,
                                       std::move(stop));
                                 },
                             .summarise = summarise});
}

}  // namespace headstart::lab
