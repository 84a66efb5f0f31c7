// Everything a run leaves behind, in one folder that no other run overwrites.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/config/server_config.hpp"
#include "server/operations/audit_log.hpp"
#include "server/record/run_events.hpp"
#include "shared/base/files.hpp"
#include "shared/base/journal.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::server {

///   run.json            resolved configuration, versions, seeds, what bounds reproducibility
///   journal             what the run has achieved, for a server that is started again
///   rounds.jsonl        one line a round
///   audit.jsonl         who came, what was sent to whom and what came back
///   summary.json        when the run is over: how it went, rounds, seconds and bytes to each target
///   interrupted.json    the same, and why, where it ended early; gone when it was resumed and finished
///   checkpoints/        round-00012.safetensors, the newest as configured
///   best.safetensors    the best global model by the validation source
///   final.safetensors   the last global model
///   taken-back-1/       what came after the round that the operator went back to, the first time
///   models/, staging/   until the run is finished: the clients' pre-trained models, results in flight
class RunFolder {
 public:
  /// Makes the folder, or opens that of an earlier run, to go on with it. Throws Error(storage): the folder holds
  /// something else or a finished run of which parts are missing, another process is at work in it, it cannot be made.
  /// `wall_clock`: for the audit log.
  RunFolder(const std::filesystem::path& folder, CheckpointOptions checkpoints, WallClock wall_clock);

  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }
  [[nodiscard]] std::filesystem::path staging() const { return folder_ / "staging"; }
  [[nodiscard]] std::filesystem::path model_of(const std::string& client) const;
  /// Of the distilled seed. No client's name begins with a dot.
  [[nodiscard]] std::filesystem::path seed_file() const { return folder_ / "models/.seed.safetensors"; }
  /// Of a seed that tuning may choose, by the digest of its weights.
  [[nodiscard]] std::filesystem::path trial_file(const std::string& digest) const {
    return folder_ / "models" / (".trial-" + digest + ".safetensors");
  }
  /// An earlier server finished the run and told its clients: nothing is left to do.
  [[nodiscard]] bool is_over() const;
  /// summary.json of a run that is finished, whose clients may not all know; null: it is not finished.
  [[nodiscard]] nlohmann::json earlier_summary() const;
  [[nodiscard]] Journal& journal() { return *journal_; }
  /// Throws as Journal::append() does.
  void write_down(const RunEvent& event) { journal_->append(json_of(event)); }
  [[nodiscard]] AuditLog& audit() { return *audit_; }

  /// run.json of the run that is being resumed; null for a new one.
  [[nodiscard]] nlohmann::json earlier_run() const;
  void write_run(const nlohmann::json& run);
  /// The files port, where clients dial, and admin-port.
  void write_port(std::uint16_t port);
  void write_admin_port(std::uint16_t port);
  void append_round(const RoundRecord& record) { rounds_->append(to_json(record)); }
  /// Replaces all lines.
  void rewrite_rounds(const std::vector<RoundRecord>& records);
  void write_summary(const nlohmann::json& summary);
  /// The same of a run that ended early, as interrupted.json.
  void write_interrupted(const nlohmann::json& summary);
  /// Keeps the round's model where the configuration wants it, and says whether. Any one thread.
  bool checkpoint(std::int64_t round, const wire::PackedState& model,
                  const std::map<std::string, std::string>& metadata);
  /// Removes checkpoints that are older than the configuration keeps.
  void prune_checkpoints();
  /// Removes those of later rounds, which will be gone through again; -1: all.
  void discard_checkpoints_after(std::int64_t round);
  [[nodiscard]] bool has_checkpoint(std::int64_t round) const;
  /// Keeps what going back to `round` will remove in a new folder, and returns its name: later checkpoints, the lines
  /// of all rounds, what a run leaves at its end, and the best model where it is a later one. Throws Error(storage).
  std::string keep_aside(std::int64_t round, bool is_best_later);
  /// Removes what a run leaves at its end, as it is to go on; for what was kept aside and journaled.
  void reopen(bool is_best_later);
  /// Throws Error(data) where the file is not there, is damaged, or is not the model of this digest.
  [[nodiscard]] wire::PackedState load_checkpoint(std::int64_t round, const std::string& digest) const;
  void write_best(const wire::PackedState& model, const std::map<std::string, std::string>& metadata);
  void write_final(const wire::PackedState& model, const std::map<std::string, std::string>& metadata);
  /// Removes models/ and staging/: what silos sent does not outlive the run.
  void discard_temporary();

 private:
  [[nodiscard]] std::filesystem::path checkpoint_of(std::int64_t round) const;
  /// By falling round.
  [[nodiscard]] std::vector<std::filesystem::path> kept_checkpoints() const;
  /// What a server that was killed while writing left half-written.
  void discard_partial_files();
  std::filesystem::path folder_;
  CheckpointOptions checkpoints_;
  std::unique_ptr<Journal> journal_;
  std::optional<LineFile> rounds_;
  std::optional<AuditLog> audit_;
};

}  // namespace headstart::server
