#include "shared/base/expiry.hpp"

#include <algorithm>
#include <ctime>

#include <fmt/format.h>
#include <openssl/asn1.h>

#include "shared/base/time_text.hpp"

namespace headstart {

namespace {

constexpr int warning_days = 30;

}  // namespace

int days_until(SystemTime end, SystemTime now) {
  return static_cast<int>(std::chrono::floor<std::chrono::days>(end - now).count());
}

bool ends_soon(SystemTime end, SystemTime now) { return days_until(end, now) < warning_days; }

std::string expiry_text(SystemTime end, SystemTime now) {
  const int days = days_until(end, now);
  if (days < 0) return "expired " + date_text(end);
  return fmt::format("{} {}, {} days", ends_soon(end, now) ? "EXPIRES SOON:" : "until", date_text(end), days);
}

std::optional<SystemTime> system_time_of(const ASN1_TIME* time) {
  std::tm calendar{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &calendar) != 1) return std::nullopt;
  const std::chrono::seconds since_epoch(::timegm(&calendar));
  const auto last = std::chrono::floor<std::chrono::seconds>(SystemTime::max().time_since_epoch());
  return SystemTime(std::min(since_epoch, last));
}

}  // namespace headstart
