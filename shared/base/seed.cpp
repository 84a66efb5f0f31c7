#include "shared/base/seed.hpp"

#include <array>
#include <cstddef>
#include <string>

#include "shared/base/digest.hpp"

namespace headstart {

Seed Seed::child(std::string_view label) const {
  std::array<std::byte, 8> parent{};
  for (std::size_t i = 0; i < parent.size(); ++i) parent[i] = static_cast<std::byte>(value_ >> (8 * i));
  const Sha256Digest digest = Sha256().update(parent).update(label).finish();
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) value |= std::to_integer<std::uint64_t>(digest[i]) << (8 * i);
  return Seed(value);
}

Seed Seed::child(std::uint64_t index) const { return child("#" + std::to_string(index)); }

}  // namespace headstart
