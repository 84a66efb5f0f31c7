#include "client/client_memory.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

namespace headstart::client {
namespace {

learn::StateDict memory_of(double value) { return learn::StateDict({{"c", torch::full({1}, value, torch::kDouble)}}); }

/// What is remembered in the round after; -1: nothing.
double value_at(ClientMemory& memory, std::int64_t counted_round) {
  const auto counted = memory.settle(counted_round);
  return counted ? counted->at("c").item<double>() : -1;
}

TEST_CASE("what a round leaves counts once the server says that its result did") {
  ClientMemory memory;
  CHECK(value_at(memory, 0) == -1);
  memory.propose(1, memory_of(10));
  CHECK(value_at(memory, 1) == 10);
  memory.propose(2, memory_of(20));
  CHECK(value_at(memory, 2) == 20);
}

TEST_CASE("a result that was refused leaves nothing, however often the client is asked afterwards") {
  ClientMemory memory;
  memory.propose(1, memory_of(10));
  CHECK(value_at(memory, 1) == 10);
  memory.propose(2, memory_of(20));  // refused: round 1 is still the last that counted
  CHECK(value_at(memory, 1) == 10);
  CHECK(value_at(memory, 2) == -1);  // a server that says otherwise finds nothing
  memory.propose(3, memory_of(30));
  CHECK(value_at(memory, 3) == 30);
}

TEST_CASE("a round that is trained again replaces what is pending") {
  ClientMemory memory;
  memory.propose(1, memory_of(10));
  memory.propose(1, memory_of(11));
  CHECK(value_at(memory, 1) == 11);
}

TEST_CASE("a server that goes back to an older checkpoint finds the version of that round, and no later one") {
  ClientMemory memory(3);
  for (int round = 1; round <= 5; ++round) {
    memory.propose(round, memory_of(10 * round));
    CHECK(value_at(memory, round) == 10 * round);
  }
  CHECK(value_at(memory, 3) == 30);
  CHECK(value_at(memory, 5) == -1);  // forgotten with the checkpoint
  CHECK(value_at(memory, 1) == -1);  // older than what is kept
}

}  // namespace
}  // namespace headstart::client
