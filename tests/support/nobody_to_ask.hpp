// Pass phrases: nobody sits at the terminal of a test.
#pragma once

#include <memory>
#include <string>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ui.h>

#include "shared/base/c_deleter.hpp"

namespace headstart::test {

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

enum class KeyFormat { pkcs8, traditional };

/// A private key in PEM form, encrypted with a pass phrase.
inline std::string encrypted_pem(EVP_PKEY& key, KeyFormat format) {
  const std::unique_ptr<BIO, CDeleter<BIO_free_all>> out(BIO_new(BIO_s_mem()));
  std::string phrase = "secret";
  auto* bytes = reinterpret_cast<unsigned char*>(phrase.data());
  if (format == KeyFormat::pkcs8) {
    PEM_write_bio_PKCS8PrivateKey(out.get(), &key, EVP_aes_256_cbc(), phrase.data(), 6, nullptr, nullptr);
  } else {
    PEM_write_bio_PrivateKey_traditional(out.get(), &key, EVP_aes_256_cbc(), bytes, 6, nullptr, nullptr);
  }
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return {text, static_cast<std::size_t>(size)};
}

}  // namespace headstart::test
