// A silo's pre-trained model on its way to another silo.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "shared/learn/models/model.hpp"
#include "shared/session/byte_stream.hpp"

namespace headstart::server {

/// What a session sends of a silo's model. Only DisclosurePolicy makes one, when the silo consented: nothing else in
/// the server can hand a silo's model to another.
class ReleasedModel {
 public:
  [[nodiscard]] const std::string& owner() const {
    return owner_;
  }  ///< The client that trained it; empty: the server made it.
  [[nodiscard]] const learn::ModelSpec& spec() const { return spec_; }
  [[nodiscard]] const std::string& digest() const { return digest_; }
  [[nodiscard]] const std::shared_ptr<session::ByteSource>& state() const { return state_; }

 private:
  friend class DisclosurePolicy;
  ReleasedModel(std::string owner, learn::ModelSpec spec, std::string digest,
                std::shared_ptr<session::ByteSource> state)
      : owner_(std::move(owner)), spec_(std::move(spec)), digest_(std::move(digest)), state_(std::move(state)) {}

  std::string owner_;
  learn::ModelSpec spec_;
  std::string digest_;
  std::shared_ptr<session::ByteSource> state_;
};

}  // namespace headstart::server
