// The one error type of the project. Base knows neither tensors nor sockets.
#pragma once

#include <stdexcept>
#include <string>

namespace headstart {

/// What kind of thing went wrong. The value is the exit code of a program that ends because of it.
enum class Errc : int {
  internal = 1,       ///< A broken promise of the program itself: a bug.
  usage = 2,          ///< Command line or configuration: unknown key, value out of range, a needed setting missing.
  data = 3,           ///< A data file, manifest or model file is missing, damaged or does not fit.
  storage = 4,        ///< The run's folder exists already, cannot be written, or the disk is full.
  network = 5,        ///< Port in use, server not reachable, connection lost.
  rejected = 6,       ///< The peer refused: name taken, other protocol version, other model, no samples.
  protocol = 7,       ///< The peer broke the protocol: a frame or message that cannot be what it says.
  run_failed = 8,     ///< The run could not go on: clients were lost, training diverged.
  peer_closed = 9,    ///< The peer closed the connection in order.
  interrupted = 130,  ///< Stopped by the user (Ctrl-C, SIGTERM).
};

/// Thrown for whatever ends the thing under way: a session (caught at its boundary, costs that client only)
/// or the program (caught in main). What does not end anything is a return value instead, e.g. Rejection.
class Error : public std::runtime_error {
 public:
  Error(Errc code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] Errc code() const noexcept { return code_; }
  [[nodiscard]] int exit_code() const noexcept { return static_cast<int>(code_); }

 private:
  Errc code_;
};

/// The table of exit codes as `--help` prints it.
std::string exit_code_help();

}  // namespace headstart
