#include "shared/base/time_text.hpp"

#include <fmt/chrono.h>

namespace headstart {

std::string utc_text(SystemTime time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const auto rest = std::chrono::floor<std::chrono::milliseconds>(time - whole);
  return fmt::format("{:%FT%T}.{:03}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(whole)), rest.count());
}

std::string date_text(SystemTime time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  return fmt::format("{:%F}", fmt::gmtime(std::chrono::system_clock::to_time_t(whole)));
}

}  // namespace headstart
