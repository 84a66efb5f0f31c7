#include "server/pki/x509.hpp"

#include <algorithm>
#include <array>
#include <span>

#include <openssl/asn1.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "shared/base/c_deleter.hpp"
#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/expiry.hpp"
#include "shared/base/files.hpp"
#include "shared/base/passphrase.hpp"

namespace headstart::pki {
namespace {

using Memory = std::unique_ptr<BIO, CDeleter<BIO_free_all>>;
using BigNumber = std::unique_ptr<BIGNUM, CDeleter<BN_free>>;
using Integer = std::unique_ptr<ASN1_INTEGER, CDeleter<ASN1_INTEGER_free>>;
using Time = std::unique_ptr<ASN1_TIME, CDeleter<ASN1_TIME_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, CDeleter<X509_EXTENSION_free>>;
using RevocationList = std::unique_ptr<X509_CRL, CDeleter<X509_CRL_free>>;
using Revoked = std::unique_ptr<X509_REVOKED, CDeleter<X509_REVOKED_free>>;

/// For calls that fail only where memory or OpenSSL itself is broken.
template <class Result>
Result require(Result result, const char* what) {
  if (!result || (std::is_integral_v<Result> && !(result > Result{}))) {
    ERR_clear_error();
    throw Error(Errc::internal, std::string("OpenSSL could not ") + what);
  }
  return result;
}

Time time_of(SystemTime time) {
  return Time(require(ASN1_TIME_set(nullptr, std::chrono::system_clock::to_time_t(time)), "write a time"));
}

Integer integer_of(const std::string& hexadecimal) {
  BIGNUM* parsed = nullptr;
  require(BN_hex2bn(&parsed, hexadecimal.c_str()), "read a serial number");
  const BigNumber number(parsed);
  return Integer(require(BN_to_ASN1_INTEGER(number.get(), nullptr), "write a serial number"));
}

void set_common_name(X509_NAME* subject, const std::string& name) {
  const auto* text = reinterpret_cast<const unsigned char*>(name.data());
  require(X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, const_cast<unsigned char*>(text),
                                     static_cast<int>(name.size()), -1, 0),
          "write a name");
}

void set_validity(X509* certificate, const Validity& validity) {
  require(X509_set1_notBefore(certificate, time_of(validity.begin).get()), "write a validity");
  require(X509_set1_notAfter(certificate, time_of(validity.end).get()), "write a validity");
}

void add_extension(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(require(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()), "write an extension"));
  require(X509_add_ext(certificate, extension.get(), -1), "add an extension");
}

bool is_address(const std::string& host) {
  const std::unique_ptr<ASN1_OCTET_STRING, CDeleter<ASN1_OCTET_STRING_free>> address(a2i_IPADDRESS(host.c_str()));
  ERR_clear_error();
  return address != nullptr;
}

const char* usage_of(Role role) {
  switch (role) {
    case Role::server:
      return "serverAuth";
    case Role::client:
      return "clientAuth";
    case Role::peer:
      return "serverAuth,clientAuth";
  }
  return "";
}

/// Empty where there are none.
std::string alternative_names(const Grant& grant) {
  // Whoever dials a peer expects its name, wherever it is reached: a name, also where it has the form of an address.
  std::string names = grant.role == Role::peer ? "DNS:" + grant.name : "";
  for (const std::string& host : grant.hosts) {
    names += (names.empty() ? "" : ",") + std::string(is_address(host) ? "IP:" : "DNS:") + host;
  }
  return names;
}

template <class Write>
std::string pem_of(Write write) {
  const Memory memory(require(BIO_new(BIO_s_mem()), "allocate memory"));
  require(write(memory.get()), "write PEM");
  char* text = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &text);
  return {text, static_cast<std::size_t>(size)};
}

template <class Owner, class Read>
Owner parse_pem(const std::string& text, const std::string& name, const char* what, Read read) {
  const Memory memory(require(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), "allocate memory"));
  Owner object(read(memory.get()));
  ERR_clear_error();
  if (!object) throw Error(Errc::data, name + ": holds no " + what + " in PEM form");
  return object;
}

std::string fingerprint_of(EVP_PKEY* key) {
  unsigned char* encoded = nullptr;
  const int size = require(i2d_PUBKEY(key, &encoded), "encode a public key");
  Sha256 sha;
  sha.update(std::as_bytes(std::span(encoded, static_cast<std::size_t>(size))));
  OPENSSL_free(encoded);
  return hex(sha.finish());
}

}  // namespace

bool is_host(const std::string& text) {
  if (is_address(text)) return true;
  const auto may_stand = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '*'; };
  return !text.empty() && text.size() <= 253 && std::ranges::all_of(text, may_stand);
}

SystemTime end_of(const X509& certificate) {
  return *require(system_time_of(X509_get0_notAfter(&certificate)), "read a validity");
}

void FreeKey::operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
void FreeRequest::operator()(X509_REQ* request) const { X509_REQ_free(request); }
void FreeCertificate::operator()(X509* certificate) const { X509_free(certificate); }

Key make_key() { return Key(require(EVP_EC_gen("P-256"), "make a key")); }

Request make_request(const std::string& name, EVP_PKEY& key) {
  Request request(require(X509_REQ_new(), "make a request"));
  set_common_name(X509_REQ_get_subject_name(request.get()), name);
  require(X509_REQ_set_pubkey(request.get(), &key), "set a public key");
  require(X509_REQ_sign(request.get(), &key, EVP_sha256()), "sign a request");
  return request;
}

Certificate make_authority(const std::string& name, EVP_PKEY& key, const Validity& validity) {
  Certificate certificate(require(X509_new(), "make a certificate"));
  require(X509_set_version(certificate.get(), X509_VERSION_3), "set a version");
  require(X509_set_serialNumber(certificate.get(), integer_of(random_serial()).get()), "set a serial number");
  set_validity(certificate.get(), validity);
  set_common_name(X509_get_subject_name(certificate.get()), name);
  require(X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get())), "set an issuer");
  require(X509_set_pubkey(certificate.get(), &key), "set a public key");
  add_extension(certificate.get(), certificate.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  add_extension(certificate.get(), certificate.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  add_extension(certificate.get(), certificate.get(), NID_subject_key_identifier, "hash");
  require(X509_sign(certificate.get(), &key, EVP_sha256()), "sign a certificate");
  return certificate;
}

Certificate sign(X509_REQ& request, const Grant& grant, X509& authority, EVP_PKEY& authority_key) {
  Certificate certificate(require(X509_new(), "make a certificate"));
  X509* raw = certificate.get();
  require(X509_set_version(raw, X509_VERSION_3), "set a version");
  require(X509_set_serialNumber(raw, integer_of(grant.serial).get()), "set a serial number");
  set_validity(raw, grant.validity);
  set_common_name(X509_get_subject_name(raw), grant.name);
  require(X509_set_issuer_name(raw, X509_get_subject_name(&authority)), "set an issuer");
  require(X509_set_pubkey(raw, X509_REQ_get0_pubkey(&request)), "set a public key");
  add_extension(raw, &authority, NID_basic_constraints, "critical,CA:FALSE");
  add_extension(raw, &authority, NID_key_usage, "critical,digitalSignature");
  add_extension(raw, &authority, NID_ext_key_usage, usage_of(grant.role));
  add_extension(raw, &authority, NID_subject_key_identifier, "hash");
  add_extension(raw, &authority, NID_authority_key_identifier, "keyid");
  if (const std::string names = alternative_names(grant); !names.empty()) {
    add_extension(raw, &authority, NID_subject_alt_name, names);
  }
  require(X509_sign(raw, &authority_key, EVP_sha256()), "sign a certificate");
  return certificate;
}

std::string revocation_list(const std::vector<Revocation>& revocations, std::uint64_t number, const Validity& validity,
                            X509& authority, EVP_PKEY& authority_key) {
  const RevocationList list(require(X509_CRL_new(), "make a revocation list"));
  require(X509_CRL_set_version(list.get(), X509_CRL_VERSION_2), "set a version");
  require(X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(&authority)), "set an issuer");
  require(X509_CRL_set1_lastUpdate(list.get(), time_of(validity.begin).get()), "write a validity");
  require(X509_CRL_set1_nextUpdate(list.get(), time_of(validity.end).get()), "write a validity");
  for (const Revocation& revocation : revocations) {
    Revoked revoked(require(X509_REVOKED_new(), "make a revocation"));
    require(X509_REVOKED_set_serialNumber(revoked.get(), integer_of(revocation.serial).get()), "set a serial number");
    require(X509_REVOKED_set_revocationDate(revoked.get(), time_of(revocation.at).get()), "write a time");
    require(X509_CRL_add0_revoked(list.get(), revoked.get()), "add a revocation");
    (void)revoked.release();  // the list's now
  }
  const Integer counter(require(ASN1_INTEGER_new(), "make a number"));
  require(ASN1_INTEGER_set_uint64(counter.get(), number), "write a number");
  require(X509_CRL_add1_ext_i2d(list.get(), NID_crl_number, counter.get(), 0, 0), "number the list");
  require(X509_CRL_sort(list.get()), "sort a revocation list");
  require(X509_CRL_sign(list.get(), &authority_key, EVP_sha256()), "sign a revocation list");
  return pem_of([&](BIO* out) { return PEM_write_bio_X509_CRL(out, list.get()); });
}

std::string to_pem(EVP_PKEY& key) {
  return pem_of(
      [&](BIO* out) { return PEM_write_bio_PKCS8PrivateKey(out, &key, nullptr, nullptr, 0, nullptr, nullptr); });
}
std::string to_pem(X509_REQ& request) {
  return pem_of([&](BIO* out) { return PEM_write_bio_X509_REQ(out, &request); });
}
std::string to_pem(X509& certificate) {
  return pem_of([&](BIO* out) { return PEM_write_bio_X509(out, &certificate); });
}

Key read_key(const std::filesystem::path& file) {
  const std::string pem = read_text(file);
  bool is_encrypted = false;
  const auto read = [&is_encrypted](BIO* in) {
    return PEM_read_bio_PrivateKey(in, nullptr, refuse_passphrase, &is_encrypted);
  };
  try {
    return parse_pem<Key>(pem, file.string(), "private key", read);
  } catch (const Error&) {
    if (is_encrypted) throw Error(Errc::data, encrypted_key_text(file.string()));
    throw;
  }
}

Request parse_request(const std::string& pem, const std::string& name) {
  auto request = parse_pem<Request>(pem, name, "certificate request", [](BIO* in) {
    return PEM_read_bio_X509_REQ(in, nullptr, refuse_passphrase, nullptr);
  });
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr || X509_REQ_verify(request.get(), key) != 1) {
    ERR_clear_error();
    throw Error(Errc::data, name + ": is not signed with the key that it asks for; was it changed on its way?");
  }
  return request;
}

Request read_request(const std::filesystem::path& file) { return parse_request(read_text(file), file.string()); }

Certificate read_certificate(const std::filesystem::path& file) {
  return parse_pem<Certificate>(read_text(file), file.string(), "certificate",
                                [](BIO* in) { return PEM_read_bio_X509(in, nullptr, refuse_passphrase, nullptr); });
}

std::string name_of(X509_REQ& request) {
  std::array<char, 256> name{};
  const int length = X509_NAME_get_text_by_NID(X509_REQ_get_subject_name(&request), NID_commonName, name.data(),
                                               static_cast<int>(name.size()));
  return length > 0 ? std::string(name.data(), static_cast<std::size_t>(length)) : "";
}

std::string fingerprint(X509_REQ& request) { return fingerprint_of(X509_REQ_get0_pubkey(&request)); }
std::string fingerprint(X509& certificate) { return fingerprint_of(X509_get0_pubkey(&certificate)); }

std::string random_serial() {
  std::array<unsigned char, 16> bits{};
  require(RAND_bytes(bits.data(), static_cast<int>(bits.size())), "draw random numbers");
  bits[0] = static_cast<unsigned char>((bits[0] & 0x7f) | 0x40);  // positive, and always of the same length
  std::array<char, 2 * bits.size() + 1> text{};
  require(OPENSSL_buf2hexstr_ex(text.data(), text.size(), nullptr, bits.data(), bits.size(), '\0'), "write a number");
  return text.data();
}

}  // namespace headstart::pki
