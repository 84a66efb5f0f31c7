// Certificates and revocation lists run out: when, and whether it is time to do something about it.
#pragma once

#include <optional>
#include <string>

#include <openssl/types.h>

#include "shared/base/clock.hpp"

namespace headstart {

/// Whole days until `end`; negative once it is past.
int days_until(SystemTime end, SystemTime now);

/// Fewer than 30 days are left, or none.
bool ends_soon(SystemTime end, SystemTime now);

/// "until 2027-03-01, 200 days", "EXPIRES SOON: 2027-03-01, 12 days" or "expired 2027-03-01".
std::string expiry_text(SystemTime end, SystemTime now);

/// A date of a certificate or a revocation list; the last that SystemTime can tell, where it is later. Empty for null,
/// which is a list without an end, and for what is no date.
std::optional<SystemTime> system_time_of(const ASN1_TIME* time);

}  // namespace headstart
