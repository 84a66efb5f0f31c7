#include "server/admission/allowed_clients.hpp"

#include <sstream>
#include <string_view>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/names.hpp"

namespace headstart::server {

namespace {

std::string_view without_blanks(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\v\f";
  const std::size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

}  // namespace

std::set<std::string> read_allowed_clients(const std::filesystem::path& file) {
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  std::string text = read_text(file);
  if (text.starts_with(byte_order_mark)) text.erase(0, byte_order_mark.size());
  std::set<std::string> names;
  std::istringstream lines(text);
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const std::string_view name = without_blanks(std::string_view(line).substr(0, line.find('#')));
    if (name.empty()) continue;
    if (!is_valid_client_name(name)) {
      constexpr std::size_t most_shown = 80;
      throw Error(Errc::data, fmt::format("{}, line {}: expected a client's name (1 to 64 letters, digits, '.', '_' or "
                                          "'-', the first a letter or digit) or a comment behind '#', got {}",
                                          file.string(), number, to_line(std::string(name.substr(0, most_shown)))));
    }
    names.emplace(name);
  }
  if (names.empty()) throw Error(Errc::data, file.string() + ": there is no name in it, so nobody could join");
  return names;
}

}  // namespace headstart::server
