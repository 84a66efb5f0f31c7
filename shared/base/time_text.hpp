// The time of day as text.
#pragma once

#include <chrono>
#include <string>

namespace headstart {

/// ISO 8601 in UTC, to the millisecond: "2026-03-01T09:30:00.125Z".
std::string utc_text(std::chrono::system_clock::time_point time);

}  // namespace headstart
