// Keys, requests, certificates and revocation lists: OpenSSL's objects with owners. All of it is text in PEM form.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <openssl/x509.h>

#include "shared/base/clock.hpp"

namespace headstart::pki {

using headstart::SystemTime;

struct FreeKey {
  void operator()(EVP_PKEY* key) const;
};
struct FreeRequest {
  void operator()(X509_REQ* request) const;
};
struct FreeCertificate {
  void operator()(X509* certificate) const;
};
using Key = std::unique_ptr<EVP_PKEY, FreeKey>;
using Request = std::unique_ptr<X509_REQ, FreeRequest>;
using Certificate = std::unique_ptr<X509, FreeCertificate>;

/// What a certificate allows its holder to be. A peer is reached and reaches others: both, under its own name.
enum class Role { server, client, peer };

struct Validity {
  SystemTime begin;
  SystemTime end;
};

/// A fresh key on the curve P-256.
Key make_key();

/// A request by the holder of `key` to be called `name`, signed with it.
Request make_request(const std::string& name, EVP_PKEY& key);

/// The authority's certificate of itself.
Certificate make_authority(const std::string& name, EVP_PKEY& key, const Validity& validity);

struct Grant {
  std::string name;  ///< The subject's common name.
  Role role = Role::client;
  std::vector<std::string> hosts;  ///< Names and IP addresses at which a server or a peer is reached.
  Validity validity;
  std::string serial;  ///< Hexadecimal.
};

/// Whether a certificate can be made out to this: an IP address, or a host name, whose first label may be '*'.
bool is_host(const std::string& text);

/// Certifies the key of `request`. A peer's certificate is made out to its name, as a DNS name, and to its hosts. The
/// request's own subject and extensions are not looked at: `grant` says it all.
Certificate sign(X509_REQ& request, const Grant& grant, X509& authority, EVP_PKEY& authority_key);

struct Revocation {
  std::string serial;
  SystemTime at;
};

/// The list in PEM form.
std::string revocation_list(const std::vector<Revocation>& revocations, std::uint64_t number, const Validity& validity,
                            X509& authority, EVP_PKEY& authority_key);

std::string to_pem(EVP_PKEY& key);
std::string to_pem(X509_REQ& request);
std::string to_pem(X509& certificate);

/// Throw Error(data) naming the file where it is missing or holds something else. A request's signature is verified:
/// whoever made it holds the key.
Key read_key(const std::filesystem::path& file);
Request parse_request(const std::string& pem, const std::string& name);  ///< `name`: of the file, for the message.
Request read_request(const std::filesystem::path& file);
Certificate read_certificate(const std::filesystem::path& file);

/// When a certificate ends.
SystemTime end_of(const X509& certificate);

/// The common name that a request asks for; empty where it has none.
std::string name_of(X509_REQ& request);

/// SHA-256 of the key that is asked to be certified, in hexadecimal: read out over the telephone, it tells the
/// authority that the request is the silo's.
std::string fingerprint(X509_REQ& request);
/// The same of the key that was certified.
std::string fingerprint(X509& certificate);

/// 128 random bits in hexadecimal.
std::string random_serial();

}  // namespace headstart::pki
