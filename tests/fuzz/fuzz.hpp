// What every fuzz target shares. A target hands foreign bytes to one reader and states what the reader promises; a
// broken promise ends the process, as a sanitizer's finding does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

#include "shared/base/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace headstart::fuzz {

inline void require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

inline std::span<const std::byte> bytes_of(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Whether `call` refuses its input in the one way allowed: an Error that blames the input, not the program. Any other
/// exception passes through and ends the process.
template <class Call>
bool is_refused(Call call) {
  try {
    call();
    return false;
  } catch (const Error& error) {
    require(error.code() != Errc::internal, error.what());
    return true;
  }
}

}  // namespace headstart::fuzz
