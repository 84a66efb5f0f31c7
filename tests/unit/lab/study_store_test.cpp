#include "experiments/lab/study_store.hpp"

#include <unistd.h>

#include <set>
#include <sstream>

#include <doctest/doctest.h>
#include <sys/wait.h>

#include "shared/base/files.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::lab {
namespace {

const nlohmann::json study = {{"seed", 1}, {"model", {{"name", "cnn"}, {"hidden", 64}}}};

std::vector<Cell> some_cells(int count) {
  std::vector<Cell> cells;
  for (int i = 0; i < count; ++i) cells.push_back({"cell-" + std::to_string(i), {{"temperature", i}}});
  return cells;
}

CellResult result_of(double gain, double seconds = 1) { return {{{"gain", gain}}, seconds, "0.1.0"}; }

std::vector<std::string> done_keys(const StudyStore& store) {
  std::vector<std::string> keys;
  store.for_each_done([&keys](const DoneCell& done) { keys.push_back(done.cell.key); });
  return keys;
}

void finish_all(StudyStore& store) {
  while (const auto cell = store.claim()) store.finish(*cell, result_of(cell->settings["temperature"].get<double>()));
}

TEST_CASE("study store: cells are handed out in order, once, and a study goes on where it was") {
  const test::TemporaryFolder folder;
  {
    StudyStore store(folder / "study.db", study);
    store.add(some_cells(3));
    const auto first = store.claim();
    REQUIRE(first);
    CHECK(first->key == "cell-0");
    store.finish(*first, result_of(0.5));
    const auto second = store.claim();
    REQUIRE(second);
    CHECK(second->key == "cell-1");
    CHECK(store.counts().claimed == 1);
    CHECK(test::code_of([&] { store.finish(*first, result_of(1)); }) == Errc::internal);
  }
  StudyStore again(folder / "study.db", study);
  again.add(some_cells(4));  // a larger plan of the same study
  CHECK(again.counts().total == 4);
  CHECK(again.counts().done == 1);
  CHECK(again.counts().claimed == 0);
  const auto next = again.claim();
  REQUIRE(next);
  CHECK(next->key == "cell-1");
  again.give_back(*next);
  finish_all(again);
  CHECK(done_keys(again) == std::vector<std::string>{"cell-0", "cell-1", "cell-2", "cell-3"});
  CHECK_FALSE(again.claim());
}

TEST_CASE("study store: two workers share a study, and do no cell twice") {
  const test::TemporaryFolder folder;
  StudyStore one(folder / "study.db", study);
  StudyStore two(folder / "study.db", study);
  one.add(some_cells(10));
  std::set<std::string> seen;
  for (int i = 0; i < 5; ++i) {
    for (StudyStore* store : {&one, &two}) {
      const auto cell = store->claim();
      REQUIRE(cell);
      CHECK(seen.insert(cell->key).second);
      store->finish(*cell, result_of(i));
    }
  }
  CHECK_FALSE(one.claim());
  CHECK(one.counts().done == 10);
}

TEST_CASE("study store: what a worker had when it was killed is another's to do") {
  const test::TemporaryFolder folder;
  StudyStore store(folder / "study.db", study);
  store.add(some_cells(2));
  int claimed[2];
  REQUIRE(::pipe(claimed) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    StudyStore mine(folder / "study.db", study);
    const char done = mine.claim() ? 'y' : 'n';
    (void)!::write(claimed[1], &done, 1);
    ::pause();
    ::_exit(0);
  }
  char has_claimed = 0;
  REQUIRE(::read(claimed[0], &has_claimed, 1) == 1);
  CHECK(has_claimed == 'y');
  const auto other = store.claim();
  REQUIRE(other);
  CHECK(other->key == "cell-1");
  CHECK_FALSE_MESSAGE(store.claim(), "the child, which lives, has the first");
  ::kill(child, SIGKILL);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  const auto orphan = store.claim();
  REQUIRE(orphan);
  CHECK(orphan->key == "cell-0");
  ::close(claimed[0]);
  ::close(claimed[1]);
}

TEST_CASE("study store: another study, another format, and what is no study at all are refused by name") {
  const test::TemporaryFolder folder;
  {
    StudyStore store(folder / "study.db", study);
    store.add(some_cells(1));
    finish_all(store);
  }
  nlohmann::json other = study;
  other["model"]["hidden"] = 128;
  const std::string message = test::error_of(Errc::usage, [&] { StudyStore(folder / "study.db", other); });
  CHECK(message.find("study.db holds another study: model.hidden was 64, is 128") != std::string::npos);

  write_text_atomically(folder / "text", std::string(4096, 'x'));
  CHECK(test::code_of([&] { StudyStore(folder / "text", study); }) == Errc::data);
  CHECK(read_text(folder / "text") == std::string(4096, 'x'));
  CHECK(test::code_of([&] { StudyStore(folder / "none"); }) == Errc::data);
  CHECK(test::code_of([&] { StudyStore(folder / "no-folder/study.db", study); }) == Errc::storage);

  // The version is four bytes at 60 of SQLite's header.
  std::string bytes = read_text(folder / "study.db");
  bytes[63] = 9;
  write_text_atomically(folder / "newer.db", bytes);
  const std::string newer = test::error_of(Errc::data, [&] { StudyStore(folder / "newer.db", study); });
  CHECK(newer.find("version 9") != std::string::npos);
  bytes[71] = 9;  // the application's number, at 68
  write_text_atomically(folder / "other.db", bytes);
  CHECK(test::error_of(Errc::data, [&] { StudyStore(folder / "other.db", study); }).find("not of a study") !=
        std::string::npos);

  // Half of it is gone.
  {
    StudyStore store(folder / "study.db", study);
    store.add(some_cells(500));
  }
  bytes = read_text(folder / "study.db");
  write_text_atomically(folder / "half.db", bytes.substr(0, bytes.size() / 2));
  CHECK(test::code_of([&] {
          StudyStore half(folder / "half.db", study);
          finish_all(half);
        }) == Errc::data);
}

TEST_CASE("study store: one without a result gives way to another study, unless somebody works on it") {
  const test::TemporaryFolder folder;
  nlohmann::json other = study;
  other["seed"] = 2;
  {
    StudyStore store(folder / "study.db", study);
    store.add(some_cells(2));
    (void)store.claim();
    CHECK(test::error_of(Errc::usage, [&] { StudyStore(folder / "study.db", other); }).find("seed was 1, is 2") !=
          std::string::npos);
    CHECK(store.counts().claimed == 1);
  }
  StudyStore store(folder / "study.db", other);
  CHECK(store.settings() == other);
  CHECK(store.counts().total == 0);
  CHECK(test::code_of([&] { StudyStore(folder / "study.db", study); }) == Errc::usage);
  CHECK_NOTHROW(StudyStore(folder / "study.db", other));
}

TEST_CASE("study store: where data lie tells neither studies nor cells apart, and each cell keeps where its own lay") {
  const test::TemporaryFolder folder;
  const auto at = [](const char* path, std::int64_t side) {
    return nlohmann::json{{"data", {{"path", path}, {"side", side}}}, {"temperature", 1}};
  };
  StudyStore here(folder / "here.db", at("/here", 32));
  StudyStore there(folder / "there.db", at("/there", 32));
  here.add({{"a", at("/here", 32)}, {"b", at("/here", 32)}});
  there.add({{"a", at("/there", 32)}, {"c", at("/there", 32)}});
  finish_all(here);
  finish_all(there);
  here.merge(there);
  here.add({{"c", at("/anywhere", 32)}});
  std::vector<std::string> paths;
  here.for_each_done([&paths](const DoneCell& done) { paths.push_back(done.cell.settings["data"]["path"]); });
  CHECK(paths == std::vector<std::string>{"/here", "/here", "/there"});
  CHECK_NOTHROW(StudyStore(folder / "here.db", at("/there", 32)));
  CHECK(test::error_of(Errc::usage, [&] { StudyStore(folder / "here.db", at("/here", 64)); }).find("data.side") !=
        std::string::npos);
  CHECK(test::code_of([&] { here.add({{"a", at("/here", 64)}}); }) == Errc::usage);
}

TEST_CASE("study store: merging joins shares, and refuses two results for one cell, whole") {
  const test::TemporaryFolder folder;
  const std::vector<Cell> cells = some_cells(4);
  StudyStore here(folder / "here.db", study);
  StudyStore there(folder / "there.db", study);
  here.add({cells[0], cells[1]});
  there.add({cells[1], cells[2], cells[3]});
  finish_all(here);
  finish_all(there);
  here.merge(there);
  CHECK(here.counts().done == 4);
  here.merge(there);  // nothing new
  CHECK(here.counts().done == 4);

  StudyStore odd(folder / "odd.db", study);
  odd.add({{"cell-9", {{"temperature", 9}}}, cells[2]});
  const auto nine = odd.claim();
  odd.finish(*nine, result_of(9));
  const auto two = odd.claim();
  odd.finish(*two, result_of(77));
  const std::string message = test::error_of(Errc::data, [&] { here.merge(odd); });
  CHECK(message.find("cell cell-2 has another result") != std::string::npos);
  CHECK(here.counts().total == 4);

  nlohmann::json other = study;
  other["seed"] = 2;
  const StudyStore another(folder / "another.db", other);
  CHECK(test::code_of([&] { here.merge(another); }) == Errc::usage);
}

TEST_CASE("study store: as CSV, with a column for every name, and quotes where they must be") {
  const test::TemporaryFolder folder;
  StudyStore store(folder / "study.db", study);
  store.add({{"a", {{"temperature", 2.5}}}, {"b", {{"method", "DML, \"mutual\""}}}, {"c", {}}});
  store.finish(*store.claim(), {{{"gain", 0.25}, {"classes", {1, 2}}}, 1.5, "0.1.0"});
  store.finish(*store.claim(), {{{"gain", -1}}, 2, "0.1.0"});
  std::ostringstream out;
  write_csv(store, out);
  CHECK(out.str() ==
        "key,metrics.classes,metrics.gain,seconds,settings.method,settings.temperature,version\r\n"
        "a,\"[1,2]\",0.25,1.5,,2.5,0.1.0\r\n"
        "b,,-1,2,\"DML, \"\"mutual\"\"\",,0.1.0\r\n");
}

}  // namespace
}  // namespace headstart::lab
