#include "server/door.hpp"

#include <doctest/doctest.h>

namespace headstart::server {
namespace {

TEST_CASE("door: a fourth of the places for one address, all of them for many, and each is free again") {
  DoorCount count(8);
  CHECK_FALSE(count.enter("flood"));
  CHECK_FALSE(count.enter("flood"));
  const auto refused = count.enter("flood");
  REQUIRE(refused);
  CHECK(refused->find("2 connections from flood") != std::string::npos);
  for (const char* honest : {"a", "b", "c", "d", "e", "f"}) CHECK_FALSE(count.enter(honest));
  const auto full = count.enter("g");
  REQUIRE(full);
  CHECK(full->find("8 connections") != std::string::npos);
  CHECK(full->find("limits.handshakes") != std::string::npos);
  CHECK(count.num_inside() == 8);
  count.leave("flood");
  CHECK_FALSE(count.enter("g"));
  count.leave("flood");
  CHECK_FALSE(count.enter("flood"));
}

TEST_CASE("door: of failed handshakes the 1st, 2nd, 4th, 8th of each address are told, and all are counted") {
  DoorCount count(8);
  int num_told = 0;
  for (int i = 0; i < 100; ++i) num_told += count.count_failure("flood") ? 1 : 0;
  CHECK(num_told == 7);
  CHECK(count.count_failure("another"));
  CHECK(count.status().num_failed == 101);
}

TEST_CASE("door: failures from ever new addresses are told ever more rarely") {
  DoorCount count(8);
  int num_told = 0;
  for (int i = 0; i < 100'000; ++i) num_told += count.count_failure(std::to_string(i)) ? 1 : 0;
  CHECK(num_told < 4200);
}

}  // namespace
}  // namespace headstart::server
