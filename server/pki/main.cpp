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
    std::cout << fmt::format("{:<24} {:<6} {}  {}\n", issued.name, pki::word_of(issued.role), issued.serial,
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

int request(const Options& options) {
  const pki::Requested requested = pki::make_request_files(options.out, options.name);
  std::cout << fmt::format("{0}.key {1} here; send {0}.csr to the coordinator.\nfingerprint {2}\n",
                           (options.out / options.name).string(),
                           requested.is_key_kept ? "was there already and stays" : "stays", requested.fingerprint);
  return 0;
}

int init(const Options& options, SystemTime now) {
  pki::Authority::create(options.folder, options.authority_name, options.authority_days, now);
  std::cout << fmt::format("{0}/authority.pem is for everyone, {0}/authority.key for nobody else\n",
                           options.folder.string());
  return 0;
}

int sign(const Options& options, SystemTime now) {
  pki::Authority authority(options.folder);
  const pki::Signed done = authority.sign(options.request, options.sign, now);
  std::cout << fmt::format("{}\nfor '{}' and the key with fingerprint {}: compare it with what the silo reads out\n",
                           done.file.string(), done.name, done.fingerprint);
  for (const pki::Issued& issued : done.revoked) {
    std::cout << fmt::format("revoked: {}, of the key with fingerprint {}; give the server the new {}\n", issued.serial,
                             issued.fingerprint, authority.revocations_file().string());
  }
  return 0;
}

int revoke(const Options& options, SystemTime now) {
  pki::Authority authority(options.folder);
  const std::size_t count = authority.revoke(options.name, now);
  const std::string done = count == 0
                               ? fmt::format("all of '{}' were revoked before; the list was signed anew", options.name)
                               : fmt::format("{} certificate{} revoked", count, count == 1 ? "" : "s");
  std::cout << fmt::format("{}; the server that reads {} ends their connections\n", done,
                           authority.revocations_file().string());
  return 0;
}

int renew_list(const Options& options, SystemTime now) {
  pki::Authority authority(options.folder);
  authority.renew_revocations(now);
  std::cout << authority.revocations_file().string() << '\n';
  return 0;
}

CLI::App& at_authority(CLI::App& app, Options& options, const std::string& name, const std::string& sentence) {
  CLI::App& command = *app.add_subcommand(name, sentence);
  add_path(command, "--folder", options.folder, "The authority's folder")->capture_default_str();
  return command;
}

void add_sign_options(CLI::App& command, Options& options) {
  add_path(command, "request", options.request, "The file that the silo sent, NAME.csr")->required();
  command.add_option("--name", options.sign.name, "Whose request it is, where the file is not called NAME.csr");
  const auto again = [&options](pki::Again how) { return [&options, how](std::int64_t) { options.sign.again = how; }; };
  CLI::Option* renewal = command.add_flag_function(
      "--renew", again(pki::Again::renew),
      "Certify the key of a name that holds a certificate once more; refused for another key");
  command
      .add_flag_function("--replace", again(pki::Again::replace),
                         "Certify another key of a name that holds a certificate, and revoke that; ask the silo first")
      ->excludes(renewal);
  const auto role = [&options](pki::Role what) { return [&options, what](std::int64_t) { options.sign.role = what; }; };
  CLI::Option* server = command.add_flag_function("--server", role(pki::Role::server),
                                                  "For a server; clients' certificates cannot serve as one");
  command
      .add_flag_function("--peer", role(pki::Role::peer),
                         "For a peer, which dials others and is dialled under its own name")
      ->excludes(server);
  command.add_option("--host", options.sign.hosts,
                     "Host name or IP address of a server, or a further one of a peer; may be repeated");
  command.add_option("--days", options.sign.days, "How long it lasts")
      ->check(CLI::Range(1, 3650))
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Headstart certificates: an authority at the coordinator, a request from each silo.");
  app.require_subcommand(1);
  Options options;
  CLI::App& init_command =
      at_authority(app, options, "init", "Make an authority: key, certificate, empty revocation list");
  init_command.add_option("--name", options.authority_name, "What it is called")->capture_default_str();
  init_command.add_option("--days", options.authority_days, "How long it lasts")
      ->check(CLI::Range(1, 36500))
      ->capture_default_str();
  CLI::App& request_command = *app.add_subcommand(
      "request",
      "At the silo or server: make a key, which stays, and a request to sign; where the key is there without its "
      "request, the request alone");
  request_command.add_option("--name", options.name, "The client's name in the run, or the server's")->required();
  add_path(request_command, "--out", options.out, "Where NAME.key and NAME.csr are written")->capture_default_str();
  CLI::App& sign_command = at_authority(app, options, "sign", "Certify a request");
  add_sign_options(sign_command, options);
  CLI::App& revoke_command = at_authority(app, options, "revoke", "Take back every certificate of a name");
  revoke_command.add_option("name", options.name, "Whose")->required();
  CLI::App& renew_command =
      at_authority(app, options, "renew-list", "Sign the revocation list anew before it runs out");
  at_authority(app, options, "list", "Who has a certificate, and until when");

  return run_program("headstart-pki", app, argc, argv, [&] {
    const auto now = std::chrono::system_clock::now();
    if (request_command.parsed()) return request(options);
    if (init_command.parsed()) return init(options, now);
    if (sign_command.parsed()) return sign(options, now);
    if (revoke_command.parsed()) return revoke(options, now);
    if (renew_command.parsed()) return renew_list(options, now);
    return list(pki::Authority(options.folder), now);
  });
}
