// What every fuzz target shares. A target hands foreign bytes to one reader and states what the reader promises; a
// broken promise ends the process, as a sanitizer's finding does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "shared/base/error.hpp"
#include "shared/base/printable.hpp"

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

/// Hands JSON of a peer to `read`, which says what it promises of text that it accepts. What is said of text that is
/// refused is short and printable, whatever the text holds.
inline void offer(const std::string& text, void (*read)(const std::string&)) {
  is_refused([&] {
    try {
      read(text);
    } catch (const Error& error) {
      const std::string words = error.what();
      require(is_printable(words) && words.size() <= 400, "a refusal is short and printable");
      throw;
    }
  });
}

}  // namespace headstart::fuzz
