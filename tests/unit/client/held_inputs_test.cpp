#include "client/held_inputs.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "client/outbound.hpp"
#include "tests/support/throws.hpp"

namespace headstart::client {
namespace {

using Places = std::vector<std::uint16_t>;

/// What tells inputs apart is their digest.
std::vector<wire::Input> inputs(const std::vector<std::string>& digests) {
  std::vector<wire::Input> inputs;
  for (const std::string& digest : digests) inputs.push_back({"model", digest, "", {}});
  return inputs;
}

wire::PackedState state_of(double value) { return wire::PackedState::of_tensor("x", torch::full({2}, value)); }

/// A task whose missing inputs all come.
Places task(HeldInputs& held, const std::vector<std::string>& digests, bool keeps) {
  const Places missing = held.begin(inputs(digests), keeps);
  for (const std::uint16_t place : missing) held.put(digests[place], state_of(place));
  return missing;
}

TEST_CASE("a client lacks what it never had, each state once, and not what the task before left with it") {
  HeldInputs held;
  CHECK(task(held, {"a", "b", "a"}, false) == Places{0, 1});
  CHECK(held.at("b").digest() == state_of(1).digest());
  CHECK(task(held, {"b", "c"}, false) == Places{1});
  CHECK(task(held, {"a"}, false) == Places{0});
}

TEST_CASE("inputs that are kept outlive tasks that keep nothing, until another task keeps its own") {
  HeldInputs held;
  task(held, {"student", "teacher"}, true);
  CHECK(task(held, {"candidate"}, false) == Places{0});
  CHECK(task(held, {}, false).empty());
  CHECK(task(held, {"student", "teacher"}, true).empty());
  task(held, {"global"}, true);
  CHECK(task(held, {"student"}, false) == Places{0});
  CHECK(task(held, {"global"}, true).empty());
}

TEST_CASE("what is not named any more is forgotten; its memory serves what comes in its place, or is free") {
  HeldInputs held;
  task(held, {"round 1"}, true);
  const void* memory = held.at("round 1").bytes().data();
  CHECK(held.begin(inputs({"round 2"}), true) == Places{0});
  CHECK(test::code_of([&] { (void)held.at("round 1"); }) == Errc::internal);
  const wire::PackedState next = held.room_for(state_of(0).state().schema());
  CHECK(next.bytes().data() == memory);

  // Of another schema, or still in use elsewhere: new memory, and the old one is not held.
  held.put("round 2", next);
  CHECK(held.begin(inputs({"round 3"}), true) == Places{0});
  CHECK(held.room_for(state_of(0).state().schema()).bytes().data() != memory);
  const at::Tensor tensor = next.state().tensors().front().tensor;
  const auto num_users = tensor.use_count();
  held.put("round 3", next);
  CHECK(held.begin(inputs({"round 4"}), true) == Places{0});
  const learn::Schema other({{"y", c10::ScalarType::Float, {3}}});
  CHECK(held.room_for(other).bytes().size() == 12);
  CHECK(tensor.use_count() == num_users);
}

TEST_CASE("a task whose inputs never came whole leaves those that did for the next attempt") {
  HeldInputs held;
  CHECK(held.begin(inputs({"a", "b"}), true) == Places{0, 1});
  held.put("a", state_of(1));
  CHECK(held.begin(inputs({"a", "b"}), true) == Places{1});
}

TEST_CASE("what leaves the silo went through each of its steps, in their order, on the task's own terms") {
  const Assignment assignment{"train", "", {}};
  std::vector<std::string> seen;
  const auto step = [&seen](const char* name) {
    return [&seen, name](const Assignment& given, TaskResult result) {
      seen.push_back(name + (" " + given.kind));
      result.figures += name;
      return result;
    };
  };
  const Outbound outbound({step("clip"), step("noise")});
  const ReleasedResult released = outbound.release(assignment, {.figures = "counts,", .state = state_of(1)});
  CHECK(released.figures() == "counts,clipnoise");
  CHECK(released.state()->digest() == state_of(1).digest());
  CHECK(seen == std::vector<std::string>{"clip train", "noise train"});
}

TEST_CASE("a step may withhold a result; without steps everything leaves as it is") {
  const Assignment assignment{"logits", "", {}};
  const Outbound closed({[](const Assignment& given, TaskResult result) {
    if (given.kind == "logits") throw Error(Errc::usage, "this silo gives no logits");
    return result;
  }});
  CHECK(test::error_of(Errc::usage, [&] { (void)closed.release(assignment, {}); }) == "this silo gives no logits");
  CHECK(Outbound().release(assignment, {.figures = "{}"}).figures() == "{}");
}

TEST_CASE("of a failure its kind leaves the silo, whatever its words say") {
  const auto kind_of = [](Errc code) { return Outbound::release(Error(code, "/home/anna/patients.csv: line 7")); };
  CHECK(kind_of(Errc::data) == wire::Failure::data);
  CHECK(kind_of(Errc::usage) == wire::Failure::settings);
  CHECK(kind_of(Errc::protocol) == wire::Failure::settings);
  CHECK(kind_of(Errc::storage) == wire::Failure::storage);
  CHECK(kind_of(Errc::run_failed) == wire::Failure::training);
  CHECK(kind_of(Errc::internal) == wire::Failure::internal);
  CHECK(Outbound::release(std::bad_alloc()) == wire::Failure::memory);
  CHECK(Outbound::release(std::runtime_error("DefaultCPUAllocator: not enough memory")) == wire::Failure::memory);
  CHECK(Outbound::release(std::runtime_error("anything")) == wire::Failure::internal);
}

}  // namespace
}  // namespace headstart::client
