// An authority of the tests' own, and files of those it certifies.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "server/pki/authority.hpp"
#include "shared/net/tls.hpp"
#include "tests/support/temporary_folder.hpp"

namespace headstart::test {

class TestAuthority {
 public:
  TestAuthority();

  /// Certified at `at` for 365 days. A server is reached at 127.0.0.1 unless other hosts are named.
  net::TlsFiles client(const std::string& name, pki::SystemTime at = std::chrono::system_clock::now());
  net::TlsFiles server(std::vector<std::string> hosts = {"127.0.0.1"});
  void revoke(const std::string& name);
  /// Signs the revocation list as if at `at`; it lasts for a year from then.
  void renew_revocations(pki::SystemTime at);

 private:
  net::TlsFiles certify(const std::string& name, const pki::SignOptions& options, pki::SystemTime at);

  TemporaryFolder folder_;
  int num_certified_ = 0;
};

}  // namespace headstart::test
