// An authority of the tests' own, and files of those it certifies.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "server/pki/authority.hpp"
#include "shared/net/tls.hpp"
#include "tests/support/temporary_folder.hpp"

namespace headstart::test {

class TestAuthority {
 public:
  TestAuthority();

  /// Certified at `at` for 365 days, each name with the key that it had before unless that was revoked. A server is
  /// reached at 127.0.0.1 unless other hosts are named.
  net::TlsFiles client(const std::string& name, pki::SystemTime at = std::chrono::system_clock::now());
  net::TlsFiles server(std::vector<std::string> hosts = {"127.0.0.1"});
  net::TlsFiles peer(const std::string& name, std::vector<std::string> hosts = {});
  void revoke(const std::string& name);
  /// Signs the revocation list as if at `at`; it lasts for a year from then.
  void renew_revocations(pki::SystemTime at);

 private:
  net::TlsFiles certify(const std::string& name, pki::SignOptions options, pki::SystemTime at);

  TemporaryFolder folder_;
  std::map<std::string, std::filesystem::path> homes_;  ///< By name: where key and request lie.
  int num_homes_ = 0;
};

}  // namespace headstart::test
