#include "server/pki/authority.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fmt/format.h>
#include <sys/file.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/names.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/time_text.hpp"

namespace headstart::pki {
namespace {

constexpr int revocation_days = 365;
/// Clocks of two sites differ a little: a certificate is valid a little before it was signed.
constexpr std::chrono::hours clock_tolerance{1};

Validity validity_of(SystemTime now, int days) { return {now - clock_tolerance, now + std::chrono::days(days)}; }

void write_private(const std::filesystem::path& file, std::string_view text) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    const std::string advice = errno == EEXIST ? "; a key is never overwritten: move it away first" : "";
    throw Error(Errc::storage, fmt::format("{}: cannot be made ({}){}", file.string(),
                                           std::generic_category().message(errno), advice));
  }
  const bool is_written =
      ::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(descriptor) == 0;
  ::close(descriptor);
  if (!is_written) throw Error(Errc::storage, file.string() + ": cannot be written; is the disk full?");
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::create_directory(folder, code);
  if (code) throw Error(Errc::storage, fmt::format("{}: cannot be made ({})", folder.string(), code.message()));
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int value() const { return value_; }

 private:
  int value_;
};

/// An authority's folder as it is made: it appears under its name when it is complete. Destroyed before, it leaves
/// nothing; whoever is killed before leaves FOLDER.part, with a key that has certified nobody.
class NewFolder {
 public:
  /// Throws Error(storage): FOLDER exists; FOLDER.part is being made by another process, or holds other things.
  explicit NewFolder(const std::filesystem::path& target)
      // A separator at the end would make the folder its own parent.
      : target_(target.has_filename() ? target : target.parent_path()),
        part_(target_.string() + ".part"),
        lock_(open_part()) {
    if (::flock(lock_.value(), LOCK_EX | LOCK_NB) != 0) {
      throw Error(Errc::storage, part_.string() + ": another headstart-pki init is at work there");
    }
    if (is_taken()) {  // the other one was done just now
      ::rmdir(part_.c_str());
      refuse_to_overwrite();
    }
    clear();
    if (!entries_in(part_, Errc::storage).empty()) {
      throw Error(Errc::storage,
                  part_.string() + ": is needed meanwhile, and holds what no headstart-pki init left; move it away");
    }
  }
  ~NewFolder() {
    if (is_in_place_) return;
    clear();
    ::rmdir(part_.c_str());
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return part_; }

  void put_in_place() {
    if (::rename(part_.c_str(), target_.c_str()) != 0) {
      throw Error(Errc::storage, fmt::format("{}: cannot be put in place ({})", target_.string(),
                                             std::generic_category().message(errno)));
    }
    is_in_place_ = true;
    sync_folder(target_.parent_path());
  }

 private:
  [[nodiscard]] bool is_taken() const {
    std::error_code ignored;
    return std::filesystem::exists(std::filesystem::symlink_status(target_, ignored));
  }
  [[noreturn]] void refuse_to_overwrite() const {
    throw Error(Errc::storage, target_.string() + ": exists already and is never overwritten; choose another folder");
  }
  [[nodiscard]] int open_part() const {
    if (is_taken()) refuse_to_overwrite();
    if (target_.has_parent_path()) make_folders(target_.parent_path());
    make_folder(part_);
    const int descriptor = ::open(part_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (descriptor >= 0) return descriptor;
    throw Error(Errc::storage,
                fmt::format("{}: cannot be opened ({})", part_.string(), std::generic_category().message(errno)));
  }
  /// Removes what an authority's folder holds before it has certified anybody, and nothing else.
  void clear() const {
    std::vector<std::filesystem::path> own;
    for (const char* name : {"authority.key", "authority.pem", "issued.json", "revoked.pem", "issued"}) {
      own.push_back(part_ / name);
    }
    std::error_code ignored;
    std::filesystem::directory_iterator i(part_, ignored);
    for (const std::filesystem::directory_iterator end; !ignored && i != end; i.increment(ignored)) {
      if (AtomicFile::is_partial(i->path())) own.push_back(i->path());
    }
    for (const std::filesystem::path& entry : own) std::filesystem::remove(entry, ignored);
  }

  std::filesystem::path target_;
  std::filesystem::path part_;
  Descriptor lock_;
  bool is_in_place_ = false;
};

std::int64_t seconds_of(SystemTime time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}
SystemTime time_of(std::int64_t seconds) { return SystemTime(std::chrono::seconds(seconds)); }

nlohmann::json to_json(const Issued& issued) {
  return {{"name", issued.name},
          {"role", word_of(issued.role)},
          {"serial", issued.serial},
          {"fingerprint", issued.fingerprint},
          {"expires", seconds_of(issued.expires)},
          {"revoked", issued.revoked ? nlohmann::json(seconds_of(*issued.revoked)) : nlohmann::json()}};
}

/// A word that is none counts as that of a client, who may do the least.
Role role_of(const std::string& word) {
  for (const Role role : {Role::server, Role::peer}) {
    if (word == word_of(role)) return role;
  }
  return Role::client;
}

Issued issued_from(const nlohmann::json& entry) {
  Issued issued;
  issued.name = entry.at("name");
  issued.role = role_of(entry.at("role"));
  issued.serial = entry.at("serial");
  issued.fingerprint = entry.value("fingerprint", "");
  issued.expires = time_of(entry.at("expires"));
  if (!entry.at("revoked").is_null()) issued.revoked = time_of(entry.at("revoked"));
  return issued;
}

/// The name that a request asks for. Throws Error(data) where it is none, or another than the coordinator expects.
std::string requested_name(const Request& request, const std::filesystem::path& file, const SignOptions& options) {
  const std::string name = name_of(*request);
  if (!is_valid_client_name(name)) {
    throw Error(Errc::data, fmt::format("{}: asks for the name {}; expected 1 to 64 letters, digits, '.', '_' or '-'",
                                        file.string(), quotation(name, max_quoted_bytes, '\'')));
  }
  const std::string expected = options.name.empty() ? file.stem().string() : options.name;
  if (name != expected) {
    throw Error(
        Errc::data,
        fmt::format("{0}: asks for the name '{1}', and {2} '{3}'. Who gets it may speak as '{1}': if "
                    "that is meant, say --name {1}",
                    file.string(), name, options.name.empty() ? "is filed as that of" : "--name says", expected));
  }
  return name;
}

/// Throws Error(usage) where the options do not go together.
void check(const SignOptions& options) {
  if (options.role == Role::server && options.hosts.empty()) {
    throw Error(Errc::usage, "a server's certificate needs --host, the names and addresses at which clients reach it");
  }
  if (options.role == Role::client && !options.hosts.empty()) {
    throw Error(Errc::usage,
                "--host is for the certificate of a server or a peer; say --server or --peer, or leave it out");
  }
  for (const std::string& host : options.hosts) {
    if (is_host(host)) continue;
    throw Error(Errc::usage,
                fmt::format("--host: expected a name or an address alone, without scheme, port or brackets, "
                            "and --host again for each further one, got '{}'",
                            host));
  }
}

}  // namespace

std::string word_of(Role role) {
  switch (role) {
    case Role::server:
      return "server";
    case Role::client:
      return "client";
    case Role::peer:
      return "peer";
  }
  return "";
}

void Authority::create(const std::filesystem::path& folder, const std::string& name, int days, SystemTime now) {
  if (name.empty() || name.size() > 64) {
    throw Error(Errc::usage, fmt::format("--name: expected 1 to 64 characters, got {}", name.size()));
  }
  NewFolder made(folder);
  const Key key = make_key();
  const Certificate certificate = make_authority(name, *key, validity_of(now, days));
  write_private(made.path() / "authority.key", to_pem(*key));
  write_text_atomically(made.path() / "authority.pem", to_pem(*certificate));
  write_text_atomically(made.path() / "issued.json", R"({"issued": [], "list_number": 0, "list_expires": 0})");
  make_folder(made.path() / "issued");
  Authority(made.path()).renew_revocations(now);
  made.put_in_place();
}

Authority::Lock::Lock(const std::filesystem::path& file) : descriptor_(::open(file.c_str(), O_RDONLY | O_CLOEXEC)) {
  // Waits: whoever holds it signs or revokes, which takes no time.
  if (descriptor_ < 0 || ::flock(descriptor_, LOCK_EX) != 0) {
    const std::string reason = std::generic_category().message(errno);
    if (descriptor_ >= 0) ::close(descriptor_);
    throw Error(Errc::data,
                fmt::format("{}: cannot be read ({}); is this an authority's folder?", file.string(), reason));
  }
}
Authority::Lock::~Lock() { ::close(descriptor_); }

Authority::Authority(std::filesystem::path folder)
    : folder_(std::move(folder)),
      lock_(folder_ / "authority.key"),
      key_(read_key(folder_ / "authority.key")),
      certificate_(read_certificate(folder_ / "authority.pem")) {
  const std::filesystem::path file = folder_ / "issued.json";
  const nlohmann::json document = read_json(file);
  try {
    for (const nlohmann::json& entry : document.at("issued")) issued_.push_back(issued_from(entry));
    for (Issued& issued : issued_) {
      const std::filesystem::path certificate = certificate_file(issued.name, issued.serial);
      if (!issued.fingerprint.empty() || !is_there(certificate, Errc::data)) continue;
      issued.fingerprint = fingerprint(*read_certificate(certificate));
    }
    list_number_ = document.at("list_number");
    revocations_expire_ = time_of(document.at("list_expires"));
  } catch (const nlohmann::json::exception& error) {
    throw Error(Errc::data, fmt::format("{}: {}", file.string(), error.what()));
  }
}

std::filesystem::path Authority::certificate_file(const std::string& name, const std::string& serial) const {
  return folder_ / "issued" / fmt::format("{}-{}.pem", name, serial);
}

std::vector<Issued*> Authority::replaced_by(const std::string& name, const std::string& fingerprint, Again again,
                                            const std::filesystem::path& request_file, SystemTime now) {
  const auto refuse = [&](Errc code, const std::string& what) {
    throw Error(code, fmt::format("{}: {}", request_file.string(), what));
  };
  std::vector<Issued*> others;            // of the name, for other keys
  const Issued* holds = nullptr;          // of the name, for this key
  bool was_certified_before_now = false;  // the same, also where it has run out
  for (Issued& issued : issued_) {
    const bool is_same_key = issued.fingerprint == fingerprint;
    const bool is_same_name = issued.name == name;
    if (is_same_key && issued.revoked) {
      refuse(Errc::data,
             fmt::format("its key, fingerprint {}, was revoked on {}; a new certificate wants a new key: at the silo, "
                         "move {}.key and {}.csr away, then headstart-pki request",
                         fingerprint, date_text(*issued.revoked), name, name));
    }
    if (issued.revoked) continue;
    was_certified_before_now = was_certified_before_now || (is_same_key && is_same_name);
    if (issued.expires <= now) continue;
    if (is_same_key && !is_same_name) {
      refuse(Errc::data, fmt::format("asks for the name '{}' with the key of '{}', fingerprint {}; each name has a key "
                                     "of its own",
                                     name, issued.name, fingerprint));
    }
    if (is_same_name && is_same_key) holds = &issued;
    if (is_same_name && !is_same_key) others.push_back(&issued);
  }
  if (!others.empty() && again != Again::replace) {
    const Issued& other = *others.back();
    refuse(Errc::usage,
           fmt::format("'{0}' holds a certificate until {1} for another key: fingerprint {2} there, {3} in the "
                       "request. Ask '{0}' by telephone whether the new key is theirs; then --replace certifies it and "
                       "revokes the other",
                       name, date_text(other.expires), other.fingerprint.empty() ? "unknown" : other.fingerprint,
                       fingerprint));
  }
  if (again == Again::renew && !was_certified_before_now) {
    refuse(Errc::usage, fmt::format("'{}' has no certificate for this key, fingerprint {}, that could be renewed; sign "
                                    "without --renew",
                                    name, fingerprint));
  }
  if (others.empty() && holds != nullptr && again != Again::renew) {
    refuse(Errc::usage, fmt::format("'{}' holds a certificate until {} for this same key, fingerprint {}; to certify "
                                    "the key once more say --renew",
                                    name, date_text(holds->expires), fingerprint));
  }
  return others;
}

Signed Authority::sign(const std::filesystem::path& request_file, const SignOptions& options, SystemTime now) {
  const Request request = read_request(request_file);
  const std::string name = requested_name(request, request_file, options);
  check(options);
  const SystemTime end = now + std::chrono::days(options.days);
  if (end > expires()) {
    throw Error(Errc::usage,
                fmt::format("--days {}: the authority itself ends in {} days; ask for fewer, or make a new "
                            "authority",
                            options.days, std::chrono::duration_cast<std::chrono::days>(expires() - now).count()));
  }
  const std::string key = fingerprint(*request);
  const std::vector<Issued*> replaced = replaced_by(name, key, options.again, request_file, now);
  const Grant grant{name, options.role, options.hosts, validity_of(now, options.days), random_serial()};
  const Certificate certificate = pki::sign(*request, grant, *certificate_, *key_);
  Signed done{certificate_file(name, grant.serial), name, key, {}};
  for (Issued* issued : replaced) {
    issued->revoked = now;
    done.revoked.push_back(*issued);
  }
  // First the record, then the certificate: one that nobody has recorded could not be revoked.
  issued_.push_back({name, options.role, grant.serial, key, grant.validity.end, {}});
  if (done.revoked.empty()) {
    save();
  } else {
    renew_revocations(now);
  }
  write_text_atomically(done.file, to_pem(*certificate));
  return done;
}

std::size_t Authority::revoke(const std::string& name, SystemTime now) {
  std::size_t count = 0;
  std::vector<std::string> names;
  for (Issued& issued : issued_) {
    names.push_back(issued.name);
    if (issued.name != name || issued.revoked) continue;
    issued.revoked = now;
    ++count;
  }
  if (std::ranges::find(names, name) == names.end()) {
    const std::string close = nearest(name, names);
    throw Error(Errc::usage, fmt::format("'{}' was never given a certificate{}", name,
                                         close.empty() ? "" : "; did you mean '" + close + "'?"));
  }
  renew_revocations(now);
  return count;
}

void Authority::renew_revocations(SystemTime now) {
  std::vector<Revocation> revocations;
  for (const Issued& issued : issued_) {
    if (issued.revoked) revocations.push_back({issued.serial, *issued.revoked});
  }
  const Validity validity = validity_of(now, revocation_days);
  ++list_number_;
  const std::string list = revocation_list(revocations, list_number_, validity, *certificate_, *key_);
  // First the record: what only the list had revoked, the next list would let in again. The new end last: a list that
  // was not written does not have it.
  save();
  write_text_atomically(revocations_file(), list);
  revocations_expire_ = validity.end;
  save();
}

void Authority::save() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Issued& issued : issued_) list.push_back(to_json(issued));
  const nlohmann::json document = {
      {"issued", list}, {"list_number", list_number_}, {"list_expires", seconds_of(revocations_expire_)}};
  write_text_atomically(folder_ / "issued.json", document.dump(2) + "\n");
}

Requested make_request_files(const std::filesystem::path& folder, const std::string& name) {
  if (!is_valid_client_name(name)) {
    throw Error(Errc::usage, "--name: expected 1 to 64 letters, digits, '.', '_' or '-', got '" + name + "'");
  }
  if (!folder.empty()) make_folders(folder);
  const std::filesystem::path key_file = folder / (name + ".key");
  const std::filesystem::path request_file = folder / (name + ".csr");
  // Killed between the two files, or the request was sent off and removed: the key is still as good as new.
  const bool is_key_kept = is_there(key_file, Errc::storage) && !is_there(request_file, Errc::storage);
  const Key key = is_key_kept ? read_key(key_file) : make_key();
  const Request request = make_request(name, *key);
  if (!is_key_kept) write_private(key_file, to_pem(*key));
  write_text_atomically(request_file, to_pem(*request));
  return {fingerprint(*request), is_key_kept};
}

}  // namespace headstart::pki
