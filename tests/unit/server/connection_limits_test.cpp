#include "shared/net/connection_limits.hpp"

#include <algorithm>
#include <vector>

#include <doctest/doctest.h>

#include "server/admission/pace.hpp"
#include "shared/base/log_sampler.hpp"

namespace headstart::server {
namespace {

using net::ConnectionLimiter;
using net::ConnectionPlaces;

/// A watched that notes who was put out, by the order of coming.
struct Watched {
  explicit Watched(std::size_t limit) : count(limit, [this] { return now; }) {}

  /// The refusal; empty where it came in.
  std::string enter(const std::string& address) {
    const std::size_t index = connections.size();
    auto entered = count.enter(address, [this, index](const std::string& why) {
      evicted.push_back(index);
      reason = why;
    });
    const auto* refusal = std::get_if<std::string>(&entered);
    if (refusal != nullptr) return *refusal;
    connections.push_back(std::get<ConnectionLimiter::ConnectionId>(entered));
    return "";
  }

  TimePoint now{};
  ConnectionLimiter count;
  std::vector<ConnectionLimiter::ConnectionId> connections;
  std::vector<std::size_t> evicted;
  std::string reason;
};

TEST_CASE("connection limits: a fourth of the places for one address, and each is free again") {
  Watched watched(8);
  for (const std::size_t i : {0, 1}) {
    CHECK(watched.enter("busy").empty());
    watched.count.advance(watched.connections[i], ConnectionLimiter::Progress::established);
  }
  CHECK(watched.enter("busy").find("2 connections from busy") != std::string::npos);
  CHECK(watched.evicted.empty());
  watched.count.leave(watched.connections[0]);
  CHECK(watched.enter("busy").empty());
  CHECK(watched.count.num_inside() == 2);
}

TEST_CASE("connection limits: beyond its fourth an address's own oldest stalled connection makes room") {
  Watched watched(12);
  CHECK(watched.enter("another").empty());
  for (int i = 0; i < 3; ++i) CHECK(watched.enter("shared").empty());
  watched.count.advance(watched.connections[1], ConnectionLimiter::Progress::established);
  CHECK(watched.enter("shared").empty());
  CHECK(watched.evicted == std::vector<std::size_t>{2});
  CHECK(watched.reason.find("newer connection from shared, which holds 3") != std::string::npos);
  CHECK(watched.count.num_inside() == 4);
  watched.count.leave(watched.connections[2]);  // its socket has noticed
  CHECK(watched.count.num_inside() == 4);

  Watched narrow(4);
  CHECK(narrow.enter("shared").empty());
  CHECK(narrow.enter("shared").empty());
  CHECK(narrow.evicted == std::vector<std::size_t>{0});
  CHECK(narrow.count.num_inside() == 1);
}

TEST_CASE(
    "connection limits: where all places are taken, the oldest from the address with the most of them makes room") {
  Watched watched(8);
  for (const char* address : {"honest", "a", "a", "b", "b", "c", "c", "d"}) CHECK(watched.enter(address).empty());
  CHECK(watched.enter("e").empty());
  CHECK(watched.evicted == std::vector<std::size_t>{1});
  CHECK(watched.reason.find("newer connection") != std::string::npos);
  CHECK(watched.count.num_inside() == 8);
  watched.count.leave(watched.connections[1]);  // its socket has noticed
  CHECK(watched.count.num_inside() == 8);
  CHECK(watched.enter("f").empty());
  CHECK(watched.enter("g").empty());
  CHECK(watched.evicted == std::vector<std::size_t>{1, 3, 5});
  CHECK_MESSAGE(watched.enter("g").find("8 connections") != std::string::npos, "it would hold more than anyone else");
  CHECK(watched.enter("h").empty());
  CHECK(watched.evicted.back() == 0);  // nobody holds more than one, and honest has been there for the longest
}

TEST_CASE("connection limits: who has a place in the run is not put out") {
  Watched watched(4);
  for (const char* address : {"a", "b", "c", "d"}) CHECK(watched.enter(address).empty());
  watched.count.advance(watched.connections[0], ConnectionLimiter::Progress::established);
  CHECK(watched.enter("e").empty());
  CHECK(watched.evicted == std::vector<std::size_t>{1});
  for (const std::size_t i : {2, 3, 4})
    watched.count.advance(watched.connections[i], ConnectionLimiter::Progress::established);
  CHECK(watched.enter("f").find("limits.handshakes") != std::string::npos);
}

TEST_CASE("connection limits: who has come the least far makes room first, though others are older") {
  using Progress = ConnectionLimiter::Progress;
  Watched watched(16);
  for (int i = 0; i < 4; ++i) CHECK(watched.enter("shared").empty());
  watched.count.advance(watched.connections[0], Progress::upgraded);
  watched.count.advance(watched.connections[1], Progress::speaking);
  // Silent ones, renewed as they are dropped, behind the same address.
  for (int i = 0; i < 100; ++i) CHECK(watched.enter("shared").empty());
  CHECK(watched.evicted.size() == 100);
  for (const std::size_t i : watched.evicted) CHECK(i >= 2);
  for (const std::size_t i : {102, 103}) watched.count.advance(watched.connections[i], Progress::upgraded);
  watched.evicted.clear();
  for (int i = 0; i < 3; ++i) {
    CHECK(watched.enter("shared").empty());
    watched.count.advance(watched.connections.back(), Progress::upgraded);
  }
  CHECK(watched.evicted == std::vector<std::size_t>{1, 0, 102});  // upgraded and silent since: in the clear, too
}

TEST_CASE("connection limits: who is stalled makes room before who is on its way, however far it had come") {
  using Progress = ConnectionLimiter::Progress;
  Watched watched(16);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(watched.enter("shared").empty());
    watched.count.advance(watched.connections[i], Progress::upgraded);
  }
  watched.now += ConnectionPlaces::stall;
  CHECK(watched.enter("shared").empty());
  CHECK(watched.enter("shared").empty());
  CHECK(watched.evicted == std::vector<std::size_t>{0, 1});
  watched.count.advance(watched.connections[2], Progress::upgraded);
  CHECK(watched.enter("shared").empty());
  CHECK(watched.evicted.back() == 3);
}

TEST_CASE("connection limits: a certificate gives a place apart from strangers, of which each name has a few") {
  Watched watched(8);
  for (const char* address : {"a", "a", "b", "b"}) CHECK(watched.enter(address).empty());
  watched.count.recognise(watched.connections[0], "silo-1");
  CHECK(watched.count.num_inside() == 4);
  // A flood of strangers, from the same address and others.
  for (const char* address : {"a", "c", "d", "e", "a", "b", "c", "d", "e", "f", "g", "h", "i"}) {
    CHECK(watched.enter(address).empty());
  }
  CHECK(std::ranges::count(watched.evicted, 0) == 0);
  CHECK(watched.count.num_inside() == 9);

  // One silo that comes again and again displaces itself, and no other.
  Watched busy(64);
  CHECK(busy.enter("a").empty());
  busy.count.recognise(busy.connections[0], "silo-1");
  for (std::size_t i = 1; i <= 6; ++i) {
    CHECK(busy.enter("b").empty());
    busy.count.recognise(busy.connections[i], "silo-2");
  }
  CHECK(busy.evicted == std::vector<std::size_t>{1, 2});
  CHECK(busy.reason.find("certified as 'silo-2', which holds 4") != std::string::npos);
  for (std::size_t i = 3; i <= 6; ++i)
    busy.count.advance(busy.connections[i], ConnectionLimiter::Progress::established);
  CHECK(busy.enter("b").empty());
  busy.count.recognise(busy.connections[7], "silo-2");
  CHECK(busy.evicted.back() == 7);
  CHECK(busy.reason.find("the server takes no more connections: 4 connections certified as 'silo-2'") !=
        std::string::npos);
  CHECK(busy.count.num_inside() == 5);
}

TEST_CASE("connection limits: where it is shut, handshakes under way end and others do not") {
  Watched watched(8);
  for (const char* address : {"a", "b", "c"}) CHECK(watched.enter(address).empty());
  watched.count.advance(watched.connections[0], ConnectionLimiter::Progress::speaking);
  watched.count.advance(watched.connections[1], ConnectionLimiter::Progress::upgraded);
  watched.count.evict_before(ConnectionLimiter::Progress::upgraded, "shut");
  CHECK(watched.evicted == std::vector<std::size_t>{0, 2});
  CHECK(watched.count.num_inside() == 1);
}

TEST_CASE("connection limits: a client comes ten times at once, then every five seconds, and others are not slowed") {
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

TEST_CASE("connection limits: a flood of failures from one address hides none from another") {
  LogSamplers failures;
  int num_told = 0;
  for (int i = 0; i < 100'000; ++i) num_told += failures.count("flood") ? 1 : 0;
  CHECK(num_told == 100 + 10);  // 128, 256, ..., 65,536
  CHECK(failures.count("another"));
  CHECK(failures.of("flood").count_so_far() == 100'000);
  CHECK(failures.of("another").count_so_far() == 1);
  CHECK(failures.num_in_all() == 100'001);
}

TEST_CASE("connection limits: failures from ever new addresses are told ever more rarely") {
  LogSamplers failures;
  int num_told = 0;
  for (int i = 0; i < 100'000; ++i) num_told += failures.count(std::to_string(i)) ? 1 : 0;
  CHECK(num_told < 4400);
  CHECK(failures.of("0").count_so_far() == 1);
  CHECK(failures.of("99999").count_so_far() == 100'000 - 4096);
}

}  // namespace
}  // namespace headstart::server
