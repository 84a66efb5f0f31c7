#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include <doctest/doctest.h>
#include <openssl/asn1.h>
#include <openssl/bn.h>
#include <openssl/pem.h>
#include <openssl/ui.h>
#include <sys/file.h>

#include "server/pki/authority.hpp"
#include "shared/base/files.hpp"
#include "shared/base/freed.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::pki {
namespace {

/// Notes that OpenSSL would ask whoever sits at the terminal.
class NobodyToAsk {
 public:
  NobodyToAsk() : method_(UI_create_method("nobody")) {
    was_asked_ = false;
    UI_method_set_opener(method_, [](UI*) {
      was_asked_ = true;
      return 0;
    });
    UI_set_default_method(method_);
  }
  ~NobodyToAsk() {
    UI_set_default_method(UI_OpenSSL());
    UI_destroy_method(method_);
  }
  NobodyToAsk(const NobodyToAsk&) = delete;
  NobodyToAsk& operator=(const NobodyToAsk&) = delete;
  [[nodiscard]] static bool was_asked() { return was_asked_; }

 private:
  UI_METHOD* method_;
  static inline bool was_asked_ = false;
};

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
  const NobodyToAsk nobody;
  CHECK(test::code_of([&] { parse_request(pem, "silo-1.csr"); }) == Errc::data);
  CHECK_FALSE(nobody.was_asked());
}

const SystemTime now = std::chrono::system_clock::now();

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

/// Whether the list that a server would read has revoked this certificate.
bool is_on_list(const std::filesystem::path& list, const std::string& serial) {
  const std::string pem = read_text(list);
  const std::unique_ptr<BIO, Freed<BIO_free_all>> in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const std::unique_ptr<X509_CRL, Freed<X509_CRL_free>> parsed(
      PEM_read_bio_X509_CRL(in.get(), nullptr, nullptr, nullptr));
  REQUIRE(parsed != nullptr);
  BIGNUM* number = nullptr;
  REQUIRE(BN_hex2bn(&number, serial.c_str()) > 0);
  const std::unique_ptr<BIGNUM, Freed<BN_free>> owned(number);
  const std::unique_ptr<ASN1_INTEGER, Freed<ASN1_INTEGER_free>> wanted(BN_to_ASN1_INTEGER(number, nullptr));
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
    const Obstacle obstacle(record);
    CHECK(test::code_of([&] { authority.revoke("silo-1", now); }) == Errc::storage);
    CHECK_FALSE(is_on_list(list, serial));
  }
  CHECK_FALSE(Authority(folder / "pki").issued().front().revoked.has_value());
  {
    Authority authority(folder / "pki");
    const Obstacle obstacle(list);
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

}  // namespace
}  // namespace headstart::pki
