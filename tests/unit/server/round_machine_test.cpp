#include "server/phases/round_machine.hpp"

#include <doctest/doctest.h>

namespace headstart::server {
namespace {

using Phase = RoundMachine::Phase;

TEST_CASE("a round collects until everyone has answered or is lost") {
  RoundMachine machine(1, {"a", "b", "c"}, 2);
  CHECK(machine.on_update("a") == Verdict::accepted);
  CHECK(machine.phase() == Phase::collecting);
  machine.on_lost("b", "connection lost");
  CHECK(machine.phase() == Phase::collecting);
  CHECK(machine.on_update("c") == Verdict::accepted);
  CHECK(machine.phase() == Phase::complete);
  CHECK(machine.accepted() == std::vector<std::string>{"a", "c"});
  CHECK(machine.excluded().at("b") == "connection lost");
}

TEST_CASE("an update counts once, and not after its client was given up") {
  RoundMachine machine(1, {"a", "b"}, 1);
  CHECK(machine.on_update("a") == Verdict::accepted);
  CHECK(machine.on_update("a") == Verdict::duplicate);
  machine.on_rejected("b", "NaN");
  CHECK(machine.on_update("b") == Verdict::late);
  CHECK(machine.on_update("stranger") == Verdict::unknown);
  machine.on_lost("a", "gone after its update");
  CHECK(machine.accepted() == std::vector<std::string>{"a"});
}

TEST_CASE("too few updates fail the round and say who is missing") {
  RoundMachine machine(4, {"a", "b", "c"}, 2);
  CHECK(machine.on_update("a") == Verdict::accepted);
  machine.on_lost("b", "timeout");
  machine.on_rejected("c", "NaN in fc.weight");
  CHECK(machine.phase() == Phase::failed);
  CHECK(machine.failure() == "round 4: 1 of 3 updates were accepted, 2 are needed; b: timeout; c: NaN in fc.weight");
}

TEST_CASE("a round without updates never counts, whatever the quorum") {
  RoundMachine machine(1, {"a"}, 0);
  machine.on_lost("a", "gone");
  CHECK(machine.phase() == Phase::failed);
}

}  // namespace
}  // namespace headstart::server
