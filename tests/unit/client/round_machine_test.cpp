#include "client/peer/round_machine.hpp"

#include <doctest/doctest.h>

namespace headstart::peer {
namespace {

using std::chrono::seconds;

const std::vector<std::string> two = {"b", "c"};
constexpr Patience patient{.absence = seconds(10), .phase = seconds(100), .min_neighbours = 0};
const TimePoint start = TimePoint{} + seconds(1000);

/// In round 1, both connected.
RoundMachine in_round_one(Patience patience = patient) {
  RoundMachine machine(two, patience, start);
  machine.connected("b", start);
  machine.connected("c", start);
  machine.begin(1, start);
  return machine;
}

TEST_CASE("round machine: a round goes on when all messages are here") {
  RoundMachine machine = in_round_one();
  CHECK_FALSE(machine.outcome(start));
  CHECK_FALSE(machine.is_wanted("b"));
  machine.ready("b", 1, false);
  machine.ready("c", 1, true);  // it has nothing for this peer
  CHECK(machine.is_wanted("b"));
  CHECK_FALSE(machine.is_wanted("c"));
  CHECK_FALSE(machine.outcome(start));
  machine.received("b");
  const auto outcome = machine.outcome(start);
  REQUIRE(outcome);
  CHECK((outcome->heard == std::set<std::string>{"b", "c"}));
  CHECK(outcome->missing.empty());
}

TEST_CASE("round machine: what was said of the next round counts when that begins") {
  RoundMachine machine = in_round_one();
  machine.ready("b", 1, false);
  machine.ready("b", 2, false);
  machine.ready("c", 1, true);
  machine.ready("c", 2, true);
  CHECK(machine.is_wanted("b"));
  machine.received("b");
  REQUIRE(machine.outcome(start));
  machine.begin(2, start);
  CHECK(machine.is_wanted("b"));
  CHECK_FALSE(machine.outcome(start));
  machine.received("b");
  CHECK(machine.outcome(start));
}

TEST_CASE("round machine: nobody is left out while all are needed, and who is waited for is named") {
  RoundMachine machine = in_round_one();
  machine.ready("b", 1, true);
  machine.lost("c", "connection reset", start);
  CHECK_FALSE(machine.outcome(start + seconds(1000)));
  CHECK(machine.waiting_for(start + seconds(1)).at("c") == "not connected: connection reset");
  CHECK_FALSE(machine.waiting_for(start).contains("b"));
  machine.connected("c", start);
  CHECK(machine.waiting_for(start + seconds(1)).at("c") == "is at work");
}

TEST_CASE("round machine: one that is not connected is left out after absence, from when it was lost") {
  RoundMachine machine = in_round_one({.absence = seconds(10), .phase = seconds(100), .min_neighbours = 1});
  machine.ready("b", 1, true);
  machine.lost("c", "connection reset", start + seconds(5));
  CHECK(machine.next_deadline(start + seconds(5)) == start + seconds(15));
  CHECK_FALSE(machine.outcome(start + seconds(14)));
  const auto outcome = machine.outcome(start + seconds(15));
  REQUIRE(outcome);
  CHECK(outcome->missing.at("c") == "not connected: connection reset");
  // An attempt that fails does not start its time anew.
  machine.lost("c", "connection refused", start + seconds(14));
  CHECK(machine.outcome(start + seconds(15)));
  // In later rounds it is not waited for at all, until it is back.
  machine.begin(2, start + seconds(20));
  machine.ready("b", 2, true);
  CHECK(machine.outcome(start + seconds(20)));
  machine.connected("c", start);
  CHECK_FALSE(machine.outcome(start + seconds(20)));
}

TEST_CASE("round machine: one that is slow is left out when the phase is over") {
  RoundMachine machine = in_round_one({.absence = seconds(10), .phase = seconds(100), .min_neighbours = 1});
  machine.ready("b", 1, true);
  CHECK(machine.next_deadline(start) == start + seconds(100));
  CHECK_FALSE(machine.outcome(start + seconds(99)));
  REQUIRE(machine.outcome(start + seconds(100)));
  CHECK(machine.outcome(start + seconds(100))->missing.at("c") == "did not come before timeouts.phase was over");
}

TEST_CASE("round machine: fewer than min_neighbours do not suffice, however long it takes") {
  RoundMachine machine = in_round_one({.absence = seconds(10), .phase = seconds(100), .min_neighbours = 1});
  machine.lost("b", "gone", start);
  machine.lost("c", "gone", start);
  CHECK_FALSE(machine.outcome(start + seconds(100000)));
}

TEST_CASE("round machine: a message that cannot be used is an answer, and the third excludes its peer") {
  RoundMachine machine = in_round_one();
  for (std::int64_t round = 1; round <= 3; ++round) {
    machine.begin(round, start);
    machine.ready("b", round, true);
    machine.ready("c", round, false);
    machine.unusable("c", "tensor 'x' is nan");
    const auto outcome = machine.outcome(start);
    REQUIRE(outcome);
    CHECK(outcome->missing.contains("c"));
    CHECK(machine.is_excluded("c") == (round == 3));
  }
  machine.begin(4, start);
  machine.ready("b", 4, true);
  machine.ready("c", 4, false);
  CHECK_FALSE(machine.is_wanted("c"));
  REQUIRE(machine.outcome(start));
  CHECK(machine.outcome(start)->missing.at("c").starts_with("excluded after 3"));
}

TEST_CASE("round machine: where no neighbour keeps the round any more, the peer goes on where the first of them is") {
  RoundMachine machine = in_round_one();
  machine.ready("b", 7, false);
  CHECK_FALSE(machine.round_to_skip_to());  // c may be with this peer
  machine.ready("b", 8, true);
  machine.ready("c", 6, true);
  CHECK(machine.round_to_skip_to() == 6);
  machine.begin(6, start);
  CHECK_FALSE(machine.round_to_skip_to());
  const auto outcome = machine.outcome(start);
  REQUIRE(outcome);
  CHECK(outcome->missing.at("b") == "is in a later round, and does not keep its message of this one");
  CHECK((outcome->heard == std::set<std::string>{"c"}));
}

TEST_CASE("round machine: a single neighbour that claims to be further has nobody skip what others go through") {
  RoundMachine machine = in_round_one();
  machine.ready("b", 50, true);
  machine.ready("c", 1, true);
  CHECK_FALSE(machine.round_to_skip_to());
  REQUIRE(machine.outcome(start));
  CHECK(machine.outcome(start)->missing.contains("b"));
  // One that is not connected has no say.
  machine.begin(2, start);
  machine.ready("c", 2, true);
  machine.lost("c", "gone", start);
  machine.begin(3, start);
  CHECK(machine.round_to_skip_to() == 50);
}

TEST_CASE("round machine: a message that is gone meanwhile is not waited for") {
  RoundMachine machine = in_round_one();
  machine.ready("c", 1, true);
  machine.ready("b", 1, false);
  machine.ready("b", 2, false);
  machine.ready("b", 3, false);
  CHECK(machine.is_wanted("b"));  // what it offered was asked for, and may be on its way
  machine.gone("b", 1);
  CHECK_FALSE(machine.is_wanted("b"));
  REQUIRE(machine.outcome(start));
  CHECK(machine.outcome(start)->missing.contains("b"));
}

TEST_CASE("round machine: what a neighbour said before its connection was lost counts no more") {
  RoundMachine machine = in_round_one();
  machine.ready("c", 1, true);
  machine.ready("b", 1, false);
  machine.lost("b", "reset", start);
  CHECK(machine.is_wanted("b"));
  machine.connected("b", start);
  CHECK_FALSE(machine.is_wanted("b"));
  machine.ready("b", 3, false);
  machine.ready("b", 4, false);
  REQUIRE(machine.outcome(start));  // not a wait for what will never come
}

TEST_CASE("round machine: one that refuses this peer at each connection is absent all the same, and has answered") {
  RoundMachine machine = in_round_one();
  machine.ready("b", 1, true);
  for (int second = 0; second <= 12; second += 3) {
    const TimePoint now = start + seconds(second);
    machine.connected("c", now);
    machine.lost("c", "it refuses this peer", now);
    machine.refused("c");
    CHECK((machine.outcome(now).has_value()) == (second >= 10));
  }
}

TEST_CASE("round machine: a peer leaves when all are done and know that it is, or are gone for good") {
  RoundMachine machine = in_round_one();
  machine.done("b");
  machine.told("b");
  machine.done("c");
  CHECK_FALSE(machine.may_leave(start));  // c does not know yet
  machine.lost("c", "gone", start);
  CHECK_FALSE(machine.may_leave(start + seconds(9)));
  CHECK(machine.may_leave(start + seconds(10)));
  machine.connected("c", start);
  CHECK_FALSE(machine.may_leave(start + seconds(10)));
  machine.told("c");
  CHECK(machine.may_leave(start + seconds(10)));
}

}  // namespace
}  // namespace headstart::peer
