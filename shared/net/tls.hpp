// Mutual TLS 1.3: who may speak at all, and who a peer is. The cryptography is OpenSSL's.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

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

  /// Is told when what was read runs out: here, and again whenever the files have been read again, then by whichever
  /// thread has met the change. Must not use the Tls.
  using OnLoad = std::function<void(const TlsExpiry&)>;

  /// Throws Error(usage) for a file that is not named, Error(data) naming a file that is missing, cannot be parsed, has
  /// expired or does not fit the others.
  Tls(TlsFiles files, Side side, OnLoad on_load = {});

  /// For one handshake: TLS 1.3 only, the peer's certificate verified against authority and revocations, no resumption.
  /// Where a change cannot be used, what was there before counts on, and every further use tries again; the log has
  /// each new reason once.
  std::shared_ptr<asio::ssl::context> context();

  TlsExpiry expiry();

  /// Whether the certificate that the peer showed in its handshake has been revoked since. Only that is looked at: a
  /// certificate or a list that runs out meanwhile ends no connection.
  bool has_revoked(const SSL* connection);

 private:
  struct Loaded {
    std::shared_ptr<asio::ssl::context> context;
    std::shared_ptr<X509_CRL> revocations;  ///< Null where no list is named.
    TlsExpiry expiry;
  };
  /// Of each file what changes when it is written or replaced: inode, size, seconds and nanoseconds of its last change.
  using Stamps = std::array<std::array<std::int64_t, 4>, 4>;
  [[nodiscard]] Loaded load() const;
  [[nodiscard]] Stamps stamps() const;
  Loaded current();

  TlsFiles files_;
  Side side_;
  OnLoad on_load_;
  std::mutex mutex_;
  Stamps stamps_;  ///< Of what is loaded, from before it was.
  Loaded loaded_;
  std::string complaint_;  ///< What the log says of a change that cannot be used.
};

/// Logs until when certificate and revocation list are good; as a warning where they end soon.
void log_expiry(const TlsFiles& files, const TlsExpiry& expiry, SystemTime now);

/// Before a dialler's handshake: the peer's certificate must be for `host`, a name or an IP address.
void expect_host(SSL* connection, const std::string& host);

/// The same for a peer that is known by `name`: among the DNS names of its certificate must be this one, whatever form
/// it has. DNS names know no upper and lower case; who has to tell them apart compares peer_name().
void expect_name(SSL* connection, const std::string& name);

/// Before an acceptor's handshake: the certificate must also allow its holder to be dialled. That of a client, which
/// may only dial, does not hold.
void expect_peer_certificate(SSL* connection);

/// Why the peer's certificate did not hold: "its certificate does not hold: certificate has expired", "its certificate
/// is not that of a peer"; empty where it did.
std::string verification_failure(const SSL* connection);

/// What the peer's TLS said of this side's certificate as it ended the connection ("certificate revoked"); empty where
/// `error` is no alert, or one about something else: a bit that was flipped on the way is no refusal.
std::string certificate_alert_of(const boost::system::error_code& error);

/// Whether `error` is the alert of a side that has no place for the connection.
bool is_no_place_alert(const boost::system::error_code& error);

/// Whether `error` is that of bytes which are no TLS at all.
bool speaks_no_tls(const boost::system::error_code& error);

/// The common name of the peer's certificate, verified; empty without one.
std::string peer_name(const SSL* connection);

/// When the peer's certificate ends; empty without one.
std::optional<SystemTime> peer_expiry(const SSL* connection);

}  // namespace headstart::net
