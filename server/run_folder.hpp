// Everything a run leaves behind, in one folder that is made new and never overwritten.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "server/config.hpp"
#include "shared/base/files.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::server {

///   run.json            resolved configuration, versions, seeds, what bounds reproducibility
///   rounds.jsonl        one line a round
///   summary.json        when the run is over: how it went, rounds, seconds and bytes to each target
///   interrupted.json    the same, and why, where it ended early
///   checkpoints/        round-00012.safetensors, the newest as configured
///   final.safetensors   the last global model
///   models/, staging/   while the run lasts: the clients' pre-trained models, results in flight
class RunFolder {
 public:
  /// Throws Error(storage): the folder exists or cannot be made.
  RunFolder(const std::filesystem::path& folder, CheckpointOptions checkpoints);

  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }
  [[nodiscard]] std::filesystem::path staging() const { return folder_ / "staging"; }
  [[nodiscard]] std::filesystem::path model_of(const std::string& client) const;

  void write_run(const nlohmann::json& run);
  void write_port(std::uint16_t port);
  void append_round(const nlohmann::json& line) { rounds_.append(line); }
  void write_summary(const nlohmann::json& summary);
  /// The same of a run that ended early, as interrupted.json.
  void write_interrupted(const nlohmann::json& summary);
  /// Keeps the round's model where the configuration wants it and removes what is too old. Any one thread.
  void checkpoint(std::int64_t round, const wire::PackedState& model);
  void write_final(const wire::PackedState& model, const std::map<std::string, std::string>& metadata);
  /// Removes models/ and staging/: what silos sent does not outlive the run.
  void discard_temporary();

 private:
  std::filesystem::path folder_;
  CheckpointOptions checkpoints_;
  LineFile rounds_;
  std::vector<std::filesystem::path> kept_;
};

}  // namespace headstart::server
