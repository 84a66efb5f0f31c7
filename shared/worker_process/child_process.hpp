// A command of the silo's people that runs beside the client, with a socket to it.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <streambuf>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "shared/base/error.hpp"

namespace headstart::worker_process {

/// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    close();
    number_ = std::exchange(other.number_, -1);
    return *this;
  }
  [[nodiscard]] int number() const { return number_; }
  void close();

 private:
  int number_ = -1;
};

/// The process says nothing more, or nothing for too long.
class ProcessSilent : public Error {
 public:
  explicit ProcessSilent(const std::string& words) : Error(Errc::run_failed, words) {}
};

/// One run of the command by /bin/sh, in a process group of its own, which is killed with this object. What it prints
/// goes to the log. Used from one thread at a time.
class ChildProcess {
 public:
  /// Starts `command`. HEADSTART_WORKER_FD in its environment has its end of the socket. Throws Error(usage) where the
  /// machine cannot start a process.
  explicit ChildProcess(const std::string& command);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  /// Writes all parts, one behind the other. Throws ProcessSilent where the process takes nothing for `patience`, or
  /// has ended.
  void send(std::span<const std::span<const std::byte>> parts, std::chrono::milliseconds patience);
  /// Waits until there is something to read. False where `patience` is over, or `stop` is requested meanwhile.
  bool wait_readable(std::chrono::milliseconds patience, const std::stop_token& stop = {}) const;
  /// At least one byte, at most room for `to`; 0 at the end. Throws ProcessSilent where nothing comes for `patience`.
  std::size_t read(std::span<std::byte> to, std::chrono::milliseconds patience);

  /// Closes the socket, waits for the process to end and kills its group where it does not within `grace`. Returns how
  /// it ended: "exit status 1", "killed by signal 9 (Killed)".
  std::string end(std::chrono::milliseconds grace);
  /// The last lines that it printed, oldest first. Complete after end().
  [[nodiscard]] std::vector<std::string> last_lines() const;

 private:
  void copy_output(const Descriptor& output);
  void note_line(std::string_view line);

  Descriptor socket_;
  Descriptor over_;  ///< Readable once the process has ended.
  pid_t pid_ = -1;
  std::string ending_;  ///< Once it has ended.
  mutable std::mutex mutex_;
  std::deque<std::string> lines_;
  std::thread reader_;
};

/// Ends all processes that run, for a program that leaves at once. Async-signal-safe.
void kill_workers();

/// Reads from the process as a stream does; what read() throws passes through.
class ProcessBuffer final : public std::streambuf {
 public:
  ProcessBuffer(ChildProcess& process, std::chrono::milliseconds patience) : process_(process), patience_(patience) {}

 protected:
  int_type underflow() override;
  std::streamsize xsgetn(char* to, std::streamsize count) override;

 private:
  ChildProcess& process_;
  std::chrono::milliseconds patience_;
  std::array<char, 4096> room_{};
};

}  // namespace headstart::worker_process
