#include "shared/base/event_log.hpp"

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "shared/base/error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart {
namespace {

TEST_CASE("event log: a line an event, behind those of before, and what cannot be told leaves none") {
  const test::TemporaryFolder folder;
  for (int i = 0; i < 2; ++i) {
    EventLog log(folder / "events.jsonl", [] { return SystemTime{}; });
    log.record("began", {{"peer", "a"}});
    log.report("lost", []() -> nlohmann::json { throw std::runtime_error("no words"); });
    log.report("lost", [] { return nlohmann::json{{"peer", "b"}}; });
  }
  std::istringstream lines(read_text(folder / "events.jsonl"));
  std::vector<std::string> told;
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    CHECK(event["at"] == "1970-01-01T00:00:00.000Z");
    told.push_back(event["event"].get<std::string>() + " " + event["peer"].get<std::string>());
  }
  CHECK(told == std::vector<std::string>{"began a", "lost b", "began a", "lost b"});
}

TEST_CASE("event log: a file that cannot be written is refused at the start") {
  const test::TemporaryFolder folder;
  CHECK(test::code_of([&] { EventLog(folder / "missing/events.jsonl", [] { return SystemTime{}; }); }) ==
        Errc::storage);
}

}  // namespace
}  // namespace headstart
