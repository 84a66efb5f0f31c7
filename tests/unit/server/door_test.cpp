#include "server/door.hpp"

#include <algorithm>
#include <vector>

#include <doctest/doctest.h>

#include "server/pace.hpp"

namespace headstart::server {
namespace {

/// A door that notes who was put out, by the order of coming.
struct Watched {
  explicit Watched(std::size_t limit) : count(limit, [this] { return now; }) {}

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

  TimePoint now{};
  DoorCount count;
  std::vector<DoorCount::Guest> guests;
  std::vector<std::size_t> put_out;
  std::string reason;
};

TEST_CASE("door: a fourth of the places for one address, and each is free again") {
  Watched door(8);
  for (const std::size_t guest : {0, 1}) {
    CHECK(door.enter("busy").empty());
    door.count.advance(door.guests[guest], DoorCount::Progress::seated);
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
  door.count.advance(door.guests[1], DoorCount::Progress::seated);
  CHECK(door.enter("shared").empty());
  CHECK(door.put_out == std::vector<std::size_t>{2});
  CHECK(door.reason.find("newer connection from shared, which holds 3") != std::string::npos);
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

TEST_CASE("door: who has a place in the run is not put out") {
  Watched door(4);
  for (const char* address : {"a", "b", "c", "d"}) CHECK(door.enter(address).empty());
  door.count.advance(door.guests[0], DoorCount::Progress::seated);
  CHECK(door.enter("e").empty());
  CHECK(door.put_out == std::vector<std::size_t>{1});
  for (const std::size_t guest : {2, 3, 4}) door.count.advance(door.guests[guest], DoorCount::Progress::seated);
  CHECK(door.enter("f").find("limits.handshakes") != std::string::npos);
}

TEST_CASE("door: who has come the least far makes room first, though others are older") {
  using Progress = DoorCount::Progress;
  Watched door(16);
  for (int i = 0; i < 4; ++i) CHECK(door.enter("shared").empty());
  door.count.advance(door.guests[0], Progress::upgraded);
  door.count.advance(door.guests[1], Progress::speaking);
  // Silent ones, renewed as they are dropped, behind the same address.
  for (int i = 0; i < 100; ++i) CHECK(door.enter("shared").empty());
  CHECK(door.put_out.size() == 100);
  for (const std::size_t guest : door.put_out) CHECK(guest >= 2);
  for (const std::size_t guest : {102, 103}) door.count.advance(door.guests[guest], Progress::upgraded);
  door.put_out.clear();
  for (int i = 0; i < 3; ++i) {
    CHECK(door.enter("shared").empty());
    door.count.advance(door.guests.back(), Progress::upgraded);
  }
  CHECK(door.put_out == std::vector<std::size_t>{1, 0, 102});  // upgraded and silent since: in the clear, too
}

TEST_CASE("door: who is stalled makes room before who is on its way, however far it had come") {
  using Progress = DoorCount::Progress;
  Watched door(16);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(door.enter("shared").empty());
    door.count.advance(door.guests[i], Progress::upgraded);
  }
  door.now += Places::stall;
  CHECK(door.enter("shared").empty());
  CHECK(door.enter("shared").empty());
  CHECK(door.put_out == std::vector<std::size_t>{0, 1});
  door.count.advance(door.guests[2], Progress::upgraded);
  CHECK(door.enter("shared").empty());
  CHECK(door.put_out.back() == 3);
}

TEST_CASE("door: a certificate gives a place apart from strangers, of which each name has a few") {
  Watched door(8);
  for (const char* address : {"a", "a", "b", "b"}) CHECK(door.enter(address).empty());
  door.count.recognise(door.guests[0], "silo-1");
  CHECK(door.count.num_inside() == 4);
  // A flood of strangers, from the same address and others.
  for (const char* address : {"a", "c", "d", "e", "a", "b", "c", "d", "e", "f", "g", "h", "i"}) {
    CHECK(door.enter(address).empty());
  }
  CHECK(std::ranges::count(door.put_out, 0) == 0);
  CHECK(door.count.num_inside() == 9);

  // One silo that comes again and again displaces itself, and no other.
  Watched busy(64);
  CHECK(busy.enter("a").empty());
  busy.count.recognise(busy.guests[0], "silo-1");
  for (std::size_t i = 1; i <= 6; ++i) {
    CHECK(busy.enter("b").empty());
    busy.count.recognise(busy.guests[i], "silo-2");
  }
  CHECK(busy.put_out == std::vector<std::size_t>{1, 2});
  CHECK(busy.reason.find("certified as 'silo-2', which holds 4") != std::string::npos);
  for (std::size_t i = 3; i <= 6; ++i) busy.count.advance(busy.guests[i], DoorCount::Progress::seated);
  CHECK(busy.enter("b").empty());
  busy.count.recognise(busy.guests[7], "silo-2");
  CHECK(busy.put_out.back() == 7);
  CHECK(busy.reason.find("the server's door is full: 4 connections certified as 'silo-2'") != std::string::npos);
  CHECK(busy.count.num_inside() == 5);
}

TEST_CASE("door: where it is shut, handshakes under way end and others do not") {
  Watched door(8);
  for (const char* address : {"a", "b", "c"}) CHECK(door.enter(address).empty());
  door.count.advance(door.guests[0], DoorCount::Progress::speaking);
  door.count.advance(door.guests[1], DoorCount::Progress::upgraded);
  door.count.put_out_before(DoorCount::Progress::upgraded, "shut");
  CHECK(door.put_out == std::vector<std::size_t>{0, 2});
  CHECK(door.count.num_inside() == 1);
}

TEST_CASE("door: a client comes ten times at once, then every five seconds, and others are not slowed") {
  Pace pace;
  const TimePoint start{};
  for (int i = 0; i < 10; ++i) CHECK(pace.wait("silo-1", start).count() == 0);
  CHECK(pace.wait("silo-1", start) == std::chrono::seconds(5));
  CHECK_MESSAGE(pace.wait("silo-1", start) == std::chrono::seconds(5), "coming more often makes it no longer");
  CHECK(pace.wait("silo-2", start).count() == 0);
  CHECK(pace.wait("silo-1", start + std::chrono::seconds(2)) == std::chrono::seconds(5));
  const TimePoint later = start + std::chrono::hours(1);
  for (int i = 0; i < 10; ++i) CHECK(pace.wait("silo-1", later).count() == 0);
  CHECK(pace.wait("silo-1", later).count() > 0);
  for (int i = 0; i < 10'000; ++i) (void)pace.wait(std::to_string(i), later);
  CHECK(pace.wait("silo-3", later).count() > 0);  // beyond some thousands all others share one pace
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
