// The seed tree: every random stream of a run is named by its place, never by the order of events.
#pragma once

#include <cstdint>
#include <string_view>

namespace headstart {

/// A node of the tree. child() is a pure function of the parent's value and the label, so
/// Seed(7).child("alice").child("train").child(3) is the same stream wherever and whenever it is asked for.
class Seed {
 public:
  explicit constexpr Seed(std::uint64_t value) : value_(value) {}

  /// First eight bytes, little-endian, of SHA-256(value as 8 little-endian bytes, then the label).
  [[nodiscard]] Seed child(std::string_view label) const;
  [[nodiscard]] Seed child(std::uint64_t index) const;

  [[nodiscard]] constexpr std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_;
};

}  // namespace headstart
