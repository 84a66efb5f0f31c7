// What the page is sent, and who may see it.
#include <filesystem>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "server/operations/page_access.hpp"
#include "server/operations/page_answers.hpp"
#include "server/operations/page_data.hpp"
#include "server/operations/page_files.hpp"
#include "server/operations/run_page.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "tests/support/temporary_folder.hpp"

namespace headstart::server {
namespace {

using nlohmann::json;
using test::TemporaryFolder;

/// The object of a server-sent event; its id is left in `id`.
json data_of(const std::string& event, std::string* id = nullptr) {
  REQUIRE(event.starts_with("id: "));
  REQUIRE(event.ends_with("\n\n"));
  const std::size_t end = event.find('\n');
  if (id != nullptr) *id = event.substr(4, end - 4);
  const std::string rest = event.substr(end + 1);
  REQUIRE(rest.starts_with("data: "));
  // One line: a second one would be another field.
  REQUIRE(rest.find('\n') == rest.size() - 2);
  return json::parse(rest.substr(6));
}

json line_of(int round) {
  return {{"round", round},
          {"accuracy", 0.5 + 0.01 * round},
          {"loss", nullptr},
          {"clients", {"a", "b"}},
          {"excluded", {{"c", "it is late"}}},
          {"norms", {{"a", 1.5}}},
          {"federated", {{"accuracy", 0.25}, {"class_accuracy", {0.5, 0.75}}, {"samples", 9}}},
          {"metrics", {{"central", {{"balanced_accuracy", 0.4}}}}},
          {"silo_metrics", {{"a", {{"accuracy", 0.75}}}}}};
}

struct Scene {
  RunObserver silent;
  TimePoint now{};
  RunStatus status;
  RunPage page;

  Scene()
      : page(
            silent, {.name = "first"}, [this] { return now; }, [] { return SystemTime(std::chrono::seconds(1)); }) {
    page.watch([this] {
      status.phase_seconds = seconds_between(TimePoint{}, now);
      return status;
    });
  }
  /// What is new after the page has looked at the run again.
  std::string news(RunPage::Place& place) {
    now += std::chrono::seconds(1);
    return page.news(place);
  }
};

TEST_CASE("page: a new viewer is sent the whole, a later event has only what is new, and nothing is sent twice") {
  Scene scene;
  scene.page.on_run({{"dataset", "digits"}, {"config", {{"federation", {{"rounds", 9}}}}}});
  scene.page.on_line(line_of(0));
  scene.page.on_line(line_of(1));
  scene.page.on_note("one <b>note</b>\nof two lines");
  RunPage::Place place;
  const json whole = data_of(scene.news(place));
  CHECK(whole["run"] == "first");
  CHECK(whole["first"] == true);
  CHECK(whole["facts"]["rounds"] == 9);
  CHECK(whole["rounds_from"] == 0);
  REQUIRE(whole["rounds"].size() == 2);
  CHECK(whole["rounds"][1]["round"] == 1);
  CHECK(whole["newest"]["silo_metrics"]["a"]["accuracy"] == 0.75);
  CHECK(whole["notes"][0]["text"] == "one <b>note</b> of two lines");
  CHECK(whole["status"]["silos"].empty());
  CHECK(scene.news(place).empty());

  scene.page.on_line(line_of(2));
  const json more = data_of(scene.news(place));
  CHECK_FALSE(more.contains("first"));
  CHECK_FALSE(more.contains("facts"));
  CHECK_FALSE(more.contains("status"));
  CHECK(more["rounds_from"] == 2);
  REQUIRE(more["rounds"].size() == 1);
  CHECK(more["rounds"][0]["round"] == 2);
  CHECK(scene.news(place).empty());

  scene.page.on_end({{"stopped_because", "all rounds are done"}}, false);
  CHECK(data_of(scene.news(place))["end"] == json({{"stopped_because", "all rounds are done"}, {"failed", false}}));
  CHECK(scene.news(place).empty());
}

TEST_CASE("page: a viewer that comes back goes on after its last event; of another process it begins anew") {
  Scene scene;
  scene.page.on_line(line_of(0));
  RunPage::Place place;
  std::string id;
  data_of(scene.news(place), &id);
  scene.page.on_line(line_of(1));
  RunPage::Place again = scene.page.place_of(id);
  const json more = data_of(scene.news(again));
  CHECK_FALSE(more.contains("first"));
  CHECK(more["rounds_from"] == 1);
  CHECK(more["rounds"].size() == 1);
  for (const std::string& foreign : {std::string(), "x" + id, id + "9", id + "-1", std::string("1-2"), id.substr(1)}) {
    CAPTURE(foreign);
    RunPage::Place from_foreign = scene.page.place_of(foreign);
    CHECK(data_of(scene.news(from_foreign))["first"] == true);
  }
}

TEST_CASE("page: notes are bounded, and a viewer that lags is told where they go on") {
  Scene scene;
  RunPage::Place place;
  scene.page.on_note("the first");
  data_of(scene.news(place));
  for (std::size_t i = 0; i < max_page_notes + 7; ++i) scene.page.on_note(std::to_string(i));
  const json late = data_of(scene.news(place));
  CHECK(late["notes"].size() == max_page_notes);
  CHECK(late["notes_from"] == 8);
  CHECK(late["notes"][0]["text"] == "7");
  CHECK(late["notes"].back()["text"] == std::to_string(max_page_notes + 6));
}

TEST_CASE("page: silos with their states, tasks and whom the run waits for; a status that stands is not sent again") {
  Scene scene;
  scene.status.phase = {PhaseKind::training, 4};
  scene.status.parts = {{"a", 0.5}};
  scene.status.clients = {{.name = "a",
                           .is_connected = true,
                           .is_asked = true,
                           .task = TaskStatus{"train", 3},
                           .tasks = {{"train", {2, 8, 5}}}},
                          {.name = "b", .is_connected = true},
                          {.name = "c", .is_awaited = true, .is_asked = true},
                          {.name = "d", .refusals = {{"late", 2}}},
                          {.name = "e", .is_connected = true, .is_asked = true}};
  RunPage::Place place;
  const json status = data_of(scene.news(place))["status"];
  std::map<std::string, std::string> states;
  std::string asked;
  for (const json& silo : status["silos"]) {
    states[silo["name"]] = silo["state"];
    if (silo["asked"] == true) asked += silo["name"];
  }
  CHECK(states == std::map<std::string, std::string>{
                      {"a", "working"}, {"b", "ready"}, {"c", "awaited"}, {"d", "away"}, {"e", "asked"}});
  CHECK(asked == "ace");
  CHECK(status["silos"][0]["task"] == "train");
  CHECK(status["silos"][0]["progress"] == 0.5);
  CHECK(status["silos"][0]["tasks"]["train"]["last"] == 5);
  CHECK(status["silos"][3]["refused"]["late"] == 2);
  // A second later the task is a second older, and began at the same moment.
  scene.status.clients[0].task->seconds += 1;
  CHECK(scene.news(place).empty());
  scene.status.clients[1].bytes_received = 7;
  CHECK(data_of(scene.news(place)).contains("status"));
}

TEST_CASE("page: the stream speaks at least every 15 s") {
  Scene scene;
  const auto viewer = scene.page.viewer("");
  CHECK(data_of(viewer->next().value())["first"] == true);
  scene.now += std::chrono::seconds(14);
  CHECK(viewer->next().value().empty());
  scene.now += std::chrono::seconds(1);
  CHECK(viewer->next().value() == ": still here\n\n");
  CHECK(viewer->next().value().empty());
}

TEST_CASE("page: a point of the curves has what is of the round, and what is of silos is kept of the newest alone") {
  CHECK(round_point(line_of(3)) == json({{"round", 3},
                                         {"accuracy", 0.53},
                                         {"federated", {{"accuracy", 0.25}}},
                                         {"metrics", {{"central", {{"balanced_accuracy", 0.4}}}}},
                                         {"updates", 2},
                                         {"excluded", {{"c", "it is late"}}}}));
  const json newest = newest_round(line_of(3));
  CHECK(newest["class_accuracy"] == json({0.5, 0.75}));
  CHECK(newest["norms"]["a"] == 1.5);
  CHECK(round_point(json::array()).empty());
  CHECK(round_point({{"federated", 3}, {"clients", "x"}}).empty());
}

TEST_CASE("page: targets are those that are named, and the fractions of the reference") {
  const json targets = {{"accuracies", {0.8, 0.5}}, {"reference", 0.5}, {"fractions", {0.5, 1.0}}};
  CHECK(run_facts({{"config", {{"targets", targets}}}})["targets"] == json({0.25, 0.5, 0.8}));
  CHECK(run_facts({})["targets"] == json::array());
}

TEST_CASE("page: a folder is read as it is; a line without its end is left out, a line that is broken is named") {
  const TemporaryFolder folder;
  const std::filesystem::path run = folder.path() / "tried";
  make_folders(run);
  CHECK_THROWS_WITH_AS(recorded_run(run), doctest::Contains("run.json"), Error);
  write_text_atomically(run / "run.json", R"({"version": "1", "config": {"data": {"manifest": ""}}})");
  write_text_atomically(run / "rounds.jsonl", line_of(0).dump() + "\n" + line_of(1).dump() + "\n" + "{\"round\": 2, ");
  write_text_atomically(run / "audit.jsonl",
                        "{\"event\": \"joined\", \"client\": \"a\", \"at\": \"t\"}\n"
                        "{\"event\": \"sent\", \"client\": \"a\", \"bytes\": 40}\n"
                        "{\"event\": \"sent\", \"client\": \"a\", \"bytes\": 2}\n");
  json read = recorded_run(run);
  CHECK(read["run"] == "tried");
  CHECK(read["rounds"].size() == 2);
  CHECK_FALSE(read.contains("end"));
  REQUIRE(read["status"]["silos"].size() == 1);
  CHECK(read["status"]["silos"][0]["down"] == 42);
  CHECK(read["notes"][0]["text"] == "a joined");
  write_text_atomically(run / "interrupted.json", R"({"stopped_because": "stopped"})");
  CHECK(recorded_run(run)["end"]["failed"] == true);
  write_text_atomically(run / "summary.json", R"({"stopped_because": "done", "before_rounds": {"bytes_up": 5}})");
  read = recorded_run(run);
  CHECK(read["end"]["failed"] == false);
  CHECK(read["facts"]["before_rounds"]["bytes_up"] == 5);
  const json reference = reference_run(run / "rounds.jsonl");
  CHECK(reference["name"] == "tried");
  CHECK(reference == reference_run(run));
  CHECK(reference["before_rounds"]["bytes_up"] == 5);
  write_text_atomically(run / "rounds.jsonl", "{}\n{\"round\": }\n");
  CHECK_THROWS_WITH_AS(recorded_run(run), doctest::Contains("line 2"), Error);
}

TEST_CASE("page: a document holds its data as text, whatever stands in it, and names the digest of all that it runs") {
  const json run = {{"run", "</script><script>alert(1)</script>"}, {"notes", {{{"text", "<!-- </SCRIPT "}}}}};
  const std::string page = page_document(run);
  CHECK(page.find("alert(1)</script>") == std::string::npos);
  CHECK(page.find("</SCRIPT ") == std::string::npos);
  CHECK(page.find(" src=") == std::string::npos);
  const std::string mark = "id=\"recorded-run\">";
  const std::size_t begin = page.find(mark) + mark.size();
  CHECK(json::parse(page.substr(begin, page.find("</script>", begin) - begin)) == run);
  // SHA-256 of nothing, as a policy names it, has this text; of each inline element there is one.
  std::size_t num_digests = 0;
  for (std::size_t at = page.find("'sha256-"); at != std::string::npos; at = page.find("'sha256-", at + 1))
    ++num_digests;
  CHECK(num_digests == 4);
}

net::HttpRequest asking(std::string_view path) { return {.path = path, .host = "127.0.0.1:9841"}; }

TEST_CASE("page access: by header, by cookie, by the address once; a wrong word opens nothing") {
  using Verdict = PageAccess::Verdict;
  const std::string token = "0123456789abcdef";
  const PageAccess access(token);
  net::HttpRequest request = asking("/");
  CHECK(access.judge(request) == Verdict::wants_token);
  request.authorization = "Bearer 0123456789abcdef";
  CHECK(access.judge(request) == Verdict::granted);
  for (const char* wrong : {"Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Bearer ", "Basic 0123456789abcdef"}) {
    CAPTURE(wrong);
    request.authorization = wrong;
    CHECK(access.judge(request) == Verdict::wants_token);
  }
  request.authorization = {};
  request.query = "a=b&token=0123456789abcdef";
  CHECK(access.judge(request) == Verdict::granted_by_address);
  request.query = "nottoken=0123456789abcdef";
  CHECK(access.judge(request) == Verdict::wants_token);
  request.query = "token=";
  CHECK(access.judge(request) == Verdict::wants_token);
  request.query = {};
  const std::string set = access.set_cookie();
  CHECK(set.find(token) == std::string::npos);
  CHECK(set.find("HttpOnly") != std::string::npos);
  const std::string cookie = "other=1; " + set.substr(0, set.find(';'));
  request.cookie = cookie;
  CHECK(access.judge(request) == Verdict::granted);
  // The cookie of another token has another name and another value.
  CHECK(PageAccess("fedcba9876543210").judge(request) == Verdict::wants_token);
  const std::string changed = cookie.substr(0, cookie.size() - 1) + (cookie.back() == '0' ? "1" : "0");
  request.cookie = changed;
  CHECK(access.judge(request) == Verdict::wants_token);
}

TEST_CASE("page access: without a token only this machine's own names are answered") {
  const PageAccess access("");
  const auto verdict_of = [&access](const char* host) { return access.judge({.path = "/", .host = host}); };
  for (const char* host :
       {"localhost:9841", "localhost", "run.localhost:1", "127.0.0.1:9841", "127.3.2.1", "[::1]:9841"}) {
    CAPTURE(host);
    CHECK(verdict_of(host) == PageAccess::Verdict::granted);
  }
  for (const char* host : {"", "example.org", "127.0.0.1.example.org", "localhost.example.org", "[::2]", "10.0.0.1"}) {
    CAPTURE(host);
    CHECK(verdict_of(host) == PageAccess::Verdict::foreign_host);
  }
}

TEST_CASE("page access: a token is one line of at least 16 characters, and no message shows it") {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "token";
  write_text_atomically(file, "a-good_token.of~16chars\n");
  CHECK(read_page_token(file) == "a-good_token.of~16chars");
  for (const char* text : {"", "short", "with a blank in it, long", "two-lines-of-16-chars\ntwo-lines-of-16-chars"}) {
    CAPTURE(text);
    write_text_atomically(file, text);
    try {
      (void)read_page_token(file);
      FAIL("it was taken");
    } catch (const Error& error) {
      CHECK(error.code() == Errc::usage);
      CHECK((*text == '\0' || std::string(error.what()).find(text) == std::string::npos));
    }
  }
  CHECK_THROWS_AS(read_page_token(folder.path() / "none"), Error);
}

TEST_CASE("page answers: its own files, four files of the run and no others, and nothing without access") {
  Scene scene;
  const TemporaryFolder folder;
  const std::filesystem::path run = folder.path() / "run";
  make_folders(run / "models");
  for (const char* name : {"rounds.jsonl", "journal", "audit.jsonl"}) write_text_atomically(run / name, "of the run\n");
  write_text_atomically(folder.path() / "secret", "not of the run");
  const PageDesk desk{.page = &scene.page, .folder = run};
  const auto index = answer_page(asking("/"), desk);
  REQUIRE(index);
  CHECK(index->content_type == "text/html; charset=utf-8");
  std::size_t num_bytes = 0;
  for (const PageFile& file : page_files()) num_bytes += file.text.size();
  CHECK(num_bytes < 150 * 1024);
  CHECK(answer_page(asking("/page.js"), desk)->content_type == "text/javascript; charset=utf-8");
  CHECK(answer_page(asking("/events"), desk)->stream);
  const auto rounds = answer_page(asking("/run/rounds.jsonl"), desk);
  REQUIRE(rounds);
  CHECK(rounds->stream_bytes == 11);
  CHECK(rounds->stream->next().value() == "of the run\n");
  CHECK_FALSE(rounds->stream->next());
  CHECK(answer_page(asking("/run/summary.json"), desk)->status == 404);
  for (const char* path : {"/run/journal", "/run/audit.jsonl", "/run/", "/run/../secret", "/run/models/../rounds.jsonl",
                           "/run/%2e%2e/secret", "//page.js", "/metrics", "", "page.js"}) {
    CAPTURE(path);
    CHECK_FALSE(answer_page(asking(path), desk));
  }

  const PageDesk closed{.page = &scene.page, .access = PageAccess("0123456789abcdef"), .folder = run};
  const PageDesk none{.page = nullptr, .folder = run};
  for (const char* path : {"/", "/page.js", "/events", "/run/rounds.jsonl"}) {
    CAPTURE(path);
    CHECK(answer_page(asking(path), closed)->status == 401);
    CHECK(answer_page(asking(path), none)->status == 403);
    CHECK(answer_page({.path = path, .host = "example.org"}, desk)->status == 403);
  }
  net::HttpRequest with_token = asking("/");
  with_token.query = "token=0123456789abcdef";
  const auto redirect = answer_page(with_token, closed);
  CHECK(redirect->status == 303);
  CHECK(redirect->body.empty());
}

}  // namespace
}  // namespace headstart::server
