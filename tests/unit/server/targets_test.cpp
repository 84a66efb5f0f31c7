#include "server/targets.hpp"

#include <doctest/doctest.h>

#include "server/config.hpp"

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
  CHECK(report[2]["seconds"] == 20);
  CHECK(report[3]["bytes"] == 3000);
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
