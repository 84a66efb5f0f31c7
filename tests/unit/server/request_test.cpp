#include <doctest/doctest.h>
#include <openssl/ui.h>

#include "server/pki/authority.hpp"
#include "shared/base/files.hpp"
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

}  // namespace
}  // namespace headstart::pki
