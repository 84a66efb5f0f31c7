#include "server/admission/allowed_clients.hpp"

#include <doctest/doctest.h>

#include "shared/base/files.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

using Names = std::set<std::string>;

struct ListFile {
  test::TemporaryFolder folder;
  std::string path = folder / "allowed";

  Names read(std::string_view text) const {
    write_text_atomically(path, text);
    return read_allowed_clients(path);
  }
  std::string complaint(std::string_view text) const {
    return test::error_of(Errc::data, [&] { read(text); });
  }
};

TEST_CASE("the list of clients as editors and people write it") {
  const ListFile list;
  const Names both = {"silo-0", "st.mary_1"};
  CHECK(list.read("silo-0\nst.mary_1\n") == both);
  CHECK(list.read("silo-0\nst.mary_1") == both);
  CHECK(list.read("\xef\xbb\xbfsilo-0\r\nst.mary_1\r\n") == both);
  CHECK(list.read("# the pilot\n\n  silo-0\t \n\t\nst.mary_1   # since May\n#silo-2\n") == both);
  CHECK(list.read("silo-0\nsilo-0\nst.mary_1\n") == both);
}

TEST_CASE("a line that is no name is refused with file and line, and so is a list of nobody") {
  const ListFile list;
  const auto starts = [&](const std::string& text, const std::string& tail) {
    return text.starts_with(list.path + tail);
  };
  CHECK(starts(list.complaint("silo-0\n\nst mary\n"), ", line 3: expected a client's name"));
  CHECK(list.complaint("silo-0\nst mary\n").ends_with("got \"st mary\""));
  CHECK(starts(list.complaint("silo-0, silo-1\n"), ", line 1: "));
  CHECK(starts(list.complaint("-silo\n"), ", line 1: "));
  CHECK(starts(list.complaint(std::string("s\0i\0l\0o\0", 8)), ", line 1: "));  // UTF-16
  CHECK(list.complaint(std::string(100'000, 'x')).size() < 400);
  CHECK(starts(list.complaint("# nobody yet\n"), ": there is no name in it"));
  CHECK(starts(list.complaint(""), ": there is no name in it"));
  CHECK(test::error_of(Errc::data, [&] { read_allowed_clients(list.folder / "none"); }).find("none: cannot be read") !=
        std::string::npos);
}

}  // namespace
}  // namespace headstart::server
