// What a person or a log may want to see of a run. The federation calls it; terminals and tests implement it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/operations/phase.hpp"
#include "server/operations/refusal_code.hpp"

namespace headstart::server {

struct RoundView {
  std::int64_t round = 0;
  std::int64_t num_rounds = 0;
  std::optional<double> accuracy;  ///< Central, 0..1.
  std::optional<double> loss;
  std::optional<double> federated_accuracy;
  double seconds = 0;           ///< Since the run's first step.
  std::uint64_t num_bytes = 0;  ///< Of this round, both ways.
  std::size_t num_updates = 0;
  double next_target = 0;  ///< 0: none left.
  std::string validation =
      {};  ///< By the validation source, where validation.metric is not accuracy: "recall:1 0.8125".
};

/// Called on the federation's executor. Default: nothing.
class RunObserver {
 public:
  virtual ~RunObserver() = default;
  /// The lobby changed.
  virtual void on_lobby(const std::vector<std::string>& /*present*/, std::size_t /*expected*/) {}
  /// A phase begins that has `num_parts` progress reports to wait for.
  virtual void on_phase(const Phase& /*phase*/, std::size_t /*num_parts*/) {}
  /// `part` (a client, "server") has done so many of its samples.
  virtual void on_progress(const std::string& /*part*/, std::uint64_t /*done*/, std::uint64_t /*total*/) {}
  virtual void on_round(const RoundView& /*round*/) {}
  /// A peer was not admitted.
  virtual void on_refusal(RefusalCode /*code*/) {}
  /// A sentence worth a line.
  virtual void on_note(const std::string& /*text*/) {}

  // The records of the run, as its folder has them (server/run_files.md).

  /// run.json, when it is written.
  virtual void on_run(const nlohmann::json& /*run*/) {}
  /// What round 1 starts from is made: `start_used` and `before_rounds` of summary.json.
  virtual void on_start(const nlohmann::json& /*start*/) {}
  /// A line of rounds.jsonl: in order of rounds, those of an earlier server first.
  virtual void on_line(const nlohmann::json& /*line*/) {}
  /// summary.json, or interrupted.json where `is_failure`.
  virtual void on_end(const nlohmann::json& /*summary*/, bool /*is_failure*/) {}
};

}  // namespace headstart::server
