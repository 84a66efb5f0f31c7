// Which process does the work of a client, and how long it may take.
#pragma once

#include <cstdint>
#include <string>

#include "shared/base/fields.hpp"

namespace headstart::worker_process {

struct WorkerCommand {
  std::string command;
  double start_limit = 60;     ///< Seconds until `hello`, and from `join` to `joined`.
  double silence_limit = 600;  ///< Seconds without a frame while a task is under way.
  std::int64_t max_restarts = 3;
};
/// "worker.command", ... under `prefix`.
void declare_fields(Fields& fields, const std::string& prefix, WorkerCommand& command);

}  // namespace headstart::worker_process
