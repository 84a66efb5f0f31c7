// A state on its way out of the server.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "shared/plan/tasks.hpp"
#include "shared/session/byte_stream.hpp"

namespace headstart::server {

/// A state in memory and its digest.
struct DigestedState {
  std::string digest;
  wire::PackedState state;
};

/// All that a session can send beside messages. Only DisclosurePolicy makes one: nothing else in the server can hand a
/// silo's model to another.
class ReleasedState {
 public:
  /// The client that trained it; empty: the server made it.
  [[nodiscard]] const std::string& owner() const { return owner_; }
  /// For the audit log.
  [[nodiscard]] const std::string& what() const { return what_; }
  [[nodiscard]] const plan::Form& form() const { return form_; }
  [[nodiscard]] const std::string& digest() const { return digest_; }
  [[nodiscard]] const std::shared_ptr<session::ByteSource>& bytes() const { return bytes_; }

 private:
  friend class DisclosurePolicy;
  ReleasedState(std::string owner, std::string what, plan::Form form, std::string digest,
                std::shared_ptr<session::ByteSource> bytes)
      : owner_(std::move(owner)),
        what_(std::move(what)),
        form_(std::move(form)),
        digest_(std::move(digest)),
        bytes_(std::move(bytes)) {}

  std::string owner_, what_;
  plan::Form form_;
  std::string digest_;
  std::shared_ptr<session::ByteSource> bytes_;
};

}  // namespace headstart::server
