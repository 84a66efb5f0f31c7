#include "shared/base/passphrase.hpp"

#include <fmt/format.h>

namespace headstart {

int refuse_passphrase(char* /*buffer*/, int /*size*/, int /*is_writing*/, void* was_asked) {
  if (was_asked != nullptr) *static_cast<bool*>(was_asked) = true;
  return -1;
}

std::string encrypted_key_text(const std::string& file) {
  return fmt::format(
      "{0}: is encrypted with a pass phrase, and nobody is asked for one. Decrypt it into a file that only its owner "
      "may read, and name that file: (umask 077; openssl pkey -in {0} -out {0}.plain)",
      file);
}

}  // namespace headstart
