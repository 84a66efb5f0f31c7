#include "shared/worker_process/child_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"

namespace headstart::worker_process {

namespace {

/// The number of the worker's end of the socket in its own process.
constexpr int worker_end = 3;
constexpr std::size_t num_last_lines = 5;
constexpr int pipe_reads = 16;  ///< What a pipe holds, 64 KiB.

/// The groups of the workers that run in this process, for kill_workers().
std::array<std::atomic<pid_t>, 8> groups{};

void note_group(pid_t before, pid_t now) {
  for (auto& group : groups) {
    pid_t expected = before;
    if (group.compare_exchange_strong(expected, now)) return;
  }
}

[[noreturn]] void refuse_to_start(const std::string& what, int error) {
  throw Error(Errc::usage, fmt::format("worker.command: {} ({})", what, std::generic_category().message(error)));
}

std::pair<Descriptor, Descriptor> socket_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    refuse_to_start("no socket for the worker", errno);
  }
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

std::pair<Descriptor, Descriptor> pipe_ends() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) refuse_to_start("no pipe for what the worker prints", errno);
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

/// The client's environment and the number of the socket.
std::vector<std::string> worker_environment() {
  constexpr std::string_view name = "HEADSTART_WORKER_FD=";
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with(name)) environment.emplace_back(*entry);
  }
  environment.push_back(fmt::format("{}{}", name, worker_end));
  return environment;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

/// What spawn() is told; frees it.
struct SpawnPlan {
  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
  SpawnPlan() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;
};

pid_t spawn(const std::string& command, int socket, int output) {
  SpawnPlan plan;
  posix_spawn_file_actions_addopen(&plan.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&plan.actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&plan.actions, output, STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&plan.actions, socket, worker_end);
  sigset_t none;
  sigemptyset(&none);
  sigset_t all;
  sigfillset(&all);
  // This process blocks and ignores signals that a child is to have as usual.
  posix_spawnattr_setsigmask(&plan.attributes, &none);
  posix_spawnattr_setsigdefault(&plan.attributes, &all);
  posix_spawnattr_setpgroup(&plan.attributes, 0);
  posix_spawnattr_setflags(&plan.attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> arguments = {"sh", "-c", command};
  std::vector<std::string> environment = worker_environment();
  pid_t pid = -1;
  const int error = posix_spawn(&pid, "/bin/sh", &plan.actions, &plan.attributes, pointers_to(arguments).data(),
                                pointers_to(environment).data());
  if (error != 0) refuse_to_start(fmt::format("'{}' cannot be started", printable(command, 200)), error);
  return pid;
}

std::string ending_of(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  // A shell says so of a command that a signal killed.
  const int signal = WEXITSTATUS(status) - 128;
  if (signal > 0 && signal < 32) return fmt::format("exit status {}: killed by signal {}", signal + 128, signal);
  return fmt::format("exit status {}", WEXITSTATUS(status));
}

/// Waits until one of `wanted` can be done; false where `patience` is over.
bool wait_for(std::span<pollfd> wanted, std::chrono::milliseconds patience) {
  for (;;) {
    const int ready = ::poll(wanted.data(), wanted.size(), static_cast<int>(patience.count()));
    if (ready >= 0) return ready > 0;
    if (errno != EINTR) throw Error(Errc::internal, "poll: " + std::generic_category().message(errno));
  }
}

/// Leaves out what is sent already.
void drop_front(std::vector<iovec>& parts, std::size_t count) {
  while (!parts.empty() && count >= parts.front().iov_len) {
    count -= parts.front().iov_len;
    parts.erase(parts.begin());
  }
  if (parts.empty()) return;
  parts.front().iov_base = static_cast<char*>(parts.front().iov_base) + count;
  parts.front().iov_len -= count;
}

}  // namespace

void Descriptor::close() {
  if (number_ >= 0) ::close(number_);
  number_ = -1;
}

ChildProcess::ChildProcess(const std::string& command) {
  auto [own, theirs] = socket_pair();
  auto [output, input] = pipe_ends();
  over_ = Descriptor(::eventfd(0, EFD_CLOEXEC));
  pid_ = spawn(command, theirs.number(), input.number());
  note_group(0, pid_);
  socket_ = std::move(own);
  reader_ = std::thread([this, output = std::move(output)] { copy_output(output); });
}

ChildProcess::~ChildProcess() { end(std::chrono::milliseconds(0)); }

void ChildProcess::copy_output(const Descriptor& output) {
  std::string line;
  std::array<char, 4096> room{};
  int num_last_reads = 0;
  for (;;) {
    // What the worker started may keep the pipe open after it: then only what is there is read.
    std::array<pollfd, 2> wanted{pollfd{output.number(), POLLIN, 0}, pollfd{over_.number(), POLLIN, 0}};
    wait_for(wanted, std::chrono::milliseconds(-1));
    if (wanted[0].revents == 0) break;
    if (wanted[1].revents != 0 && ++num_last_reads > pipe_reads) break;
    const ssize_t count = ::read(output.number(), room.data(), room.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    for (const char c : std::string_view(room.data(), static_cast<std::size_t>(count))) {
      if (c == '\n') {
        note_line(line);
        line.clear();
      } else if (line.size() < max_line_bytes) {
        line.push_back(c);
      }
    }
  }
  if (!line.empty()) note_line(line);
}

void ChildProcess::note_line(std::string_view line) {
  std::string shown = printable(line);
  spdlog::info("worker: {}", shown);
  const std::lock_guard guard(mutex_);
  lines_.push_back(std::move(shown));
  if (lines_.size() > num_last_lines) lines_.pop_front();
}

std::vector<std::string> ChildProcess::last_lines() const {
  const std::lock_guard guard(mutex_);
  return {lines_.begin(), lines_.end()};
}

void ChildProcess::send(std::span<const std::span<const std::byte>> parts, std::chrono::milliseconds patience) {
  std::vector<iovec> left;
  for (const auto& part : parts) {
    // sendmsg() does not write to it.
    if (!part.empty()) left.push_back({const_cast<std::byte*>(part.data()), part.size()});
  }
  while (!left.empty()) {
    msghdr message{};
    message.msg_iov = left.data();
    message.msg_iovlen = std::min<std::size_t>(left.size(), 64);
    const ssize_t count = ::sendmsg(socket_.number(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      drop_front(left, static_cast<std::size_t>(count));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) throw ProcessSilent("it closed its socket");
    pollfd wanted{socket_.number(), POLLOUT, 0};
    if (!wait_for({&wanted, 1}, patience)) {
      throw ProcessSilent(
          fmt::format("it took nothing of a task for {:g} s", static_cast<double>(patience.count()) / 1e3));
    }
  }
}

bool ChildProcess::wait_readable(std::chrono::milliseconds patience, const std::stop_token& stop) const {
  std::array<pollfd, 2> wanted{pollfd{socket_.number(), POLLIN, 0}, pollfd{-1, POLLIN, 0}};
  if (!stop.stop_possible()) return wait_for(std::span(wanted).first(1), patience);
  const Descriptor event(::eventfd(0, EFD_CLOEXEC));
  wanted[1].fd = event.number();
  const std::stop_callback wake(stop, [&event] { (void)::eventfd_write(event.number(), 1); });
  wait_for(wanted, patience);
  return wanted[0].revents != 0;
}

std::size_t ChildProcess::read(std::span<std::byte> to, std::chrono::milliseconds patience) {
  for (;;) {
    if (!wait_readable(patience)) {
      throw ProcessSilent(
          fmt::format("it stopped within a frame for {:g} s", static_cast<double>(patience.count()) / 1e3));
    }
    const ssize_t count = ::recv(socket_.number(), to.data(), to.size(), 0);
    if (count >= 0) return static_cast<std::size_t>(count);
    if (errno == ECONNRESET) return 0;
    if (errno != EINTR) throw Error(Errc::internal, "recv: " + std::generic_category().message(errno));
  }
}

std::string ChildProcess::end(std::chrono::milliseconds grace) {
  if (pid_ < 0) return ending_;
  socket_.close();
  const Descriptor ended(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  if (ended.number() >= 0) {
    pollfd wanted{ended.number(), POLLIN, 0};
    wait_for({&wanted, 1}, grace);
  }
  siginfo_t seen{};
  const bool is_over =
      ::waitid(P_PID, static_cast<id_t>(pid_), &seen, WEXITED | WNOHANG | WNOWAIT) == 0 && seen.si_pid == pid_;
  // Its own children would keep what it prints open, so the whole group goes in any case.
  ::kill(-pid_, SIGKILL);
  note_group(pid_, 0);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  ending_ = is_over ? ending_of(status) : "killed by this client";
  (void)::eventfd_write(over_.number(), 1);
  if (reader_.joinable()) reader_.join();
  return ending_;
}

void kill_workers() {
  for (const auto& group : groups) {
    if (const pid_t pid = group.load(); pid > 0) ::kill(-pid, SIGKILL);
  }
}

ProcessBuffer::int_type ProcessBuffer::underflow() {
  const std::size_t count = process_.read(std::as_writable_bytes(std::span(room_)), patience_);
  if (count == 0) return traits_type::eof();
  setg(room_.data(), room_.data(), room_.data() + count);
  return traits_type::to_int_type(room_.front());
}

std::streamsize ProcessBuffer::xsgetn(char* to, std::streamsize count) {
  std::streamsize done = std::min<std::streamsize>(count, egptr() - gptr());
  std::memcpy(to, gptr(), static_cast<std::size_t>(done));
  gbump(static_cast<int>(done));
  // Straight into the reader's memory: a model is not copied twice.
  while (done < count) {
    const auto room = std::as_writable_bytes(std::span(to + done, static_cast<std::size_t>(count - done)));
    const std::size_t got = process_.read(room, patience_);
    if (got == 0) break;
    done += static_cast<std::streamsize>(got);
  }
  return done;
}

}  // namespace headstart::worker_process
