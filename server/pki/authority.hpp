// A certificate authority in a folder: who was given a certificate, and whose was taken back.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "server/pki/x509.hpp"

namespace headstart::pki {

/// "server", "client", "peer".
std::string word_of(Role role);

struct Issued {
  std::string name;
  Role role = Role::client;
  std::string serial;
  std::string fingerprint;  ///< Of its key; empty where neither record nor certificate tell.
  SystemTime expires;
  std::optional<SystemTime> revoked;
};

/// What may be certified under a name that holds a certificate already.
enum class Again {
  refuse,
  renew,    ///< The same key once more; the certificate that is there stays good.
  replace,  ///< Another key; the certificates for other keys are revoked.
};

struct SignOptions {
  std::string name;  ///< Whose request it must be; empty: as its file is called, NAME.csr.
  Again again = Again::refuse;
  Role role = Role::client;
  std::vector<std::string> hosts;  ///< Names and addresses: a server needs them, a peer may have them, a client not.
  int days = 365;
};

/// A certificate, to whom and to which key it was given, and what it took the place of.
struct Signed {
  std::filesystem::path file;
  std::string name;
  std::string fingerprint;
  std::vector<Issued> revoked;
};

/// Holds in its folder: authority.key (readable by the owner alone), authority.pem (for everyone), revoked.pem (for the
/// server), issued.json, and issued/NAME-SERIAL.pem. The time is given: nothing here reads a clock.
class Authority {
 public:
  /// Makes the folder, which must not exist: whole, or not at all. It is made as FOLDER.part beside it, and what one
  /// that was killed has left there is removed by the next. Throws Error(storage).
  static void create(const std::filesystem::path& folder, const std::string& name, int days, SystemTime now);

  /// Holds the folder against other processes while it lives. Throws Error(data) naming the file that is missing or
  /// damaged.
  explicit Authority(std::filesystem::path folder);

  /// Certifies a request; the request's name becomes the holder's. Throws Error(data) for a request that is none, whose
  /// name no client may have or is not that of options.name, or whose key was revoked or certified for another name;
  /// Error(usage) where the name holds a certificate and options.again does not allow for another, for a server without
  /// hosts, hosts that are none, or more days than the authority has left.
  Signed sign(const std::filesystem::path& request, const SignOptions& options, SystemTime now);

  /// Takes back every certificate of `name` that holds still and signs a new revocation list, also where none holds any
  /// more: after one that was killed, the same again completes it. Returns how many. Throws Error(usage) where `name`
  /// was never given one.
  std::size_t revoke(const std::string& name, SystemTime now);

  /// Signs the revocation list anew, as it has an end.
  void renew_revocations(SystemTime now);

  [[nodiscard]] const std::vector<Issued>& issued() const { return issued_; }
  [[nodiscard]] SystemTime expires() const { return end_of(*certificate_); }
  [[nodiscard]] SystemTime revocations_expire() const { return revocations_expire_; }
  [[nodiscard]] std::filesystem::path revocations_file() const { return folder_ / "revoked.pem"; }

 private:
  void save() const;
  [[nodiscard]] std::filesystem::path certificate_file(const std::string& name, const std::string& serial) const;
  /// What a certificate of `name` for this key is to take the place of. Throws as sign() does where there may be none.
  std::vector<Issued*> replaced_by(const std::string& name, const std::string& fingerprint, Again again,
                                   const std::filesystem::path& request_file, SystemTime now);

  class Lock {
   public:
    explicit Lock(const std::filesystem::path& file);
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    int descriptor_;
  };

  std::filesystem::path folder_;
  Lock lock_;
  Key key_;
  Certificate certificate_;
  std::vector<Issued> issued_;
  std::uint64_t list_number_ = 0;
  SystemTime revocations_expire_;
};

struct Requested {
  std::string fingerprint;   ///< Of the request.
  bool is_key_kept = false;  ///< The key was there before.
};

/// Writes NAME.key (readable by the owner alone) and NAME.csr into `folder`; the key never leaves it. Where the key is
/// there without the request, the request is made for that key. Throws Error(storage) where both are there, Error(data)
/// where the key that is there is none.
Requested make_request_files(const std::filesystem::path& folder, const std::string& name);

}  // namespace headstart::pki
