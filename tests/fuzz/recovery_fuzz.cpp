// The events of a journal, one JSON object a line: without the digests that a journal has before each, which no
// mutation would leave right. Promised: events are refused as those of another version, or a run can go on from any
// milestone.
#include "server/record/recovery.hpp"
#include "shared/base/files.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace headstart;
using server::Recovery;

std::vector<nlohmann::json> events_in(std::string_view text) {
  std::vector<nlohmann::json> events;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    nlohmann::json event = parse_json(line, "input");
    // A journal takes nothing else.
    if (!event.is_object()) break;
    events.push_back(std::move(event));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return events;
}

void check(const Recovery& recovery) {
  fuzz::require(recovery.milestone.has_value() == recovery.start.has_value(),
                "only a run that has started has a model");
  const std::int64_t last = recovery.milestone ? recovery.milestone->round : -1;
  for (const server::RoundRecord& record : recovery.lines) {
    fuzz::require(record.round <= last, "no line is of a round beyond the milestone");
    const std::string line = to_line(to_json(record));
    fuzz::require(to_line(to_json(server::round_record_from(parse_json(line, "written")))) == line,
                  "a round's record reads as written");
  }
  for (const auto& [name, client] : recovery.roster) {
    const nlohmann::json event = server::json_of(server::RosterEvent{{client}});
    const server::Replay again = server::replay({event}, "written");
    fuzz::require(server::json_of(server::RosterEvent{{again.recovery.roster.at(name)}}) == event,
                  "a client's record reads as written");
  }
  for (const server::TrialRecord& trial : recovery.trials) {
    const std::string line = to_line(server::json_of(trial));
    const server::Replay again = server::replay({parse_json(line, "written")}, "written");
    fuzz::require(to_line(server::json_of(again.recovery.trials.at(0))) == line, "a trial's record reads as written");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::is_refused([&] {
    server::Replay replay = server::replay(events_in(fuzz::text_of(data, size)), "input");
    check(recovery_at(replay, std::nullopt));
    while (!replay.milestones.empty()) {
      server::Milestone newest = std::move(replay.milestones.back());
      replay.milestones.pop_back();
      check(recovery_at(replay, std::move(newest)));
    }
  });
  return 0;
}
