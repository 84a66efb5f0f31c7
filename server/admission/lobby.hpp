// Who is in before the run starts: a state machine without sockets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/admission/refusal.hpp"

namespace headstart::server {

class Lobby {
 public:
  explicit Lobby(std::size_t num_expected) : num_expected_(num_expected) {}

  /// Takes the client in, or returns why not: name_taken, full or started. A place may be free a little later: its
  /// holder may never join, or be lost before the start.
  std::optional<Refusal> enter(const std::string& name);
  /// A client that was lost before the start; its place is free again.
  void leave(const std::string& name);
  /// From now on nobody enters.
  void close() { is_closed_ = true; }
  [[nodiscard]] bool is_closed() const { return is_closed_; }

  [[nodiscard]] bool is_complete() const { return names_.size() == num_expected_; }
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }  ///< In name order.
  [[nodiscard]] std::size_t num_expected() const { return num_expected_; }

 private:
  std::size_t num_expected_;
  std::vector<std::string> names_;
  bool is_closed_ = false;
};

}  // namespace headstart::server
