// A worker whose silo keeps the models of the run, and a line a round.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "client/worker.hpp"

namespace headstart::client {

/// Does the task `keep`; hands all others on to the worker that it has. What it keeps of a run lies in a folder of its
/// own, named by the run's terms: terms.json, rounds.jsonl, last.safetensors, best.safetensors (client/README.md). A
/// disk that is full or cannot be written costs the files and a warning, not the round.
class KeepingWorker final : public Worker {
 public:
  /// Throws Error(storage) where the folder cannot be made.
  KeepingWorker(std::unique_ptr<Worker> worker, std::filesystem::path folder);

  [[nodiscard]] std::vector<std::string> kinds() const override;
  wire::Join join(const plan::Terms& terms) override;
  [[nodiscard]] std::vector<std::string> remarks() const override { return worker_->remarks(); }
  learn::Schema global_schema() override { return worker_->global_schema(); }
  learn::Schema schema_of(const learn::ModelSpec& spec) override { return worker_->schema_of(spec); }
  [[nodiscard]] std::string describe(const Assignment& assignment) const override;
  TaskResult perform(const Assignment& assignment, const TaskContext& context) override;

 private:
  void keep(const Assignment& assignment, const TaskContext& context);
  /// That of the run which is at `round`. Throws Error(storage).
  void open_run_folder(std::int64_t round);
  /// A line in the log and in rounds.jsonl.
  void note(const plan::KeepSettings& settings, const std::string& digest, const nlohmann::json& held_out);
  /// Accuracy and loss of the model on the held-out samples; null where the worker cannot evaluate, or there are none.
  nlohmann::json measured(const Assignment& assignment, const TaskContext& context);

  std::unique_ptr<Worker> worker_;
  std::filesystem::path folder_;
  std::filesystem::path run_folder_;  ///< Of the run that was joined; empty before its first model.
  plan::Terms terms_;
  plan::Terms terms_of_files_;  ///< With the mean and deviation that tasks bring.
};

}  // namespace headstart::client
