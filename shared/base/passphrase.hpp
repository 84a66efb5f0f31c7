// Encrypted PEM files: programs that run unattended ask nobody for a pass phrase.
#pragma once

#include <string>

namespace headstart {

/// For OpenSSL (pem_password_cb) in place of its own, which would ask at the terminal and wait: refuses. `was_asked` is
/// null or a bool*, which becomes true: the file is encrypted.
int refuse_passphrase(char* buffer, int size, int is_writing, void* was_asked);

/// What to say of such a file: that it is encrypted, and how to decrypt it.
std::string encrypted_key_text(const std::string& file);

}  // namespace headstart
