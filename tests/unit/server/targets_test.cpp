#include "server/run/targets.hpp"

#include <doctest/doctest.h>

#include "server/config/server_config.hpp"

namespace headstart::server {
namespace {

TEST_CASE("targets: the first round that reaches each counts, round 0 included") {
  Targets targets({.accuracies = {0.8, 0.5}, .reference = 0.6, .fractions = {1.0, 1.5}});
  CHECK(targets.next() == 0.5);
  targets.on_round(0, 0.55, 10, 1000);
  CHECK(targets.next() == 0.6);
  targets.on_round(1, 0.85, 20, 2000);
  CHECK_FALSE(targets.all_reached());
  targets.on_round(2, 0.95, 30, 3000);
  CHECK(targets.all_reached());
  CHECK(targets.next() == 0);
  const auto report = targets.report();
  REQUIRE(report.size() == 4);
  CHECK(report[0]["accuracy"] == 0.5);
  CHECK(report[0]["round"] == 0);
  CHECK(report[1]["round"] == 1);
  CHECK(report[2]["charged"]["seconds"] == 20);
  CHECK(report[3]["charged"]["bytes"] == 3000);
}

TEST_CASE("targets: rounds, seconds and bytes are all charged or all uncharged, and named so") {
  Targets targets({.accuracies = {0.5, 0.6, 0.9}});
  targets.on_start(10, 2100, true);  // what a distilled start spends: a little more than two rounds of 1000
  targets.on_round(0, 0.55, 11, 2100);
  targets.on_round(1, 0.58, 13, 3100);
  targets.on_round(2, 0.65, 15, 4100);
  targets.on_round(3, 0.65, 17, 7000);  // a round in which clients came back does not move the median
  const nlohmann::json report = targets.report();
  CHECK(report[0]["charged"] == nlohmann::json{{"rounds", 3}, {"seconds", 11.0}, {"bytes", 2100}});
  CHECK(report[0]["uncharged"] == nlohmann::json{{"rounds", 0}, {"seconds", 1.0}, {"bytes", 0}});
  CHECK(report[1]["round"] == 2);
  CHECK(report[1]["charged"] == nlohmann::json{{"rounds", 5}, {"seconds", 15.0}, {"bytes", 4100}});
  CHECK(report[1]["uncharged"] == nlohmann::json{{"rounds", 2}, {"seconds", 5.0}, {"bytes", 2000}});
  CHECK(report[2]["charged"].is_null());
  CHECK_FALSE(report[0].contains("bytes"));
}

TEST_CASE(
    "targets: a random start is charged nothing, one with models at least a round, and one without rounds unknown") {
  Targets random({.accuracies = {0.5}});
  random.on_start(0, 0, false);
  random.on_round(0, 0.1, 1, 0);
  random.on_round(1, 0.6, 3, 1000);
  CHECK(random.report()[0]["charged"] == random.report()[0]["uncharged"]);

  Targets cheap({.accuracies = {0.5}});
  cheap.on_start(5, 1, true);
  cheap.on_round(0, 0.6, 6, 1);
  CHECK(cheap.report()[0]["charged"]["rounds"].is_null());
  cheap.on_round(1, 0.6, 8, 1001);
  CHECK(cheap.report()[0]["charged"]["rounds"] == 1);
}

TEST_CASE("a target that was never reached is null, and a later fall does not undo one") {
  Targets targets({.accuracies = {0.5, 0.9}});
  targets.on_round(1, 0.6, 1, 1);
  targets.on_round(2, 0.4, 2, 2);
  CHECK(targets.report()[0]["round"] == 1);
  CHECK(targets.report()[1]["round"].is_null());
}

}  // namespace
}  // namespace headstart::server
