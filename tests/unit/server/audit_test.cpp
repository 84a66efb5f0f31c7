#include <csignal>
#include <sstream>

#include <doctest/doctest.h>
#include <sys/resource.h>

#include "server/operations/audit_log.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

const WallClock clock_of_1970 = [] { return std::chrono::system_clock::time_point{}; };

TEST_CASE("audit log: a line an event, in order, on going on too") {
  const test::TemporaryFolder folder;
  for (const bool is_resumed : {false, true}) {
    AuditLog audit(folder / "audit.jsonl", clock_of_1970);
    audit.server_started("0.1.0", is_resumed);
    audit.connection_lost("silo-1", "the network is gone");
  }
  std::istringstream lines(read_text(folder / "audit.jsonl"));
  std::vector<std::string> events;
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    CHECK(event["at"] == "1970-01-01T00:00:00.000Z");
    events.push_back(event["event"].get<std::string>());
  }
  CHECK(events == std::vector<std::string>{"server started", "connection lost", "server started", "connection lost"});
}

/// While one lives, no file of this process grows beyond `num_bytes`, as on a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t num_bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{num_bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  void (*handler_)(int);
  rlimit before_{};
};

TEST_CASE("audit log: what cannot be written stops what the run does next, not the one who reports a loss") {
  const test::TemporaryFolder folder;
  AuditLog audit(folder / "audit.jsonl", clock_of_1970);
  std::optional<Errc> adopted;
  std::optional<Errc> sent;
  {
    const FullDisk full(8);
    audit.connection_lost("silo-1", "the network is gone");
    audit.refused("127.0.0.1:1", "", "silo-1", "name taken");
    audit.run_ended("the disk is full");
    adopted = test::code_of([&] { audit.global_model(1, "abc", {"silo-1"}); });
    sent = test::code_of([&] { audit.sent("silo-1", {"global model", 3, "abc"}); });
  }
  CHECK(adopted == Errc::storage);
  CHECK(sent == Errc::storage);
}

}  // namespace
}  // namespace headstart::server
