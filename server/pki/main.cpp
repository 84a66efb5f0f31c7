// headstart-pki: certificates for mutual TLS. At the coordinator: init, sign, revoke, list. At a silo: request.
#include <chrono>
#include <iostream>

#include <fmt/format.h>

#include "server/pki/authority.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/expiry.hpp"
#include "shared/base/time_text.hpp"

namespace {

using namespace headstart;

struct Options {
  std::filesystem::path folder = "pki";
  std::string authority_name = "headstart authority";
  int authority_days = 3650;
  std::filesystem::path out = ".";
  std::string name;
  std::filesystem::path request;
  pki::SignOptions sign;
};

std::string state_of(const pki::Issued& issued, SystemTime now) {
  return issued.revoked ? "revoked " + date_text(*issued.revoked) : expiry_text(issued.expires, now);
}

int list(const pki::Authority& authority, SystemTime now) {
  for (const pki::Issued& issued : authority.issued()) {
    std::cout << fmt::format("{:<24} {:<6} {}  {}\n", issued.name,
                             issued.role == pki::Role::server ? "server" : "client", issued.serial,
                             state_of(issued, now));
  }
  const auto tell = [now](const std::string& what, SystemTime end, const char* advice) {
    std::cout << fmt::format("{}: {}{}\n", what, expiry_text(end, now), ends_soon(end, now) ? advice : "");
  };
  tell("revocation list " + authority.revocations_file().string(), authority.revocations_expire(),
       "; sign it anew: headstart-pki renew-list");
  tell("the authority itself", authority.expires(), "; make a new one and have every side request anew");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Headstart certificates: an authority at the coordinator, a request from each silo.");
  app.require_subcommand(1);
  Options options;
  const auto at_authority = [&](CLI::App* command) {
    add_path(*command, "--folder", options.folder, "The authority's folder")->capture_default_str();
    return command;
  };
  CLI::App* init =
      at_authority(app.add_subcommand("init", "Make an authority: key, certificate, empty revocation list"));
  init->add_option("--name", options.authority_name, "What it is called")->capture_default_str();
  init->add_option("--days", options.authority_days, "How long it lasts")
      ->check(CLI::Range(1, 36500))
      ->capture_default_str();
  CLI::App* request = app.add_subcommand("request",
                                         "At the silo or server: make a key, which stays, and a request to sign; where "
                                         "the key is there without its request, the "
                                         "request alone");
  request->add_option("--name", options.name, "The client's name in the run, or the server's")->required();
  add_path(*request, "--out", options.out, "Where NAME.key and NAME.csr are written")->capture_default_str();
  CLI::App* sign = at_authority(app.add_subcommand("sign", "Certify a request"));
  add_path(*sign, "request", options.request, "The file that the silo sent, NAME.csr")->required();
  sign->add_option("--name", options.sign.name, "Whose request it is, where the file is not called NAME.csr");
  bool renews = false;
  bool replaces = false;
  CLI::Option* renewal = sign->add_flag(
      "--renew", renews, "Certify the key of a name that holds a certificate once more; refused for another key");
  sign->add_flag("--replace", replaces,
                 "Certify another key of a name that holds a certificate, and revoke that; ask the silo first")
      ->excludes(renewal);
  sign->add_flag("--server", options.sign.is_server, "For a server; clients' certificates cannot serve as one");
  sign->add_option("--host", options.sign.hosts, "A server's host name or IP address; may be repeated");
  sign->add_option("--days", options.sign.days, "How long it lasts")->check(CLI::Range(1, 3650))->capture_default_str();
  CLI::App* revoke = at_authority(app.add_subcommand("revoke", "Take back every certificate of a name"));
  revoke->add_option("name", options.name, "Whose")->required();
  CLI::App* renew = at_authority(app.add_subcommand("renew-list", "Sign the revocation list anew before it runs out"));
  CLI::App* show = at_authority(app.add_subcommand("list", "Who has a certificate, and until when"));

  return run_program("headstart-pki", app, argc, argv, [&] {
    const auto now = std::chrono::system_clock::now();
    if (request->parsed()) {
      const pki::Requested requested = pki::make_request_files(options.out, options.name);
      std::cout << fmt::format("{0}.key {1} here; send {0}.csr to the coordinator.\nfingerprint {2}\n",
                               (options.out / options.name).string(),
                               requested.is_key_kept ? "was there already and stays" : "stays", requested.fingerprint);
      return 0;
    }
    if (init->parsed()) {
      pki::Authority::create(options.folder, options.authority_name, options.authority_days, now);
      std::cout << fmt::format("{0}/authority.pem is for everyone, {0}/authority.key for nobody else\n",
                               options.folder.string());
      return 0;
    }
    pki::Authority authority(options.folder);
    if (show->parsed()) return list(authority, now);
    if (sign->parsed()) {
      if (renews) options.sign.again = pki::Again::renew;
      if (replaces) options.sign.again = pki::Again::replace;
      const pki::Signed done = authority.sign(options.request, options.sign, now);
      std::cout << fmt::format(
          "{}\nfor '{}' and the key with fingerprint {}: compare it with what the silo reads out\n", done.file.string(),
          done.name, done.fingerprint);
      for (const pki::Issued& issued : done.revoked) {
        std::cout << fmt::format("revoked: {}, of the key with fingerprint {}; give the server the new {}\n",
                                 issued.serial, issued.fingerprint, authority.revocations_file().string());
      }
    } else if (revoke->parsed()) {
      const std::size_t count = authority.revoke(options.name, now);
      const std::string done =
          count == 0 ? fmt::format("all of '{}' were revoked before; the list was signed anew", options.name)
                     : fmt::format("{} certificate{} revoked", count, count == 1 ? "" : "s");
      std::cout << fmt::format("{}; the server that reads {} ends their connections\n", done,
                               authority.revocations_file().string());
    } else if (renew->parsed()) {
      authority.renew_revocations(now);
      std::cout << authority.revocations_file().string() << '\n';
    }
    return 0;
  });
}
