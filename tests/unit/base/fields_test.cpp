#include "shared/base/fields.hpp"

#include <doctest/doctest.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "tests/support/throws.hpp"

namespace headstart {
namespace {

enum class Color { red, green };
constexpr std::pair<Color, std::string_view> color_words[] = {{Color::red, "red"}, {Color::green, "green"}};

struct Options {
  double rate = 0.01;
  std::int64_t rounds = 100;
  std::string name = "cnn";
  bool is_on = false;
  std::vector<double> targets = {0.8};
  Color color = Color::red;
  std::vector<Color> palette = {Color::green};
  std::string folder = "runs";
};

Fields fields_of(Options& options) {
  Fields fields;
  fields.number("train.lr", options.rate, "Learning rate.", {0, 1});
  fields.integer("rounds", options.rounds, "Rounds.", {0, 1000});
  fields.text("model.name", options.name, "Model.");
  fields.flag("gate", options.is_on, "Gate.");
  fields.numbers("targets", options.targets, "Targets.", {0, 1});
  fields.choice("color", options.color, "Color.", Choices<Color>(color_words));
  fields.path("run.folder", options.folder, "Folder.");
  fields.choices("palette", options.palette, "Palette.", Choices<Color>(color_words));
  return fields;
}

TEST_CASE("settings: a nested document sets what it names and leaves the rest") {
  Options options;
  Fields fields = fields_of(options);
  fields.load(nlohmann::json::parse(R"({"train": {"lr": 0.5}, "color": "green", "targets": [0.1, 0.9]})"), "file.json");
  CHECK(options.rate == 0.5);
  CHECK(options.color == Color::green);
  CHECK(options.targets == std::vector<double>{0.1, 0.9});
  CHECK(options.rounds == 100);
}

TEST_CASE("settings: a list of words, in the order given, each at most once") {
  Options options;
  Fields fields = fields_of(options);
  fields.set(R"(palette=["green", "red"])");
  CHECK(options.palette == std::vector<Color>{Color::green, Color::red});
  CHECK(fields.resolved()["palette"] == nlohmann::json({"green", "red"}));
  const auto refusal = [&](const char* assignment) {
    return test::error_of(Errc::usage, [&] { fields.set(assignment); });
  };
  CHECK(refusal(R"(palette=["green", "blue"])").find("expected one of red, green, got \"blue\"") != std::string::npos);
  CHECK(refusal(R"(palette=["red", "red"])").find("'red' stands twice") != std::string::npos);
  CHECK(refusal("palette=red").find("expected a list") != std::string::npos);
  CHECK(options.palette == std::vector<Color>{Color::green, Color::red});
}

TEST_CASE("settings: the resolved document loads into the same options") {
  Options options;
  options.rate = 0.25;
  options.color = Color::green;
  options.targets = {};
  const nlohmann::json resolved = fields_of(options).resolved();
  CHECK(resolved["train"]["lr"] == 0.25);
  Options copy;
  fields_of(copy).load(resolved, "resolved");
  CHECK(fields_of(copy).resolved() == resolved);
}

TEST_CASE("settings: sections are what keys begin with, each once") {
  Options options;
  CHECK(fields_of(options).sections() ==
        std::vector<std::string>{"train", "rounds", "model", "gate", "targets", "color", "run", "palette"});
}

TEST_CASE("settings: an assignment takes JSON, and text where text is meant") {
  Options options;
  Fields fields = fields_of(options);
  fields.set("train.lr=0.125");
  fields.set("model.name=42");
  fields.set("gate=true");
  fields.set("targets=[0.5]");
  fields.set("color=green");
  CHECK(options.rate == 0.125);
  CHECK(options.name == "42");
  CHECK(options.is_on);
  CHECK(options.targets == std::vector<double>{0.5});
  CHECK(options.color == Color::green);
}

TEST_CASE("settings: what is wrong is named with its origin, key and what was expected") {
  Options options;
  Fields fields = fields_of(options);
  const auto load = [&](const char* text) {
    return test::error_of([&] { fields.load(nlohmann::json::parse(text), "run.json"); });
  };
  CHECK(load(R"({"train": {"lt": 1}})") == "run.json: unknown setting 'train.lt'; did you mean 'train.lr'?");
  CHECK(load(R"({"entirely_else": 1})") == "run.json: unknown setting 'entirely_else'; --help all lists them");
  CHECK(load(R"({"train": {"lr": 2}})") == "run.json: setting 'train.lr': expected number from 0 to 1, got 2");
  CHECK(load(R"({"train": {"lr": "fast"}})") ==
        "run.json: setting 'train.lr': expected number from 0 to 1, got \"fast\"");
  CHECK(load(R"({"rounds": 1.5})") == "run.json: setting 'rounds': expected integer from 0 to 1000, got 1.5");
  CHECK(load(R"({"rounds": -1})") == "run.json: setting 'rounds': expected integer from 0 to 1000, got -1");
  CHECK(load(R"({"gate": 1})") == "run.json: setting 'gate': expected true or false, got 1");
  CHECK(load(R"({"targets": [0.5, 3]})") == "run.json: setting 'targets': expected number from 0 to 1, got 3");
  CHECK(load(R"({"color": "blue"})") == "run.json: setting 'color': expected one of red, green, got \"blue\"");
  CHECK(load("[1]") == "run.json: expected a JSON object of settings");
  CHECK(test::error_of([&] { fields.set("rounds"); }) == "--set rounds: expected key=value");
  CHECK(options.rate == 0.01);
}

TEST_CASE("settings: a path that only a shell would expand is refused, and no folder is named ~") {
  Options options;
  Fields fields = fields_of(options);
  for (const char* path : {"~", "~/runs/first", "~mary/runs"}) {
    CAPTURE(path);
    const std::string refusal = test::error_of(Errc::usage, [&] { fields.set("run.folder=" + std::string(path)); });
    CHECK(refusal.starts_with("--set run.folder=" + std::string(path) + ": setting 'run.folder': expected a path"));
    CHECK(refusal.find("what ~ stands for") != std::string::npos);
    CHECK(test::code_of([&] { fields.load({{"run", {{"folder", path}}}}, "f.json"); }) == Errc::usage);
  }
  const nlohmann::json cut = {{"run", {{"folder", std::string("runs\0/first", 11)}}}};
  CHECK(test::error_of(Errc::usage, [&] { fields.load(cut, "f.json"); }).find("zero byte") != std::string::npos);
  CHECK(options.folder == "runs");
  for (const char* path : {"./~", "runs/~", "a~b", "/home/mary/runs", ""}) {
    fields.set("run.folder=" + std::string(path));
    CHECK(options.folder == path);
  }
  CHECK(fields.help().find("run.folder  (path; default \"runs\")") != std::string::npos);
}

TEST_CASE("settings: what a file says twice, or of nothing, is refused") {
  Options options;
  Fields fields = fields_of(options);
  const auto load = [&](const char* text) {
    return test::error_of([&] { fields.load(nlohmann::json::parse(text), "run.json"); });
  };
  CHECK(load(R"({"train.lr": 0.3, "train": {"lr": 0.5}})") ==
        "run.json: setting 'train.lr' stands twice, with dots and within objects");
  CHECK(load(R"({"train": {"lr": {}}})") == "run.json: setting 'train.lr': expected number from 0 to 1, got {}");
  CHECK(load(R"({"trian": {}})").find("unknown setting 'trian'") != std::string::npos);
  CHECK(load(R"({"train": {"lr": {"x": 1}}})").find("unknown setting 'train.lr.x'") != std::string::npos);
  CHECK(load(R"({"train": 5})").find("unknown setting 'train'") != std::string::npos);
  CHECK(load(R"({"train": {}})") == "(no error)");
}

TEST_CASE("settings: numbers that are none, or that no integer holds, are refused as they were written") {
  Options options;
  Fields fields = fields_of(options);
  for (const char* text : {"0.1x", "0.1 0.2", "nan", "NaN", "inf", "Infinity", "1e999", "", " ", "0x1", "1,5"}) {
    CAPTURE(text);
    CHECK(test::code_of([&] { fields.set("train.lr=" + std::string(text)); }) == Errc::usage);
  }
  for (const char* text : {"9223372036854775808", "99999999999999999999", "1e3", "10.0", "1e999", "010"}) {
    CAPTURE(text);
    CHECK(test::code_of([&] { fields.set("rounds=" + std::string(text)); }) == Errc::usage);
  }
  CHECK(options.rate == 0.01);
  CHECK(options.rounds == 100);
}

TEST_CASE("settings: long or unprintable keys and values are cut and cleaned in what is said of them") {
  Options options;
  Fields fields = fields_of(options);
  const auto load = [&](const std::string& key, const nlohmann::json& value) {
    return test::error_of([&] { fields.load(nlohmann::json{{key, value}}, "run.json"); });
  };
  CHECK(load("\x1b[2J\n'", 1) == "run.json: unknown setting '?[2J \"'; --help all lists them");
  CHECK(load(std::string(45'000, 'k'), 1).size() < 300);
  CHECK(load("gate", std::string(45'000, 'v')).size() < 300);
  CHECK(load("gate", "\u009b31m").find("got \"??31m\"") != std::string::npos);
  CHECK(test::error_of([] { parse_json("[" + std::string(45'000, 'x'), "terms"); }).size() < 400);
}

TEST_CASE("settings: help shows key, type, default and sentence") {
  Options options;
  const std::string help = fields_of(options).help();
  CHECK(help.find("train.lr  (number from 0 to 1; default 0.01)\n      Learning rate.") != std::string::npos);
  CHECK(help.find("color  (one of red, green; default \"red\")") != std::string::npos);
}

TEST_CASE("settings: groups have what stands before the first dot, and help shows one of them or what is below a key") {
  Options options;
  Fields fields = fields_of(options);
  fields.number("train.tuned.lr", options.rate, "Another rate.");
  fields.group("train", "Later words count");
  fields.group("train", "How to train");
  const std::vector<Fields::Group> groups = fields.groups();
  REQUIRE(groups.size() == 4);
  CHECK(groups[0].name == "train");
  CHECK(groups[0].words == "How to train");
  CHECK(groups[0].num_settings == 2);
  CHECK(groups[1].name == "general");
  CHECK(groups[1].words == "Without a dot: rounds, gate, targets, color, palette");
  CHECK(groups[1].num_settings == 5);
  CHECK(groups[2].name == "model");
  CHECK(groups[2].words.empty());
  CHECK(groups[3].name == "run");

  CHECK(fields.help("train").starts_with("  train.lr  (number from 0 to 1; default 0.01)\n      Learning rate.\n"));
  CHECK(fields.help("train.tuned") == "  train.tuned.lr  (number; default 0.01)\n      Another rate.\n");
  CHECK(fields.help("gate") == "  gate  (true or false; default false)\n      Gate.\n");
  CHECK(fields.help("general").find("  palette  (") != std::string::npos);
  CHECK(fields.help("general").find("train.lr") == std::string::npos);
  CHECK(fields.help("tra").empty());
}

}  // namespace
}  // namespace headstart
