#include "shared/base/seed.hpp"

#include <set>

#include <doctest/doctest.h>

#include "shared/base/digest.hpp"

namespace headstart {
namespace {

TEST_CASE("a seed's child is the first eight bytes of SHA-256(value, label)") {
  // Seed 1 as eight little-endian bytes, then "a".
  const std::string text = std::string("\x01\0\0\0\0\0\0\0", 8) + "a";
  std::uint64_t expected = 0;
  const std::string digits = sha256_hex(text);
  for (int i = 7; i >= 0; --i)
    expected = expected << 8 | std::stoull(digits.substr(2 * static_cast<std::size_t>(i), 2), nullptr, 16);
  CHECK(Seed(1).child("a").value() == expected);
}

TEST_CASE("seeds: no two places of a tree share a stream") {
  std::set<std::uint64_t> values;
  for (std::uint64_t run = 0; run < 10; ++run) {
    for (const char* client : {"a", "b", "ab"}) {
      for (const char* phase : {"train", "pretrain", "b"}) {
        for (std::uint64_t round = 0; round < 20; ++round) {
          values.insert(Seed(run).child(client).child(phase).child(round).value());
        }
      }
    }
  }
  CHECK(values.size() == 10 * 3 * 3 * 20);
}

}  // namespace
}  // namespace headstart
