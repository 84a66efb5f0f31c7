#include "shared/base/files.hpp"

#include <memory>

#include <doctest/doctest.h>
#include <openssl/asn1.h>

#include "shared/base/c_deleter.hpp"
#include "shared/base/digest.hpp"
#include "shared/base/expiry.hpp"
#include "shared/base/time_text.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart {
namespace {

TEST_CASE("atomic files: nothing is there before commit, nothing is left without it") {
  const test::TemporaryFolder folder;
  {
    AtomicFile file(folder / "model");
    file.write("half of it");
    CHECK_FALSE(std::filesystem::exists(folder / "model"));
  }
  CHECK(std::filesystem::is_empty(folder.path()));
  AtomicFile file(folder / "model");
  file.write("all of it");
  file.commit();
  CHECK(read_text(folder / "model") == "all of it");
}

TEST_CASE("atomic files: a failed replacement keeps the old content") {
  const test::TemporaryFolder folder;
  write_text_atomically(folder / "state", "old");
  {
    AtomicFile abandoned(folder / "state");
    abandoned.write("new");
  }
  CHECK(read_text(folder / "state") == "old");
  write_text_atomically(folder / "state", "new");
  CHECK(read_text(folder / "state") == "new");
}

TEST_CASE("a new folder is never an old one") {
  const test::TemporaryFolder folder;
  make_new_folder(folder / "runs/one");
  CHECK(std::filesystem::is_directory(folder / "runs/one"));
  CHECK(test::code_of([&] { make_new_folder(folder / "runs/one"); }) == Errc::storage);
  CHECK(test::error_of([&] { make_new_folder(folder / "runs/one"); }).find("never overwritten") != std::string::npos);
  write_text_atomically(folder / "file", "");
  CHECK(test::code_of([&] { make_new_folder(folder / "file/inside"); }) == Errc::storage);
}

std::filesystem::perms mode_of(const std::filesystem::path& folder) {
  return std::filesystem::status(folder).permissions();
}

TEST_CASE("only its owner may enter a folder that was made, and one that was there is left as it is") {
  using std::filesystem::perms;
  const test::TemporaryFolder folder;
  make_new_folder(folder / "new");
  CHECK(mode_of(folder / "new") == perms::owner_all);
  make_private_folder(folder / "deep/private/");
  CHECK(mode_of(folder / "deep/private") == perms::owner_all);
  std::filesystem::create_directory(folder / "open");
  const perms open = perms::owner_all | perms::group_read | perms::group_exec;
  std::filesystem::permissions(folder / "open", open);
  make_private_folder(folder / "open");
  CHECK(mode_of(folder / "open") == open);
  write_text_atomically(folder / "file", "");
  CHECK(test::code_of([&] { make_private_folder(folder / "file"); }) == Errc::storage);
}

TEST_CASE("JSON files: errors name file and line") {
  const test::TemporaryFolder folder;
  write_text_atomically(folder / "bad.json", "{\n\"a\": 1,\n}");
  const std::string message = test::error_of([&] { read_json(folder / "bad.json"); });
  CHECK(message.find("bad.json") != std::string::npos);
  CHECK(message.find("line 3") != std::string::npos);
  CHECK(test::code_of([&] { read_json(folder / "none.json"); }) == Errc::data);
  CHECK(test::code_of([&] { read_text(folder.path()); }) == Errc::data);
}

TEST_CASE("JSON: a key that stands twice in one object is refused with its line") {
  const auto refusal = [](const char* text) {
    return test::error_of(Errc::data, [&] { parse_json(text, "run.json"); });
  };
  CHECK(refusal("{\"train\": {\"lr\": 0.3},\n \"rounds\": 1,\n \"train\": {\"batch_size\": 8}}") ==
        "run.json: line 3: the key \"train\" stands twice in one object, and one of its values would be lost; join the "
        "two");
  CHECK(refusal(R"([{"a": 1}, {"b": {"c": 1, "c": 1}}])").find("line 1: the key \"c\"") != std::string::npos);
  CHECK(refusal("{\"\\u0061\": 1,\n\"a\": 2}").find("line 2: the key \"a\"") != std::string::npos);
  CHECK(parse_json(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}], "A": 1})", "it").size() == 3);
}

TEST_CASE("JSON files: a byte order mark is skipped, UTF-16 and numbers beyond a double are refused") {
  const test::TemporaryFolder folder;
  write_text_atomically(folder / "mark.json", "\xef\xbb\xbf{\r\n\"a\": 1}");
  CHECK(read_json(folder / "mark.json") == nlohmann::json({{"a", 1}}));
  const auto code_of = [](std::string_view text) { return test::code_of([&] { parse_json(text, "it"); }); };
  CHECK(code_of(std::string_view("\xff\xfe{\0}\0", 6)) == Errc::data);
  for (const char* text : {"[1e999]", "[NaN]", "[Infinity]", "[1] [2]", "{\"a\": 1} // why", ""}) {
    CHECK(code_of(text) == Errc::data);
  }
}

TEST_CASE("what the system refuses is an error of the kind that was asked for, with path and reason") {
  const test::TemporaryFolder folder;
  std::filesystem::create_symlink("loop", folder / "loop");
  write_text_atomically(folder / "file", "text");
  const std::filesystem::path loop = folder / "loop";
  const std::filesystem::path too_long = folder / std::string(300, 'x');
  for (const std::filesystem::path& path : {loop, loop / "inside", too_long}) {
    const std::string reason = path == too_long ? "File name too long" : "Too many levels of symbolic links";
    const auto says = [&](Errc code, const auto& call) {
      CHECK(test::error_of(code, call).find(path.string() + ": cannot be ") == 0);
      CHECK(test::error_of(code, call).find("(" + reason + ")") != std::string::npos);
    };
    for (const Errc code : {Errc::data, Errc::storage}) {
      says(code, [&] { is_there(path, code); });
      says(code, [&] { is_folder(path, code); });
      says(code, [&] { entries_in(path, code); });
      says(code, [&] { size_of_file(path, code); });
    }
    says(Errc::data, [&] { read_text(path); });
    says(Errc::data, [&] { sha256_hex_of_file(path); });
    says(Errc::storage, [&] { make_folders(path); });
    CHECK(test::error_of(Errc::storage, [&] { make_new_folder(path / "run"); }).find(reason) != std::string::npos);
  }
  CHECK(test::code_of([&] { sha256_hex_of_file(folder.path()); }) == Errc::data);
  CHECK(test::code_of([&] { entries_in(folder / "file", Errc::data); }) == Errc::data);
  CHECK(test::code_of([&] { make_folders(folder / "file/in"); }) == Errc::storage);
}

TEST_CASE("a name is there or not; a link that leads nowhere is there") {
  const test::TemporaryFolder folder;
  write_text_atomically(folder / "b", "text");
  std::filesystem::create_directory(folder / "a");
  std::filesystem::create_symlink("a", folder / "link");
  std::filesystem::create_symlink("nowhere", folder / "dangling");
  for (const char* name : {"a", "b", "link", "dangling"}) CHECK(is_there(folder / name, Errc::data));
  CHECK_FALSE(is_there(folder / "none", Errc::data));
  CHECK_FALSE(is_there(folder / "b/none", Errc::data));
  CHECK(is_folder(folder / "link", Errc::data));
  for (const char* name : {"b", "dangling", "none"}) CHECK_FALSE(is_folder(folder / name, Errc::data));
  const std::vector<std::filesystem::path> entries = {folder / "a", folder / "b", folder / "dangling", folder / "link"};
  CHECK(entries_in(folder.path(), Errc::data) == entries);
  CHECK(size_of_file(folder / "b", Errc::data) == 4);
  remove_file(folder / "b");
  CHECK_NOTHROW(remove_file(folder / "b"));
  CHECK_FALSE(is_there(folder / "b", Errc::data));
}

TEST_CASE("line files append to what is there") {
  const test::TemporaryFolder folder;
  LineFile(folder / "rounds.jsonl").append({{"round", 0}});
  LineFile(folder / "rounds.jsonl").append({{"round", 1}});
  CHECK(read_text(folder / "rounds.jsonl") == "{\"round\":0}\n{\"round\":1}\n");
}

TEST_CASE("SHA-256: published vectors") {
  CHECK(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const test::TemporaryFolder folder;
  const std::string text(3'000'000, 'a');
  write_text_atomically(folder / "big", text);
  CHECK(sha256_hex_of_file(folder / "big") == sha256_hex(text));
}

TEST_CASE("line files: go on after what is there, on a line of their own") {
  const test::TemporaryFolder folder;
  {
    LineFile lines(folder / "lines");
    lines.append({{"n", 1}});
  }
  CHECK(read_text(folder / "lines") == "{\"n\":1}\n");
  write_text_atomically(folder / "lines", "{\"n\":1}\n{\"n\":");  // as a program leaves it that was killed
  LineFile lines(folder / "lines");
  lines.append({{"n", 2}});
  CHECK(read_text(folder / "lines") == "{\"n\":1}\n{\"n\":\n{\"n\":2}\n");
}

TEST_CASE("time of day: ISO 8601 in UTC, to the millisecond, before 1970 too") {
  using std::chrono::milliseconds;
  using Time = std::chrono::system_clock::time_point;
  CHECK(utc_text(Time(milliseconds(0))) == "1970-01-01T00:00:00.000Z");
  CHECK(utc_text(Time(milliseconds(951'782'399'007))) == "2000-02-28T23:59:59.007Z");
  CHECK(utc_text(Time(milliseconds(-1))) == "1969-12-31T23:59:59.999Z");
}

TEST_CASE("what runs out: days left in whole ones, words that change at 30 and at the end, dates of certificates") {
  using std::chrono::days;
  using std::chrono::seconds;
  const SystemTime now(days(19'000));  // 2022-01-08
  CHECK(expiry_text(now + days(30), now) == "until 2022-02-07, 30 days");
  CHECK_FALSE(ends_soon(now + days(30), now));
  CHECK(expiry_text(now + days(30) - seconds(1), now) == "EXPIRES SOON: 2022-02-06, 29 days");
  CHECK(expiry_text(now, now) == "EXPIRES SOON: 2022-01-08, 0 days");
  CHECK(expiry_text(now - seconds(1), now) == "expired 2022-01-07");
  CHECK(ends_soon(now - seconds(1), now));
  CHECK(days_until(now - seconds(1), now) == -1);

  const auto date_of = [](const char* text) {
    const std::unique_ptr<ASN1_TIME, CDeleter<ASN1_TIME_free>> time(ASN1_TIME_new());
    REQUIRE(ASN1_TIME_set_string(time.get(), text) == 1);
    return system_time_of(time.get());
  };
  CHECK(date_of("20220108000001Z") == now + seconds(1));
  CHECK_FALSE(system_time_of(nullptr).has_value());
  const auto never = date_of("99991231235959Z");
  REQUIRE(never.has_value());
  CHECK(*never > now + days(80'000));
}

TEST_CASE("JSON that is nested too deep to be written again is refused") {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') + std::string(static_cast<std::size_t>(depth), ']');
  };
  CHECK_NOTHROW(parse_json(nested(max_json_depth), "it"));
  CHECK(test::error_of(Errc::data, [&] { parse_json(nested(max_json_depth + 2), "it"); }).find("it: nested") == 0);
  // Deep enough to run out of stack where it was parsed and then shown.
  CHECK(test::code_of([&] { parse_json(nested(1'000'000), "it"); }) == Errc::data);
  CHECK(test::error_of(Errc::data, [] { parse_json("{\"a\":\n 1,}", "it"); }).find("it: parse error at line 2") == 0);
}

}  // namespace
}  // namespace headstart
