#include <algorithm>
#include <array>
#include <string>

#include <fmt/format.h>

#include "server/operations/page_files.hpp"
#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"

namespace headstart::server {

namespace {

std::string_view text_of(std::string_view name) {
  for (const PageFile& file : page_files()) {
    if (file.name == name) return file.text;
  }
  throw Error(Errc::internal, fmt::format("the page has no file {}", name));
}

/// Base64 of RFC 4648.
std::string base64(std::span<const std::byte> bytes) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    unsigned group = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      group = group << 8U | (k < count ? std::to_integer<unsigned>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) text += k <= count ? digits[group >> (18 - 6 * k) & 63U] : '=';
  }
  return text;
}

/// As a Content-Security-Policy names an inline element of this text.
std::string source_of(std::string_view text) {
  return fmt::format("'sha256-{}'", base64(Sha256().update(text).finish()));
}

/// JSON that stands in an element of HTML: nothing in it ends the element.
std::string embedded(const nlohmann::json& value) {
  std::string text;
  for (const char c : to_line(value)) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

void replace(std::string& text, std::string_view what, std::string_view by) {
  const std::size_t place = text.find(what);
  if (place == std::string::npos) throw Error(Errc::internal, fmt::format("index.html lacks {}", what));
  const std::string_view whole = text;
  text = fmt::format("{}{}{}", whole.substr(0, place), by, whole.substr(place + what.size()));
}

}  // namespace

std::string page_document(const nlohmann::json& run) {
  std::string page(text_of("index.html"));
  std::string scripts;
  std::string styles;
  for (const auto& [name, line] : {std::pair{"uplot.css", R"(<link rel="stylesheet" href="uplot.css">)"},
                                   std::pair{"page.css", R"(<link rel="stylesheet" href="page.css">)"}}) {
    const std::string_view text = text_of(name);
    styles += fmt::format(" {}", source_of(text));
    replace(page, line, fmt::format("<style>{}</style>", text));
  }
  std::string inlined = fmt::format(R"(<script type="application/json" id="recorded-run">{}</script>)", embedded(run));
  for (const char* name : {"uplot.js", "page.js"}) {
    const std::string_view text = text_of(name);
    scripts += fmt::format(" {}", source_of(text));
    inlined += fmt::format("\n<script>{}</script>", text);
    replace(page, fmt::format(R"(<script src="{}" defer></script>)", name), "");
  }
  replace(page, "</body>", inlined + "\n</body>");
  replace(page, "<title>",
          fmt::format(R"(<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src{}; )"
                      R"(style-src{}; img-src data:; base-uri 'none'; form-action 'none'">)"
                      "\n<title>",
                      scripts, styles));
  return page;
}

}  // namespace headstart::server
