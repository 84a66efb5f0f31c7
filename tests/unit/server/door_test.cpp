#include "server/door.hpp"

#include <vector>

#include <doctest/doctest.h>

namespace headstart::server {
namespace {

/// A door that notes who was put out, by the order of coming.
struct Watched {
  explicit Watched(std::size_t limit) : count(limit) {}

  /// The refusal; empty where it came in.
  std::string enter(const std::string& address) {
    const std::size_t index = guests.size();
    auto entered = count.enter(address, [this, index](const std::string& why) {
      put_out.push_back(index);
      reason = why;
    });
    const auto* refusal = std::get_if<std::string>(&entered);
    if (refusal != nullptr) return *refusal;
    guests.push_back(std::get<DoorCount::Guest>(entered));
    return "";
  }

  DoorCount count;
  std::vector<DoorCount::Guest> guests;
  std::vector<std::size_t> put_out;
  std::string reason;
};

TEST_CASE("door: a fourth of the places for one address, and each is free again") {
  Watched door(8);
  for (const std::size_t guest : {0, 1}) {
    CHECK(door.enter("busy").empty());
    door.count.shake_hands(door.guests[guest]);
  }
  CHECK(door.enter("busy").find("2 connections from busy") != std::string::npos);
  CHECK(door.put_out.empty());
  door.count.leave(door.guests[0]);
  CHECK(door.enter("busy").empty());
  CHECK(door.count.num_inside() == 2);
}

TEST_CASE("door: beyond its fourth an address's own oldest stalled connection makes room") {
  Watched door(12);
  CHECK(door.enter("another").empty());
  for (int i = 0; i < 3; ++i) CHECK(door.enter("shared").empty());
  door.count.shake_hands(door.guests[1]);
  CHECK(door.enter("shared").empty());
  CHECK(door.put_out == std::vector<std::size_t>{2});
  CHECK(door.reason.find("newer connection from its address, which holds 3") != std::string::npos);
  CHECK(door.count.num_inside() == 4);
  door.count.leave(door.guests[2]);  // its socket has noticed
  CHECK(door.count.num_inside() == 4);

  Watched narrow(4);
  CHECK(narrow.enter("shared").empty());
  CHECK(narrow.enter("shared").empty());
  CHECK(narrow.put_out == std::vector<std::size_t>{0});
  CHECK(narrow.count.num_inside() == 1);
}

TEST_CASE("door: where all places are taken, the oldest from the address with the most of them makes room") {
  Watched door(8);
  for (const char* address : {"honest", "a", "a", "b", "b", "c", "c", "d"}) CHECK(door.enter(address).empty());
  CHECK(door.enter("e").empty());
  CHECK(door.put_out == std::vector<std::size_t>{1});
  CHECK(door.reason.find("newer connection") != std::string::npos);
  CHECK(door.count.num_inside() == 8);
  door.count.leave(door.guests[1]);  // its socket has noticed
  CHECK(door.count.num_inside() == 8);
  CHECK(door.enter("f").empty());
  CHECK(door.enter("g").empty());
  CHECK(door.put_out == std::vector<std::size_t>{1, 3, 5});
  CHECK_MESSAGE(door.enter("g").find("8 connections") != std::string::npos, "it would hold more than anyone else");
  CHECK(door.enter("h").empty());
  CHECK(door.put_out.back() == 0);  // nobody holds more than one, and honest has been there for the longest
}

TEST_CASE("door: who has shaken hands is not put out") {
  Watched door(4);
  for (const char* address : {"a", "b", "c", "d"}) CHECK(door.enter(address).empty());
  door.count.shake_hands(door.guests[0]);
  CHECK(door.enter("e").empty());
  CHECK(door.put_out == std::vector<std::size_t>{1});
  for (const std::size_t guest : {2, 3, 4}) door.count.shake_hands(door.guests[guest]);
  CHECK(door.enter("f").find("limits.handshakes") != std::string::npos);
}

TEST_CASE("door: a flood of failures from one address hides none from another") {
  ToldApart failures;
  int num_told = 0;
  for (int i = 0; i < 100'000; ++i) num_told += failures.count("flood") ? 1 : 0;
  CHECK(num_told == 100 + 10);  // 128, 256, ..., 65,536
  CHECK(failures.count("another"));
  CHECK(failures.of("flood").so_far() == 100'000);
  CHECK(failures.of("another").so_far() == 1);
  CHECK(failures.num_in_all() == 100'001);
}

TEST_CASE("door: failures from ever new addresses are told ever more rarely") {
  ToldApart failures;
  int num_told = 0;
  for (int i = 0; i < 100'000; ++i) num_told += failures.count(std::to_string(i)) ? 1 : 0;
  CHECK(num_told < 4400);
  CHECK(failures.of("0").so_far() == 1);
  CHECK(failures.of("99999").so_far() == 100'000 - 4096);
}

}  // namespace
}  // namespace headstart::server
