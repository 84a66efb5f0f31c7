#include "shared/base/event_log.hpp"

#include <utility>

#include "shared/base/log.hpp"
#include "shared/base/time_text.hpp"

namespace headstart {

EventLog::EventLog(const std::filesystem::path& file, WallClock clock) : clock_(std::move(clock)), lines_(file) {}

void EventLog::record(std::string_view event, nlohmann::json about) {
  about["at"] = utc_text(clock_());
  about["event"] = event;
  lines_.append(about);
}

void EventLog::complain(const std::exception& error) noexcept { spdlog::error("event log: {}", error.what()); }

}  // namespace headstart
