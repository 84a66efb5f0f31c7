#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include <doctest/doctest.h>
#include <openssl/asn1.h>
#include <openssl/bn.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/file.h>

#include "server/pki/authority.hpp"
#include "shared/base/c_deleter.hpp"
#include "shared/base/files.hpp"
#include "tests/support/nobody_to_ask.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::pki {
namespace {

TEST_CASE("a request reads as it was made, and one that was changed is refused") {
  const Key key = make_key();
  const std::string pem = to_pem(*make_request("silo-1", *key));
  CHECK(name_of(*parse_request(pem, "silo-1.csr")) == "silo-1");
  CHECK(test::error_of(Errc::data, [] { parse_request("nothing", "silo-1.csr"); }).find("silo-1.csr: holds no") == 0);
  CHECK(test::code_of([&] { parse_request(pem.substr(0, pem.size() / 2), "silo-1.csr"); }) == Errc::data);
}

TEST_CASE("a request that is missing beside its key is made anew for it; where both are there nothing is changed") {
  const test::TemporaryFolder folder;
  const std::string key = folder / "silo-1.key";
  const std::string csr = folder / "silo-1.csr";
  const Requested first = make_request_files(folder.path(), "silo-1");
  CHECK_FALSE(first.is_key_kept);
  const std::string key_text = read_text(key);
  std::filesystem::remove(csr);
  const Requested again = make_request_files(folder.path(), "silo-1");
  CHECK(again.is_key_kept);
  CHECK(again.fingerprint == first.fingerprint);
  CHECK(read_text(key) == key_text);
  CHECK(name_of(*read_request(csr)) == "silo-1");
  const std::string csr_text = read_text(csr);
  const std::string both = test::error_of(Errc::storage, [&] { make_request_files(folder.path(), "silo-1"); });
  CHECK(both.find("never overwritten") != std::string::npos);
  CHECK(read_text(key) == key_text);
  CHECK(read_text(csr) == csr_text);
  std::filesystem::remove(csr);
  write_text_atomically(key, key_text.substr(0, key_text.size() / 2));
  const std::string half = test::error_of(Errc::data, [&] { make_request_files(folder.path(), "silo-1"); });
  CHECK(half.find("silo-1.key: holds no private key") != std::string::npos);
}

TEST_CASE("a request that says it is encrypted is refused, and nobody is asked for a passphrase") {
  const Key key = make_key();
  std::string pem = to_pem(*make_request("silo-1", *key));
  pem.insert(pem.find('\n') + 1, "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n");
  const test::NobodyToAsk nobody;
  CHECK(test::code_of([&] { parse_request(pem, "silo-1.csr"); }) == Errc::data);
  CHECK_FALSE(nobody.was_asked());
}

const SystemTime now = std::chrono::system_clock::now();

TEST_CASE("an encrypted key is refused in one sentence, and nobody is asked for a passphrase") {
  const test::TemporaryFolder folder;
  const Key key = make_key();
  const test::NobodyToAsk nobody;
  for (const auto format : {test::KeyFormat::pkcs8, test::KeyFormat::traditional}) {
    write_text_atomically(folder / "silo.key", test::encrypted_pem(*key, format));
    const std::string complaint = test::error_of(Errc::data, [&] { read_key(folder / "silo.key"); });
    CHECK(complaint.find("silo.key: is encrypted with a pass phrase") != std::string::npos);
    CHECK(complaint.find("openssl pkey -in ") != std::string::npos);
  }
  CHECK_FALSE(nobody.was_asked());
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

/// Whether the list that a server would read has revoked this certificate.
bool is_on_list(const std::filesystem::path& list, const std::string& serial) {
  const std::string pem = read_text(list);
  const std::unique_ptr<BIO, CDeleter<BIO_free_all>> in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const std::unique_ptr<X509_CRL, CDeleter<X509_CRL_free>> parsed(
      PEM_read_bio_X509_CRL(in.get(), nullptr, nullptr, nullptr));
  REQUIRE(parsed != nullptr);
  BIGNUM* number = nullptr;
  REQUIRE(BN_hex2bn(&number, serial.c_str()) > 0);
  const std::unique_ptr<BIGNUM, CDeleter<BN_free>> owned(number);
  const std::unique_ptr<ASN1_INTEGER, CDeleter<ASN1_INTEGER_free>> wanted(BN_to_ASN1_INTEGER(number, nullptr));
  X509_REVOKED* entry = nullptr;
  return X509_CRL_get0_by_serial(parsed.get(), &entry, wanted.get()) == 1;
}

/// Takes a file away and puts in its place what none can be written over, until it is destroyed.
class Obstacle {
 public:
  explicit Obstacle(std::filesystem::path file) : file_(std::move(file)) {
    std::filesystem::rename(file_, kept());
    std::filesystem::create_directories(file_ / "full");
  }
  ~Obstacle() {
    std::filesystem::remove_all(file_);
    std::filesystem::rename(kept(), file_);
  }
  Obstacle(const Obstacle&) = delete;
  Obstacle& operator=(const Obstacle&) = delete;

 private:
  [[nodiscard]] std::filesystem::path kept() const { return file_.string() + ".kept"; }
  std::filesystem::path file_;
};

TEST_CASE("a revocation that was cut short is nowhere, or stands in the record and is completed by the same again") {
  const test::TemporaryFolder folder;
  Authority::create(folder / "pki", "test", 3650, now);
  make_request_files(folder.path(), "silo-1");
  Authority(folder / "pki").sign(folder / "silo-1.csr", {}, now);
  const std::string serial = Authority(folder / "pki").issued().front().serial;
  const std::filesystem::path list = folder / "pki/revoked.pem";
  const std::filesystem::path record = folder / "pki/issued.json";
  {
    Authority authority(folder / "pki");
    const Obstacle reason(record);
    CHECK(test::code_of([&] { authority.revoke("silo-1", now); }) == Errc::storage);
    CHECK_FALSE(is_on_list(list, serial));
  }
  CHECK_FALSE(Authority(folder / "pki").issued().front().revoked.has_value());
  {
    Authority authority(folder / "pki");
    const Obstacle reason(list);
    const SystemTime later = now + std::chrono::days(10);
    CHECK(test::code_of([&] { authority.revoke("silo-1", later); }) == Errc::storage);
  }
  // The record knows, and does not claim the list that was not written.
  CHECK(Authority(folder / "pki").issued().front().revoked.has_value());
  CHECK(Authority(folder / "pki").revocations_expire() < now + std::chrono::days(366));
  CHECK_FALSE(is_on_list(list, serial));
  SUBCASE("the same again") { CHECK(Authority(folder / "pki").revoke("silo-1", now) == 0); }
  SUBCASE("the next list") { Authority(folder / "pki").renew_revocations(now); }
  CHECK(is_on_list(list, serial));
  Authority(folder / "pki").renew_revocations(now);
  CHECK(is_on_list(list, serial));
}

TEST_CASE("only a name that was never certified cannot be revoked") {
  const test::TemporaryFolder folder;
  Authority::create(folder / "pki", "test", 3650, now);
  make_request_files(folder.path(), "silo-1");
  Authority authority(folder / "pki");
  authority.sign(folder / "silo-1.csr", {}, now);
  CHECK(contains(test::error_of(Errc::usage, [&] { authority.revoke("silo-2", now); }), "did you mean 'silo-1'?"));
  CHECK(authority.revoke("silo-1", now) == 1);
  CHECK(authority.revoke("silo-1", now) == 0);
}

TEST_CASE("an authority is made anew over what one that was killed has left, and over nothing else") {
  const test::TemporaryFolder folder;
  const std::filesystem::path part = folder / "pki.part";
  const auto create = [&] { Authority::create(folder / "pki", "test", 3650, now); };
  std::filesystem::create_directories(part / "issued");
  for (const char* name : {"authority.key", "authority.pem", "issued.json", "revoked.pem.part-77"}) {
    write_text_atomically(part / name, "half");
  }
  SUBCASE("what was left") {
    create();
    CHECK_FALSE(std::filesystem::exists(part));
    CHECK(Authority(folder / "pki").issued().empty());
    CHECK_FALSE(std::filesystem::exists(folder / "pki/revoked.pem.part-77"));
    CHECK(contains(test::error_of(Errc::storage, create), "exists already and is never overwritten"));
    CHECK_FALSE(std::filesystem::exists(part));
  }
  SUBCASE("somebody's own") {
    write_text_atomically(part / "issued/notes", "mine");
    CHECK(contains(test::error_of(Errc::storage, create), "move it away"));
    CHECK(read_text(part / "issued/notes") == "mine");
    CHECK_FALSE(std::filesystem::exists(folder / "pki"));
  }
  SUBCASE("what is being made") {
    const int other = ::open(part.c_str(), O_RDONLY | O_DIRECTORY);
    REQUIRE(::flock(other, LOCK_EX) == 0);
    CHECK(contains(test::error_of(Errc::storage, create), "another headstart-pki init is at work"));
    CHECK(read_text(part / "authority.key") == "half");
    ::close(other);
    create();
    CHECK(Authority(folder / "pki").issued().empty());
  }
}

TEST_CASE("an authority's folder may be named with a separator at the end") {
  const test::TemporaryFolder folder;
  Authority::create(folder / "sites/pki/", "test", 3650, now);
  CHECK(Authority(folder / "sites/pki").issued().empty());
  CHECK(std::ranges::distance(std::filesystem::directory_iterator(folder / "sites")) == 1);
}

/// An authority, and silos whose keys lie in folders of their own.
struct Sites {
  Sites() { Authority::create(folder / "pki", "test", 3650, now); }
  /// Makes a key and a request for `name` in `home`; the request's file.
  std::filesystem::path request(const std::string& home, const std::string& name) const {
    print = make_request_files(folder / home, name).fingerprint;
    return folder / home / (name + ".csr");
  }
  Signed sign(const std::filesystem::path& file, const SignOptions& options = {}, SystemTime at = now) const {
    return Authority(folder / "pki").sign(file, options, at);
  }
  std::string refusal(Errc code, const std::filesystem::path& file, const SignOptions& options = {},
                      SystemTime at = now) const {
    return test::error_of(code, [&] { sign(file, options, at); });
  }
  std::vector<Issued> issued() const { return Authority(folder / "pki").issued(); }

  test::TemporaryFolder folder;
  mutable std::string print;  ///< The fingerprint of the last request.
};

TEST_CASE("a name that holds a certificate gets another for the same key only where it is told") {
  const Sites sites;
  const std::filesystem::path file = sites.request("mary", "st-mary");
  CHECK(sites.sign(file).name == "st-mary");
  const std::string refusal = sites.refusal(Errc::usage, file);
  CHECK(contains(refusal, "'st-mary' holds a certificate until "));
  CHECK(contains(refusal, sites.print));
  CHECK(contains(refusal, "--renew"));
  CHECK(contains(sites.refusal(Errc::usage, file, {.again = Again::replace}), "--renew"));
  CHECK(sites.issued().size() == 1);
  const Signed renewed = sites.sign(file, {.again = Again::renew});
  CHECK(renewed.revoked.empty());
  CHECK(std::filesystem::exists(renewed.file));
  REQUIRE(sites.issued().size() == 2);
  CHECK_FALSE(sites.issued().front().revoked.has_value());
  // Also once it has run out.
  const SystemTime later = now + std::chrono::days(400);
  CHECK_NOTHROW(sites.sign(file, {.again = Again::renew}, later));
}

TEST_CASE("another key under a name that holds a certificate is refused with both fingerprints, or revokes the first") {
  const Sites sites;
  const std::filesystem::path first = sites.request("mary", "st-mary");
  const std::string first_print = sites.print;
  sites.sign(first);
  const std::filesystem::path second = sites.request("elsewhere", "st-mary");
  for (const Again again : {Again::refuse, Again::renew}) {
    const std::string refusal = sites.refusal(Errc::usage, second, {.again = again});
    CHECK(contains(refusal, "another key: fingerprint " + first_print + " there, " + sites.print));
    CHECK(contains(refusal, "--replace"));
  }
  CHECK(sites.issued().size() == 1);
  const Signed done = sites.sign(second, {.again = Again::replace});
  REQUIRE(done.revoked.size() == 1);
  CHECK(done.revoked.front().fingerprint == first_print);
  CHECK(sites.issued().front().revoked.has_value());
  CHECK(is_on_list(sites.folder / "pki/revoked.pem", sites.issued().front().serial));
  CHECK_FALSE(is_on_list(sites.folder / "pki/revoked.pem", sites.issued().back().serial));
  CHECK_NOTHROW(sites.sign(second, {.again = Again::renew}));
  CHECK(contains(sites.refusal(Errc::data, first, {.again = Again::replace}), "was revoked on"));
}

TEST_CASE("there is nothing to renew under a name without a certificate for that key") {
  const Sites sites;
  const std::filesystem::path file = sites.request("mary", "st-mary");
  CHECK(contains(sites.refusal(Errc::usage, file, {.again = Again::renew}), "sign without --renew"));
  CHECK(sites.issued().empty());
}

TEST_CASE("a request for the name of another silo is refused, however right its fingerprint is") {
  const Sites sites;
  const std::filesystem::path asks_for_mary = sites.request("paul", "st-mary");
  const std::filesystem::path filed = sites.folder / "st-paul.csr";
  std::filesystem::copy(asks_for_mary, filed);
  const std::string refusal = sites.refusal(Errc::data, filed);
  CHECK(contains(refusal, "st-paul.csr: asks for the name 'st-mary', and is filed as that of 'st-paul'"));
  CHECK(contains(sites.refusal(Errc::data, asks_for_mary, {.name = "st-paul"}), "--name says 'st-paul'"));
  CHECK(sites.issued().empty());
  CHECK(sites.sign(filed, {.name = "st-mary"}).name == "st-mary");
}

TEST_CASE("one key is certified for one name, and no more once it was revoked") {
  const Sites sites;
  const std::filesystem::path mary = sites.request("mary", "st-mary");
  sites.sign(mary);
  const Key key = read_key(sites.folder / "mary/st-mary.key");
  write_text_atomically(sites.folder / "st-paul.csr", to_pem(*make_request("st-paul", *key)));
  CHECK(contains(sites.refusal(Errc::data, sites.folder / "st-paul.csr"),
                 "asks for the name 'st-paul' with the key of 'st-mary', fingerprint " + sites.print));
  Authority(sites.folder / "pki").revoke("st-mary", now);
  for (const Again again : {Again::refuse, Again::renew, Again::replace}) {
    CHECK(contains(sites.refusal(Errc::data, mary, {.again = again}), "was revoked on"));
  }
}

TEST_CASE("a peer's certificate serves both ways and is made out to its name, whatever form that has") {
  const Sites sites;
  for (const std::string name : {"silo-1", "site_a", "192.0.2.7"}) {
    const std::filesystem::path file = sites.request(name, name);
    const Signed done = sites.sign(file, {.role = Role::peer, .hosts = {"a.example.org", "192.0.2.1"}});
    const Certificate certificate = read_certificate(done.file);
    CHECK(X509_get_extended_key_usage(certificate.get()) == (XKU_SSL_SERVER | XKU_SSL_CLIENT));
    for (const std::string& host : {name, std::string("a.example.org")}) {
      CHECK(X509_check_host(certificate.get(), host.c_str(), 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr) == 1);
    }
    CHECK(X509_check_host(certificate.get(), "silo-2", 0, 0, nullptr) == 0);
    CHECK(X509_check_ip_asc(certificate.get(), "192.0.2.1", 0) == 1);
    CHECK(X509_check_ip_asc(certificate.get(), "192.0.2.7", 0) == 0);
    CHECK(sites.issued().back().role == Role::peer);
  }
  const std::filesystem::path file = sites.request("client", "silo-9");
  CHECK(contains(sites.refusal(Errc::usage, file, {.hosts = {"a.example.org"}}), "--server or --peer"));
  const Certificate client = read_certificate(sites.sign(file).file);
  CHECK(X509_get_extended_key_usage(client.get()) == XKU_SSL_CLIENT);
  CHECK(sites.issued().back().role == Role::client);
  CHECK_NOTHROW(sites.sign(sites.request("alone", "silo-10"), {.role = Role::peer}));
}

TEST_CASE("an authority whose record has no fingerprints takes them from the certificates") {
  const Sites sites;
  const std::filesystem::path file = sites.request("mary", "st-mary");
  sites.sign(file);
  nlohmann::json record = read_json(sites.folder / "pki/issued.json");
  record["issued"][0].erase("fingerprint");
  write_text_atomically(sites.folder / "pki/issued.json", record.dump());
  CHECK(sites.issued().front().fingerprint == sites.print);
  CHECK(contains(sites.refusal(Errc::usage, file), sites.print));
}

}  // namespace
}  // namespace headstart::pki
