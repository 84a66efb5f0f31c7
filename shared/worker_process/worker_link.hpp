// A worker process that is kept running: started, told the terms, asked for tasks, and started again within limits.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <istream>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "shared/base/error.hpp"
#include "shared/learn/core/progress.hpp"
#include "shared/worker_process/child_process.hpp"
#include "shared/worker_process/frame.hpp"
#include "shared/worker_process/worker_command.hpp"

namespace headstart::worker_process {

/// The worker could not do what it was asked for within its restarts.
class WorkerFailed : public Error {
 public:
  explicit WorkerFailed(const std::string& words) : Error(Errc::run_failed, words) {}
};

/// What a task of the worker's kinds is sent with. The states outlive the request.
struct WorkerRequest {
  struct Part {
    std::string name;   ///< "model".
    std::string owner;  ///< The client that trained it; empty: the server made it.
    const wire::PackedState* state = nullptr;
  };
  std::string kind;
  nlohmann::json settings = nlohmann::json::object();
  std::vector<Part> inputs;
};

/// All calls from one thread at a time.
class WorkerLink {
 public:
  /// Reads the body of a result, and says what it thinks of the figures. Throws Error(protocol) where they are not
  /// those of the kind.
  using Reader = std::function<void(std::istream&, const FrameHead&)>;

  /// Starts the worker and waits for its `hello`. Throws Error(usage) where it cannot be started, ends, stays silent,
  /// speaks another version, or cannot do the task `needed_kind`.
  WorkerLink(WorkerCommand command, std::string needed_kind);
  ~WorkerLink();

  /// The kinds of task that the worker can do.
  [[nodiscard]] const std::vector<std::string>& kinds() const { return kinds_; }
  /// What it calls itself.
  [[nodiscard]] const std::string& software() const { return software_; }

  /// Tells it these terms, and returns its `joined`, of which `read` has thought. Throws Error(data) with the worker's
  /// own words where it refuses them, WorkerFailed.
  nlohmann::json join(nlohmann::json header, const Reader& read);

  /// Has it do a task: its figures, and what `read` took of the body. Started again where it dies, hangs or breaks the
  /// protocol; it then hears the terms again. Throws WorkerFailed when the restarts are spent, Error(interrupted) where
  /// `stop` is requested, and an Error of the cause that the worker names where it fails the task.
  nlohmann::json ask(const WorkerRequest& request, const Reader& read, const learn::ProgressCallback& progress,
                     const std::stop_token& stop);

 private:
  void start();
  void greet();
  void tell_terms();
  void send(const nlohmann::json& header, const std::vector<WorkerRequest::Part>& inputs = {});
  /// The next frame's head. Throws ProcessSilent where none comes for `patience`, Error(interrupted) on a stop.
  FrameHead next(std::chrono::milliseconds patience, const std::stop_token& stop = {});
  nlohmann::json attempt(const WorkerRequest& request, const Reader& read, const learn::ProgressCallback& progress,
                         const std::stop_token& stop);
  /// Has the worker leave the task; ends it where it does not within the time for that.
  void abandon(std::int64_t task);
  /// Ends the process and returns a sentence on it: how, and what it printed last.
  std::string post_mortem(const std::string& reason);
  /// Runs `attempt` until it succeeds or the restarts are spent.
  template <class Attempt>
  auto with_restarts(Attempt attempt);

  WorkerCommand command_;
  std::string needed_kind_;
  std::unique_ptr<ChildProcess> process_;
  std::unique_ptr<ProcessBuffer> buffer_;
  std::unique_ptr<std::istream> stream_;
  std::vector<std::string> kinds_;
  std::string software_;
  nlohmann::json terms_;  ///< The `join` that holds; null: none yet.
  Reader read_joined_;
  nlohmann::json joined_;
  bool has_terms_ = false;         ///< The process that runs has heard them.
  std::int64_t num_failures_ = 0;  ///< In a row.
  std::int64_t last_task_ = 0;
};

}  // namespace headstart::worker_process
