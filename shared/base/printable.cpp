#include "shared/base/printable.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>

namespace headstart {

namespace {

struct Range {
  char32_t first, last;
};

constexpr Range unprintable[] = {
    {0x00, 0x1f},        // C0
    {0x7f, 0x9f},        // DEL and C1
    {0xad, 0xad},        // soft hyphen
    {0x61c, 0x61c},      // Arabic letter mark
    {0x180e, 0x180e},    // Mongolian vowel separator
    {0x200b, 0x200b},    // zero-width space
    {0x200e, 0x200f},    // marks of direction
    {0x2028, 0x202e},    // line and paragraph separators, embedding and overriding of direction
    {0x2060, 0x206f},    // invisible operators, isolation of direction
    {0xfdd0, 0xfdef},    // noncharacters
    {0xfeff, 0xfeff},    // byte order mark
    {0xfff0, 0xfffb},    // annotations
    {0xe0000, 0xe0fff},  // tags
};

bool is_shown(char32_t character) {
  if ((character & 0xfffe) == 0xfffe) return false;  // the last two of each plane are noncharacters
  return std::ranges::none_of(
      unprintable, [character](const Range& range) { return range.first <= character && character <= range.last; });
}

/// Bytes of the character that `text`, which is not empty, begins with; none where it is not valid UTF-8.
std::optional<std::size_t> length_of_first(std::string_view text, char32_t& character) {
  const auto byte = [&text](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) {
    character = lead;
    return 1;
  }
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return std::nullopt;
  character = lead & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return std::nullopt;
    character = (character << 6U) | (byte(i) & 0x3fU);
  }
  constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = character >= 0xd800 && character <= 0xdfff;
  if (character < least[length] || character > 0x10ffff || is_surrogate) return std::nullopt;
  return length;
}

/// Of the printable character that `text` begins with; 0 where there is none.
std::size_t length_of_printable(std::string_view text) {
  char32_t character = 0;
  const auto length = length_of_first(text, character);
  return length && is_shown(character) ? *length : 0;
}

}  // namespace

bool is_printable(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = length_of_printable(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string printable(std::string_view text, std::size_t max_bytes) {
  constexpr std::string_view ending = "...";
  std::string shown;
  std::size_t end_if_cut = 0;  // of the last character before which there is room for the ending
  while (!text.empty()) {
    std::size_t length = length_of_printable(text);
    if (length > 0) {
      shown.append(text.substr(0, length));
    } else {
      length = 1;
      shown.push_back(text.front() >= '\t' && text.front() <= '\r' ? ' ' : '?');
    }
    text.remove_prefix(length);
    if (shown.size() + ending.size() <= max_bytes) end_if_cut = shown.size();
    if (shown.size() > max_bytes) {
      shown.resize(end_if_cut);
      return shown.append(ending);
    }
  }
  return shown;
}

std::string quotation(std::string_view words, std::size_t max_bytes, char mark) {
  std::string inner = printable(words, max_bytes);
  std::ranges::replace(inner, mark, mark == '"' ? '\'' : '"');
  return mark + inner + mark;
}

}  // namespace headstart
