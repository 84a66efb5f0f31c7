#include <doctest/doctest.h>
#include <openssl/ui.h>

#include "server/pki/x509.hpp"
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
