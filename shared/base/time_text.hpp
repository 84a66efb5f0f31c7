// The time of day as text.
#pragma once

#include <string>

#include "shared/base/clock.hpp"

namespace headstart {

/// ISO 8601 in UTC, to the millisecond: "2026-03-01T09:30:00.125Z".
std::string utc_text(SystemTime time);

/// The day alone, in UTC: "2026-03-01".
std::string date_text(SystemTime time);

}  // namespace headstart
