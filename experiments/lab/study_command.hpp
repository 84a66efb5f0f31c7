// What the commands of all studies have in common.
#pragma once

#include <functional>
#include <string>

#include <CLI/CLI.hpp>

#include "experiments/lab/participants.hpp"
#include "experiments/lab/study_runner.hpp"

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

}  // namespace headstart::lab
