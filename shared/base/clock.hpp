// Time as a value that is passed in: only main functions ask the system for it.
#pragma once

#include <chrono>
#include <functional>

namespace headstart {

using TimePoint = std::chrono::steady_clock::time_point;
using Seconds = std::chrono::duration<double>;
/// Monotonic time; must be callable from any thread.
using Clock = std::function<TimePoint()>;
/// The time of day, as records and certificates have it.
using SystemTime = std::chrono::system_clock::time_point;
/// Tells it, for records that people read. It may jump: nothing is decided by it. Callable from any thread.
using WallClock = std::function<SystemTime()>;

inline double seconds_between(TimePoint from, TimePoint to) { return Seconds(to - from).count(); }

}  // namespace headstart
