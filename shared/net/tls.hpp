// Mutual TLS 1.3: who may speak at all, and who a peer is. The cryptography is OpenSSL's.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <boost/asio/ssl/context.hpp>
#include <boost/system/error_code.hpp>

#include "shared/net/task.hpp"
#include "shared/net/tls_files.hpp"

namespace headstart::net {

/// One side's credentials. Its files are read again when they change: a renewed certificate counts for the next
/// handshake, a revocation for connections that are there too, without a restart. May be used from any thread.
class Tls {
 public:
  enum class Side { server, client };

  /// Throws Error(usage) for a file that is not named, Error(data) naming a file that is missing, cannot be parsed, has
  /// expired or does not fit the others.
  Tls(TlsFiles files, Side side);

  /// For one handshake: TLS 1.3 only, the peer's certificate verified against authority and revocations, no resumption.
  /// A change that cannot be used is logged, and what was there before counts on.
  std::shared_ptr<asio::ssl::context> context();

  /// Whether the certificate that the peer showed in its handshake has been revoked since. Only that is looked at: a
  /// certificate or a list that runs out meanwhile ends no connection.
  bool has_revoked(const SSL* connection);

 private:
  struct Loaded {
    std::shared_ptr<asio::ssl::context> context;
    std::shared_ptr<X509_CRL> revocations;  ///< Null where no list is named.
  };
  using Stamps = std::vector<std::filesystem::file_time_type>;
  [[nodiscard]] Loaded load() const;
  [[nodiscard]] Stamps stamps() const;
  Loaded current();

  TlsFiles files_;
  Side side_;
  std::mutex mutex_;
  Stamps stamps_;  ///< Of what is loaded.
  Loaded loaded_;
};

/// Before a dialler's handshake: the peer's certificate must be for `host`, a name or an IP address.
void expect_host(SSL* connection, const std::string& host);

/// Why the peer's certificate did not hold, in OpenSSL's words ("certificate has expired"); empty where it did.
std::string verification_failure(const SSL* connection);

/// What the peer's TLS said as it ended the connection ("certificate revoked"); empty where `error` is no alert.
std::string alert_of(const boost::system::error_code& error);

/// The common name of the peer's certificate, verified; empty without one.
std::string peer_name(const SSL* connection);

}  // namespace headstart::net
