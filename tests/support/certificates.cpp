#include "tests/support/certificates.hpp"

namespace headstart::test {

TestAuthority::TestAuthority() {
  pki::Authority::create(folder_ / "pki", "test authority", 3650, std::chrono::system_clock::now());
}

net::TlsFiles TestAuthority::client(const std::string& name, pki::SystemTime at) { return certify(name, {}, at); }

net::TlsFiles TestAuthority::server(std::vector<std::string> hosts) {
  pki::SignOptions options;
  options.role = pki::Role::server;
  options.hosts = std::move(hosts);
  return certify("server", options, std::chrono::system_clock::now());
}

net::TlsFiles TestAuthority::peer(const std::string& name, std::vector<std::string> hosts) {
  pki::SignOptions options;
  options.role = pki::Role::peer;
  options.hosts = std::move(hosts);
  return certify(name, options, std::chrono::system_clock::now());
}

void TestAuthority::revoke(const std::string& name) {
  pki::Authority(folder_ / "pki").revoke(name, std::chrono::system_clock::now());
  homes_.erase(name);
}

void TestAuthority::renew_revocations(pki::SystemTime at) { pki::Authority(folder_ / "pki").renew_revocations(at); }

net::TlsFiles TestAuthority::certify(const std::string& name, pki::SignOptions options, pki::SystemTime at) {
  if (homes_.contains(name)) {
    options.again = pki::Again::renew;
  } else {
    homes_[name] = folder_ / std::to_string(num_homes_++);
    pki::make_request_files(homes_[name], name);
  }
  const std::filesystem::path home = homes_[name];
  const auto certificate = pki::Authority(folder_ / "pki").sign(home / (name + ".csr"), options, at).file;
  net::TlsFiles files;
  files.authority = folder_ / "pki/authority.pem";
  files.certificate = certificate;
  files.key = home / (name + ".key");
  files.revoked = folder_ / "pki/revoked.pem";
  return files;
}

}  // namespace headstart::test
