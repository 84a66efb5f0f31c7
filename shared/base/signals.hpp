// The signals by which a program is told to stop, and the one that must not end it.
#pragma once

#include <vector>

namespace headstart {

/// SIGINT and SIGTERM; SIGHUP too, which the end of a terminal or an SSH session sends, unless it was ignored as the
/// program began: nohup promises that the program outlives its terminal.
std::vector<int> stop_signals();

/// Has a write to a pipe that nobody reads any more fail, in place of ending the process (SIGPIPE).
void outlive_broken_pipes();

}  // namespace headstart
