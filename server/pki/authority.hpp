// A certificate authority in a folder: who was given a certificate, and whose was taken back.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "server/pki/x509.hpp"

namespace headstart::pki {

struct Issued {
  std::string name;
  Role role = Role::client;
  std::string serial;
  SystemTime expires;
  std::optional<SystemTime> revoked;
};

struct SignOptions {
  bool is_server = false;
  std::vector<std::string> hosts;  ///< A server's names and addresses; needed for one, forbidden for a client.
  int days = 365;
};

/// A certificate, and the fingerprint of the key it was given to.
struct Signed {
  std::filesystem::path file;
  std::string fingerprint;
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

  /// Certifies a request; the request's name becomes the holder's. Throws Error(data) for a request that is none or
  /// whose name no client may have, Error(usage) for a server without hosts, hosts that are none, or more days than the
  /// authority has left.
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
