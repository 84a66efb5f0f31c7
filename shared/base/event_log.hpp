// What happened, for people who look later: one JSON object a line, with the time of day.
#pragma once

#include <exception>
#include <filesystem>
#include <string_view>

#include <nlohmann/json.hpp>

#include "shared/base/clock.hpp"
#include "shared/base/files.hpp"

namespace headstart {

/// One JSON object a line, in the order of events: `at` (UTC), `event`, and what the event is about. Appended to what
/// the file holds. A line has reached the operating system when the call returns. Calls on one thread.
class EventLog {
 public:
  /// Throws Error(storage) where the file cannot be written.
  EventLog(const std::filesystem::path& file, WallClock clock);

  [[nodiscard]] const WallClock& clock() const { return clock_; }

  /// `about` is an object. Throws Error(storage). A file that has failed once fails every time.
  void record(std::string_view event, nlohmann::json about);

  /// The same for who could not take what it throws: `about()` gives the object, and what fails is told to the
  /// program's log and left to the next record().
  template <class About>
  void report(std::string_view event, About about) noexcept {
    try {
      record(event, about());
    } catch (const std::exception& error) {
      complain(error);
    }
  }

 private:
  static void complain(const std::exception& error) noexcept;

  WallClock clock_;
  LineFile lines_;
};

}  // namespace headstart
