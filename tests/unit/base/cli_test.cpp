#include "shared/base/cli.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <regex>
#include <sstream>

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
  CLI::App app("What a program does.");
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

struct Ended {
  int code = 0;
  std::string text;
};

/// How a process of its own that runs `body` ends, and what it writes to `stream`.
template <class Body>
Ended ended(int stream, Body body) {
  const test::TemporaryFolder folder;
  const std::string file = folder / "text";
  const int code = in_child([&] {
    ::dup2(::open(file.c_str(), O_WRONLY | O_CREAT, 0600), stream);
    const int result = body();
    std::cout.flush();
    return result;
  });
  return {code, read_text(file)};
}

/// What a process of its own that runs `body` writes to standard error.
template <class Body>
std::string errors_of(Body body) {
  return ended(STDERR_FILENO, body).text;
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

/// A program with settings; where it is called with "train", which is also the name of a group, a subcommand has them.
struct Program {
  std::string text = "none";
  std::string long_text = "a default that nobody could read in a column";
  double rate = 0.5;
  std::string out;
  Fields fields;

  Program() {
    fields.group("run", "Where it runs");
    fields.text("run.folder", text, "Folder.");
    fields.text("run.words", long_text,
                "What is said (in brackets: at some length; with marks); more follows: so much that no line could hold "
                "it beside the key and the default of the setting.");
    fields.group("train", "How it trains");
    fields.number("train.lr", rate, "Learning rate.", {0, 1});
    fields.number("rate", rate, "Rate.");
  }

  Ended called(int stream, std::vector<std::string> words) {
    return ended(stream, [&] {
      const bool is_subcommand = words.front() == "train";
      const auto declare = [&](CLI::App& app) {
        if (!is_subcommand) return add_settings(app, fields, {"run.words", "rate"});
        app.require_subcommand(1);
        CLI::App* train = app.add_subcommand("train", "Trains.");
        add_settings(*train, fields);
        add_path(*train, "--out", out, "Where to.")->required();
      };
      return run(std::move(words), declare, [] { return 7; });
    });
  }
};

TEST_CASE("help: usage, options, first settings in short sentences, groups, exit codes, in lines of 100 columns") {
  Program program;
  for (const char* word : {"--help", "-h"}) {
    const auto [code, text] = program.called(STDOUT_FILENO, {word});
    CAPTURE(text);
    CHECK(code == 0);
    CHECK(text.starts_with("What a program does.\n\nUsage: program [OPTIONS]\n\nOptions:\n  -h,--help [GROUP]  "));
    CHECK(text.find("\n  --config FILE      JSON file with settings\n") != std::string::npos);
    CHECK(
        text.find("\n  run.words  \"a default that n...  What is said (in brackets: at some length; with marks).\n") !=
        std::string::npos);
    CHECK(text.find("\n  rate       0.5                   Rate.\n") != std::string::npos);
    CHECK(text.find("\n  run       2  Where it runs\n  train     1  How it trains\n"
                    "  general   1  Without a dot: rate\n") != std::string::npos);
    CHECK(text.find("\n  130  stopped by the user\n") != std::string::npos);
    CHECK(text.find("train.lr") == std::string::npos);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 100);
  }
}

TEST_CASE("help: one group, what is below a key, or everything") {
  Program program;
  const std::string rate = "  train.lr  (number from 0 to 1; default 0.5)\n      Learning rate.\n";
  for (const char* word : {"train", "train.lr"}) {
    const auto [code, text] = program.called(STDOUT_FILENO, {"--help", word});
    CHECK(code == 0);
    CHECK(text == rate);
  }
  const auto [code, text] = program.called(STDOUT_FILENO, {"--help", "all"});
  CHECK(code == 0);
  CHECK(text.find(rate) != std::string::npos);
  CHECK(text.find("with marks); more follows") != std::string::npos);
  CHECK(text.find("Exit codes:") != std::string::npos);
}

TEST_CASE("help: an unknown group is refused with the nearest name and all groups") {
  Program program;
  const auto [code, text] = program.called(STDERR_FILENO, {"--help", "trian"});
  CHECK(code == static_cast<int>(Errc::usage));
  CHECK(text ==
        "program: --help: unknown group 'trian' (did you mean 'train'?); the groups are run, train, general and "
        "all\n");
  CHECK(program.called(STDERR_FILENO, {"--help=run.fodler"}).text.find("'run.folder'") != std::string::npos);
  CHECK(program.called(STDERR_FILENO, {"--help", "something-else"}).text.find("did you mean") == std::string::npos);
  CHECK(program.called(STDERR_FILENO, {"--nonsense"}).text.ends_with("Run with --help for more information.\n"));
}

TEST_CASE("help: of a subcommand, also where an option that it needs is missing") {
  Program program;
  const Ended shown = program.called(STDOUT_FILENO, {"train", "--help"});
  CAPTURE(shown.text);
  CHECK(shown.code == 0);
  CHECK(shown.text.find("Usage: program train [OPTIONS]\n") != std::string::npos);
  CHECK(shown.text.find("--out PATH REQUIRED  Where to.\n") != std::string::npos);
  CHECK(program.called(STDOUT_FILENO, {"train", "--help", "train"}).text.find("  train.lr  (") == 0);
  const std::string all = program.called(STDOUT_FILENO, {"train", "--help", "all"}).text;
  CHECK(all.find("Usage: program train [OPTIONS]\n") != std::string::npos);
  CHECK(program.called(STDERR_FILENO, {"train", "--help", "rnu"}).code == static_cast<int>(Errc::usage));
}

TEST_CASE("help: a group has one line, whatever its words") {
  Program program;
  std::string words = "Word";
  while (words.size() < 100) words += " word";
  program.fields.group("run", words);
  const std::string text = program.called(STDOUT_FILENO, {"--help"}).text;
  CAPTURE(text);
  CHECK(text.find(" word ...\n  train     1  How it trains\n") != std::string::npos);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 100);
}

TEST_CASE("help: settings of a single group are shown in full") {
  Program program;
  program.fields = Fields();
  program.fields.number("rate", program.rate, "Rate.");
  program.fields.text("words", program.text, "Words " + std::string(80, 'x') + " that do not fit on one line.");
  const Ended shown = program.called(STDOUT_FILENO, {"train", "--help"});
  CHECK(shown.text.find("Settings:\n  rate  (number; default 0.5)\n      Rate.\n") != std::string::npos);
  CHECK(shown.text.find("x that do\n      not fit on one line.\n") != std::string::npos);
  CHECK(shown.text.find("Groups of settings") == std::string::npos);
}

}  // namespace
}  // namespace headstart
