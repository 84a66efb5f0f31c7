#include "shared/worker_process/worker_command.hpp"

namespace headstart::worker_process {

void declare_fields(Fields& fields, const std::string& prefix, WorkerCommand& command) {
  fields.group(prefix, "A process of this silo's own that trains in place of the client");
  fields.text(prefix + ".command", command.command,
              "Command that trains and measures, run by /bin/sh; the client hands it the run's tasks. Empty: the "
              "client trains by itself.");
  fields.number(prefix + ".start", command.start_limit,
                "Seconds that the worker has until it says hello, and to take up the terms of a run.", {0.1, 1e6});
  fields.number(prefix + ".silence", command.silence_limit,
                "Seconds for which a worker at work may report nothing; after that it is started again.", {0.1, 1e6});
  fields.integer(prefix + ".restarts", command.max_restarts,
                 "How often in a row, without a task done, a worker that died, hung or broke the protocol is started "
                 "again before its task counts as failed.",
                 {0, 1000});
}

}  // namespace headstart::worker_process
