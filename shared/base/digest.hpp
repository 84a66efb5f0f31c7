// SHA-256, for content hashes and seeds.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace headstart {

using Sha256Digest = std::array<std::byte, 32>;

/// Incremental SHA-256. Spent after finish().
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  [[nodiscard]] Sha256Digest finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

/// 64 lower-case hexadecimal digits.
std::string hex(const Sha256Digest& digest);

std::string sha256_hex(std::string_view text);

/// Throws Error(data) where the file cannot be read.
std::string sha256_hex_of_file(const std::filesystem::path& file);

}  // namespace headstart
