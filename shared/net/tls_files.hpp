// Where one side's credentials for TLS lie: a setting of server and client.
#pragma once

#include <optional>
#include <string>

#include "shared/base/clock.hpp"
#include "shared/base/fields.hpp"

namespace headstart::net {

/// PEM files of one side.
struct TlsFiles {
  std::string authority;    ///< Certificate of the authority that signs both sides.
  std::string certificate;  ///< This side's certificate, with intermediate ones behind it if any.
  std::string key;          ///< The private key that belongs to it.
  std::string revoked;      ///< Certificate revocation list of the authority; empty: none is revoked.

  [[nodiscard]] bool is_set() const {
    return !authority.empty() || !certificate.empty() || !key.empty() || !revoked.empty();
  }
};

/// When what lies in them runs out.
struct TlsExpiry {
  SystemTime certificate;
  std::optional<SystemTime> revoked;  ///< Empty where no list is named, or it has no end.
};

void declare_fields(Fields& fields, const std::string& prefix, TlsFiles& files);

}  // namespace headstart::net
