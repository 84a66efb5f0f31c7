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

}  // namespace
}  // namespace headstart::server
