#include "shared/base/cli.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <regex>

#include <doctest/doctest.h>
#include <sys/wait.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/log.hpp"
#include "shared/base/signals.hpp"
#include "tests/support/temporary_folder.hpp"

namespace headstart {
namespace {

/// The exit code of a process of its own that runs `body`; of one that a signal ended, the signal's number below zero.
template <class Body>
int in_child(Body body) {
  std::cout.flush();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(body());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int run(std::vector<std::string> words, const std::function<void(CLI::App&)>& declare,
        const std::function<int()>& body) {
  CLI::App app;
  declare(app);
  words.insert(words.begin(), "program");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  return run_program("program", app, static_cast<int>(arguments.size()), arguments.data(), body);
}

int run(const std::function<int()>& body) {
  return run(
      {}, [](CLI::App&) {}, body);
}

/// What a process of its own that runs `body` writes to standard error.
template <class Body>
std::string errors_of(Body body) {
  const test::TemporaryFolder folder;
  const std::string file = folder / "errors";
  in_child([&] {
    ::dup2(::open(file.c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
    return body();
  });
  return read_text(file);
}

TEST_CASE("a program goes on where nobody reads what it writes and logs") {
  const int code = in_child([] {
    int ends[2] = {};
    if (::pipe(ends) != 0) return 1;
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[1]);
    ::close(ends[0]);
    return run([] {
      set_up_log("test", "info");
      for (int i = 0; i < 3; ++i) {
        std::cout << "a line" << std::endl;
        spdlog::info("another");
      }
      return 7;
    });
  });
  CHECK(code == 7);
}

TEST_CASE("what a program opens never takes the place of a standard stream that it was started without") {
  const test::TemporaryFolder folder;
  const std::string file = folder / "journal";
  const int code = in_child([&file] {
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(stream);
    return run([&file] {
      const int opened = ::open(file.c_str(), O_WRONLY | O_CREAT, 0600);
      std::cout << "for a terminal" << std::endl;
      std::cerr << "for a terminal" << std::endl;
      return opened > STDERR_FILENO ? 7 : 1;
    });
  });
  CHECK(code == 7);
  CHECK(read_text(file).empty());
}

TEST_CASE("the end of a terminal stops a program unless nohup has it ignored") {
  using Signals = std::vector<int>;
  CHECK(in_child([] {
          std::signal(SIGHUP, SIG_DFL);
          return stop_signals() == Signals{SIGINT, SIGTERM, SIGHUP} ? 0 : 1;
        }) == 0);
  CHECK(in_child([] {
          std::signal(SIGHUP, SIG_IGN);
          return stop_signals() == Signals{SIGINT, SIGTERM} ? 0 : 1;
        }) == 0);
}

TEST_CASE("log lines carry date and time in UTC, in either format") {
  const auto logged = [](LogFormat format) {
    return errors_of([format] {
      ::setenv("TZ", "Asia/Tokyo", 1);
      set_up_log("test", "info", format);
      spdlog::info("hello");
      return 0;
    });
  };
  const std::string time = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)";
  const std::string text = logged(LogFormat::text);
  CAPTURE(text);
  CHECK(std::regex_match(text, std::regex(time + " info  hello\n")));
  const nlohmann::json line = parse_json(logged(LogFormat::json), "log");
  CHECK(std::regex_match(line.at("time").get<std::string>(), std::regex(time)));
  // The same hour in both: no local time.
  CHECK(line.at("time").get<std::string>().substr(0, 10) == text.substr(0, 10));
}

TEST_CASE("an exception of the file system that nobody has caught is told with path and reason, not as a bug") {
  const std::string errors = errors_of([] {
    return run([] {
      throw std::filesystem::filesystem_error("exists", "/some/where", std::make_error_code(std::errc::io_error));
      return 0;
    });
  });
  CHECK(errors == "program: /some/where: Input/output error\n");
  CHECK(in_child([] {
          ::close(STDERR_FILENO);
          return run([]() -> int {
            throw std::filesystem::filesystem_error("exists", "/x", std::make_error_code(std::errc::io_error));
          });
        }) == static_cast<int>(Errc::storage));
}

TEST_CASE("options that are paths refuse what no path is meant by; of two settings the last counts, with a word") {
  struct Options {
    std::string out;
    std::string folder = "runs";
    double rate = 0;
    Fields fields;
  };
  const auto errors = [](std::vector<std::string> words) {
    return errors_of([&] {
      Options options;
      options.fields.path("run.folder", options.folder, "Folder.");
      options.fields.number("train.lr", options.rate, "Rate.");
      const auto declare = [&options](CLI::App& app) {
        add_settings(app, options.fields);
        add_path(app, "--out", options.out, "Where to.");
      };
      return run(words, declare, [&options] {
        std::cerr << options.out << ' ' << options.folder << ' ' << options.rate << '\n';
        return 0;
      });
    });
  };
  CHECK(errors({"--out=./~", "--set", "run.folder=/r"}) == "./~ /r 0\n");
  CHECK(errors({"--out=~/x"}).find("expected a path written in full") != std::string::npos);
  CHECK(errors({"--config=~/x.json"}).find("expected a path written in full") != std::string::npos);
  CHECK(errors({"--out", ""}).find("expected a path, got an empty text") != std::string::npos);
  CHECK(errors({"--set", "run.folder=~/x"}).find("setting 'run.folder': expected a path") != std::string::npos);
  CHECK(errors({"--set", "train.lr=1", "--set", "train.lr=1", "--set", "train.lr=2"}) ==
        "note: --set train.lr=2 takes the place of --set train.lr=1\n runs 2\n");
}

}  // namespace
}  // namespace headstart
