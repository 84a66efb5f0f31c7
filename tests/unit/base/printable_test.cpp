#include "shared/base/printable.hpp"

#include <random>

#include <doctest/doctest.h>

namespace headstart {
namespace {

using namespace std::string_literals;

TEST_CASE("what can be shown stays as it is: any script, on one line") {
  for (const std::string text : {"", "the data are damaged", "Lungenentz\u00fcndung", "\u80ba\u708e",
                                 "\u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645", "\U0001f600 \u00b1 2%"}) {
    CAPTURE(text);
    CHECK(is_printable(text));
    CHECK(printable(text) == text);
  }
}

TEST_CASE("what moves a cursor, ends a line, turns the writing round or is no UTF-8 is replaced byte by byte") {
  const std::pair<std::string, std::string> cases[] = {
      {"\x1b[2J\x1b[Hcleared", "?[2J?[Hcleared"},
      {"one\ntwo\r\nthree\tfour", "one two  three four"},
      {"nul\0bell\a\x7f"s, "nul?bell??"},
      {"c1 \u009b31m next \u0085line", "c1 ??31m next ??line"},
      {"raw \x9b\x31m", "raw ?1m"},
      {"\u202etxt.exe \u2066x\u2069 \u200f\u061c", "???txt.exe ???x??? ?????"},
      {"lines\u2028and\u2029more", "lines???and???more"},
      {"\ufeffbom", "???bom"},
      {"tag \U000e0041", "tag ????"},
      {"overlong \xc0\xaf \xe0\x80\xaf", "overlong ?? ???"},
      {"surrogate \xed\xa0\x80", "surrogate ???"},
      {"beyond \xf4\x90\x80\x80", "beyond ????"},
      {"noncharacter \xef\xbf\xbf", "noncharacter ???"},
      {"cut off \xe2\x82", "cut off ??"},
  };
  for (const auto& [text, expected] : cases) {
    CAPTURE(expected);
    CHECK_FALSE(is_printable(text));
    CHECK(printable(text) == expected);
  }
}

TEST_CASE("long words are cut between two characters and say so") {
  CHECK(printable("twelve bytes", 12) == "twelve bytes");
  CHECK(printable("twelve bytes", 11) == "twelve b...");
  CHECK(printable("\u00e4\u00e4\u00e4\u00e4", 7) == "\u00e4\u00e4...");
  CHECK(printable("\u00e4\u00e4\u00e4\u00e4", 6) == "\u00e4...");
  CHECK(printable(std::string(45'000, 'k'), 200) == std::string(197, 'k') + "...");
  CHECK(printable(std::string(45'000, 'k')).size() == max_line_bytes);
}

TEST_CASE("whatever the bytes: the result is printable, bounded, as long where nothing is cut, and stays as it is") {
  std::mt19937 draw(7);
  for (int trial = 0; trial < 20'000; ++trial) {
    std::string text(draw() % 24, '\0');
    for (char& byte : text) byte = static_cast<char>(draw());
    const std::size_t max_bytes = 3 + draw() % 24;
    const std::string shown = printable(text, max_bytes);
    REQUIRE(is_printable(shown));
    REQUIRE(shown.size() <= max_bytes);
    if (text.size() <= max_bytes) REQUIRE(shown.size() == text.size());
    REQUIRE(printable(shown, max_bytes) == shown);
    REQUIRE(is_printable(text) == (printable(text, text.size() + 3) == text));
  }
}

TEST_CASE("words that are quoted end where their quotation ends") {
  CHECK(quotation("no room") == "\"no room\"");
  CHECK(quotation("a \" b\n") == "\"a ' b \"");
  CHECK(quotation("it's 'so'", 100, '\'') == "'it\"s \"so\"'");
  CHECK(quotation(std::string(45'000, 'k')).size() == max_quoted_bytes + 2);
}

}  // namespace
}  // namespace headstart
