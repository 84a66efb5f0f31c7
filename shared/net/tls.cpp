#include "shared/net/tls.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include <boost/asio/ssl/error.hpp>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include "shared/base/c_deleter.hpp"
#include "shared/base/error.hpp"
#include "shared/base/expiry.hpp"
#include "shared/base/log.hpp"
#include "shared/base/passphrase.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/time_text.hpp"

namespace headstart::net {
namespace {

namespace ssl = boost::asio::ssl;

using Certificate = std::unique_ptr<X509, CDeleter<X509_free>>;
using RevocationList = std::unique_ptr<X509_CRL, CDeleter<X509_CRL_free>>;
using File = std::unique_ptr<std::FILE, CDeleter<std::fclose>>;

/// OpenSSL's last complaint; its queue is empty afterwards.
std::string openssl_reason() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  if (code == 0) return "unknown reason";
  if (const char* reason = ERR_reason_error_string(code)) return reason;
  std::array<char, 256> text{};
  ERR_error_string_n(code, text.data(), text.size());
  return text.data();
}

[[noreturn]] void refuse(const std::string& file, const std::string& why) {
  throw Error(Errc::data, file + ": " + why);
}

File open(const std::string& file) {
  File opened(std::fopen(file.c_str(), "r"));
  if (!opened) {
    refuse(file, "cannot be read (" + std::generic_category().message(errno) + "); it is named as a file for TLS");
  }
  return opened;
}

SystemTime end_of(const std::string& file, const X509* certificate) {
  const auto end = system_time_of(X509_get0_notAfter(certificate));
  if (!end) refuse(file, "holds a certificate whose end is no date");
  return *end;
}

void expect_current(const std::string& file, const X509* certificate) {
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
    refuse(file, "is not valid yet; is the clock right?");
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
    refuse(file, "has expired: it was good until " + date_text(end_of(file, certificate)) + "; have it renewed");
  }
}

Certificate read_certificate(const std::string& file) {
  const File opened = open(file);
  Certificate certificate(PEM_read_X509(opened.get(), nullptr, refuse_passphrase, nullptr));
  if (!certificate) refuse(file, "holds no certificate in PEM form (" + openssl_reason() + ")");
  expect_current(file, certificate.get());
  return certificate;
}

RevocationList read_revocations(const std::string& file, X509* authority) {
  const File opened = open(file);
  RevocationList list(PEM_read_X509_CRL(opened.get(), nullptr, refuse_passphrase, nullptr));
  if (!list) refuse(file, "holds no revocation list in PEM form (" + openssl_reason() + ")");
  if (X509_CRL_verify(list.get(), X509_get0_pubkey(authority)) != 1) {
    ERR_clear_error();
    refuse(file, "is not the revocation list of this authority");
  }
  const ASN1_TIME* next = X509_CRL_get0_nextUpdate(list.get());
  if (next != nullptr && X509_cmp_current_time(next) < 0) {
    const auto end = system_time_of(next);
    refuse(file, "is out of date" + (end ? ": it was good until " + date_text(*end) : "") +
                     "; fetch or sign a new revocation list");
  }
  return list;
}

void expect_named(const std::string& file, const char* key) {
  if (file.empty()) {
    throw Error(Errc::usage, std::string(key) + " is missing: TLS needs tls.authority, tls.certificate and tls.key");
  }
}

}  // namespace

void declare_fields(Fields& fields, const std::string& prefix, TlsFiles& files) {
  fields.group(prefix, "Certificates and key of this side, for mutual TLS");
  fields.path(prefix + ".authority", files.authority, "Certificate of the authority that signed both sides (PEM).");
  fields.path(prefix + ".certificate", files.certificate,
              "This side's certificate (PEM); for TLS all three are needed.");
  fields.path(prefix + ".key", files.key, "Private key of the certificate (PEM), not encrypted.");
  fields.path(prefix + ".revoked", files.revoked,
              "The authority's revocation list (PEM); read again when it changes, also for "
              "connections that are there. Empty: none is revoked.");
}

Tls::Tls(TlsFiles files, Side side, OnLoad on_load)
    : files_(std::move(files)), side_(side), on_load_(std::move(on_load)) {
  expect_named(files_.authority, "tls.authority");
  expect_named(files_.certificate, "tls.certificate");
  expect_named(files_.key, "tls.key");
  stamps_ = stamps();
  loaded_ = load();
  if (on_load_) on_load_(loaded_.expiry);
}

std::shared_ptr<ssl::context> Tls::context() { return current().context; }

TlsExpiry Tls::expiry() { return current().expiry; }

bool Tls::has_revoked(const SSL* connection) {
  const std::shared_ptr<X509_CRL> revocations = current().revocations;
  const Certificate certificate(SSL_get1_peer_certificate(connection));
  if (!revocations || !certificate) return false;
  X509_REVOKED* entry = nullptr;
  return X509_CRL_get0_by_cert(revocations.get(), &entry, certificate.get()) == 1;
}

Tls::Loaded Tls::current() {
  const std::lock_guard lock(mutex_);
  const Stamps now = stamps();
  if (now == stamps_) return loaded_;
  try {
    loaded_ = load();
    stamps_ = now;
    complaint_.clear();
    spdlog::info("the files for TLS have changed and were read again");
    if (on_load_) on_load_(loaded_.expiry);
  } catch (const std::exception& error) {
    if (complaint_ != error.what()) {
      complaint_ = error.what();
      spdlog::error("the files for TLS have changed, and what was there before counts on: {}", complaint_);
    }
  }
  return loaded_;
}

Tls::Stamps Tls::stamps() const {
  Stamps stamps{};
  std::size_t i = 0;
  for (const auto* file : {&files_.authority, &files_.certificate, &files_.key, &files_.revoked}) {
    struct stat status {};
    if (::stat(file->c_str(), &status) == 0) {
      stamps[i] = {static_cast<std::int64_t>(status.st_ino), status.st_size, status.st_mtim.tv_sec,
                   status.st_mtim.tv_nsec};
    }
    ++i;
  }
  return stamps;
}

Tls::Loaded Tls::load() const {
  ERR_clear_error();
  const Certificate authority = read_certificate(files_.authority);
  const Certificate certificate = read_certificate(files_.certificate);
  (void)open(files_.key);
  const auto method = side_ == Side::server ? ssl::context::tls_server : ssl::context::tls_client;
  auto context = std::make_shared<ssl::context>(method);
  SSL_CTX* native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_3_VERSION);
  // A resumed session would not look at the certificate again.
  SSL_CTX_set_num_tickets(native, 0);
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_verify(native, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  X509_STORE_add_cert(SSL_CTX_get_cert_store(native), authority.get());
  bool is_key_encrypted = false;
  SSL_CTX_set_default_passwd_cb(native, refuse_passphrase);
  SSL_CTX_set_default_passwd_cb_userdata(native, &is_key_encrypted);
  if (SSL_CTX_use_certificate_chain_file(native, files_.certificate.c_str()) != 1) {
    refuse(files_.certificate, "cannot be used (" + openssl_reason() + ")");
  }
  const bool has_key = SSL_CTX_use_PrivateKey_file(native, files_.key.c_str(), SSL_FILETYPE_PEM) == 1;
  SSL_CTX_set_default_passwd_cb_userdata(native, nullptr);
  if (!has_key && is_key_encrypted) {
    ERR_clear_error();
    throw Error(Errc::data, encrypted_key_text(files_.key));
  }
  if (!has_key) {
    refuse(files_.key,
           "is no private key in PEM form, or not that of " + files_.certificate + " (" + openssl_reason() + ")");
  }
  Loaded loaded{std::move(context), nullptr, {end_of(files_.certificate, certificate.get()), std::nullopt}};
  if (!files_.revoked.empty()) {
    loaded.revocations = read_revocations(files_.revoked, authority.get());
    X509_STORE* store = SSL_CTX_get_cert_store(native);
    X509_STORE_add_crl(store, loaded.revocations.get());
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    loaded.expiry.revoked = system_time_of(X509_CRL_get0_nextUpdate(loaded.revocations.get()));
  }
  return loaded;
}

void log_expiry(const TlsFiles& files, const TlsExpiry& expiry, SystemTime now) {
  const auto tell = [now](std::string_view what, const std::string& file, SystemTime end) {
    const bool is_late = ends_soon(end, now);
    spdlog::log(is_late ? spdlog::level::warn : spdlog::level::info, "{} {}: {}{}", what, file, expiry_text(end, now),
                is_late ? "; have it renewed" : "");
  };
  tell("certificate", files.certificate, expiry.certificate);
  if (expiry.revoked) tell("revocation list", files.revoked, *expiry.revoked);
}

void expect_host(SSL* connection, const std::string& host) {
  if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(connection), host.c_str()) == 1) return;
  ERR_clear_error();  // no address, so a name
  SSL_set1_host(connection, host.c_str());
  SSL_set_tlsext_host_name(connection, host.c_str());  // not for addresses (RFC 6066)
}

void expect_name(SSL* connection, const std::string& name) {
  X509_VERIFY_PARAM* terms = SSL_get0_param(connection);
  X509_VERIFY_PARAM_set_hostflags(terms, X509_CHECK_FLAG_NO_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  // SSL_set1_host() would take a name in the form of an address for one.
  X509_VERIFY_PARAM_set1_host(terms, name.c_str(), 0);
  SSL_set_tlsext_host_name(connection, name.c_str());
}

namespace {

/// OpenSSL's own verification of an acceptor asks only whether the certificate allows to dial. Refused here, the
/// dialler is told by an alert.
int verify_that_of_a_peer(int holds, X509_STORE_CTX* verification) {
  if (holds != 1 || X509_STORE_CTX_get_error_depth(verification) != 0) return holds;
  if (X509_check_purpose(X509_STORE_CTX_get_current_cert(verification), X509_PURPOSE_SSL_SERVER, 0) == 1) return 1;
  X509_STORE_CTX_set_error(verification, X509_V_ERR_INVALID_PURPOSE);
  return 0;
}

}  // namespace

void expect_peer_certificate(SSL* connection) {
  SSL_set_verify(connection, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify_that_of_a_peer);
}

std::string verification_failure(const SSL* connection) {
  const long result = SSL_get_verify_result(connection);
  if (result == X509_V_OK) return "";
  if (result == X509_V_ERR_INVALID_PURPOSE && SSL_get_verify_callback(connection) == verify_that_of_a_peer) {
    return "its certificate is not that of a peer";
  }
  std::string words = std::string("its certificate does not hold: ") + X509_verify_cert_error_string(result);
  if (result == X509_V_ERR_HOSTNAME_MISMATCH) {
    const char* expected = X509_VERIFY_PARAM_get0_host(SSL_get0_param(const_cast<SSL*>(connection)), 0);
    if (expected != nullptr) words += std::string(", '") + expected + "' was expected";
  }
  return words;
}

namespace {

/// OpenSSL's reason for `error`; 0 where that is not of TLS.
int tls_reason(const boost::system::error_code& error) {
  if (error.category() != asio::error::get_ssl_category()) return 0;
  return ERR_GET_REASON(static_cast<unsigned long>(error.value()));
}

/// The number of the alert that the peer has sent; 0 where `error` is none.
int alert_of(const boost::system::error_code& error) {
  const int alert = tls_reason(error) - SSL_AD_REASON_OFFSET;
  return alert > 0 && alert < 256 ? alert : 0;
}

}  // namespace

std::string certificate_alert_of(const boost::system::error_code& error) {
  switch (const int alert = alert_of(error)) {
    case SSL_AD_NO_CERTIFICATE:
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_UNKNOWN_CA:
    case SSL_AD_ACCESS_DENIED:
    case SSL_AD_BAD_CERTIFICATE_STATUS_RESPONSE:
    case SSL_AD_BAD_CERTIFICATE_HASH_VALUE:
    case SSL_AD_CERTIFICATE_REQUIRED:
      return SSL_alert_desc_string_long(alert);
    default:
      return "";
  }
}

bool is_no_place_alert(const boost::system::error_code& error) { return alert_of(error) == SSL_AD_INTERNAL_ERROR; }

bool speaks_no_tls(const boost::system::error_code& error) {
  const int reason = tls_reason(error);
  return reason == SSL_R_HTTP_REQUEST || reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_PACKET_LENGTH_TOO_LONG;
}

std::string peer_name(const SSL* connection) {
  constexpr std::size_t max_name_bytes = 128;  // twice what the name of a client has
  const Certificate certificate(SSL_get1_peer_certificate(connection));
  if (!certificate || SSL_get_verify_result(connection) != X509_V_OK) return "";
  std::array<char, 256> name{};
  const int length =
      X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()), NID_commonName, name.data(), name.size());
  // Beyond max_name_bytes it is nobody's name: it must not become one by being cut.
  return length > 0 ? printable({name.data(), static_cast<std::size_t>(length)}, max_name_bytes) : "";
}

std::optional<SystemTime> peer_expiry(const SSL* connection) {
  const Certificate certificate(SSL_get1_peer_certificate(connection));
  return certificate ? system_time_of(X509_get0_notAfter(certificate.get())) : std::nullopt;
}

}  // namespace headstart::net
