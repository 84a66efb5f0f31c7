// Frames of a silo's own worker, byte by byte, and what is refused.
#include "shared/worker_process/frame.hpp"

#include <sstream>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/wire/prefixed_states.hpp"
#include "shared/wire/safetensors.hpp"
#include "tests/support/throws.hpp"

namespace headstart::worker_process {

namespace {

const learn::Schema& model_schema() {
  static const learn::Schema schema(
      {{"fc.weight", c10::ScalarType::Float, {2, 3}}, {"fc.bias", c10::ScalarType::Float, {2}}});
  return schema;
}

std::string body_of(const wire::PackedState& state) {
  const auto bytes = state.bytes();
  return wire::safetensors_head(state) + std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

wire::PackedState model() {
  return wire::PackedState(learn::StateDict(
      {{"fc.weight", torch::arange(6, torch::kFloat).reshape({2, 3})}, {"fc.bias", torch::tensor({7.F, 8.F})}}));
}

wire::PackedState state_in(const std::string& body, const learn::Schema& schema) {
  std::istringstream in(body);
  return read_frame_state(in, {{{"type", "result"}}, body.size()}, schema);
}

/// What the reader says of an input that breaks the protocol.
template <class Call>
std::string refusal(Call call) {
  return test::error_of(Errc::protocol, call);
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

FrameHead head_in(const std::string& bytes) {
  std::istringstream in(bytes);
  return read_frame_head(in);
}

}  // namespace

TEST_CASE("a frame is its mark, two little-endian lengths, and JSON") {
  const std::string bytes = frame_prefix({{"type", "bye"}}, 0x0102);
  CHECK(bytes == std::string("HSW1\x0e\x00\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00", 16) + R"({"type":"bye"})");
  const FrameHead head = head_in(bytes);
  CHECK(head.type() == "bye");
  CHECK(head.num_body_bytes == 0x0102);
}

TEST_CASE("a frame that cannot be one is refused, and the words say what was expected") {
  CHECK(contains(refusal([&] { (void)head_in("Traceback (most recent call last)"); }), "HSW1"));
  CHECK(contains(refusal([&] { (void)head_in("HSW1"); }), "ends within"));
  CHECK(contains(refusal([&] { (void)head_in(std::string("HSW1\xff\xff\xff\xff\0\0\0\0\0\0\0\0", 16)); }), "4194304"));
  CHECK(contains(refusal([&] { (void)head_in(std::string("HSW1\x02\0\0\0\0\0\0\0\0\0\0\0[]", 18)); }), "type"));
}

TEST_CASE("a state is read in any order of tensors, and only of the schema that is expected") {
  const wire::PackedState sent = model();
  CHECK(learn::bitwise_equal(state_in(body_of(sent), model_schema()).state(), sent.state()));
  // The bias first, as no writer of this program lays it out.
  std::string text = R"({"fc.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                     R"("fc.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]}})";
  std::string body(8, '\0');
  body[0] = static_cast<char>(text.size());
  body += text;
  for (const float value : {7.F, 8.F, 0.F, 1.F, 2.F, 3.F, 4.F, 5.F}) {
    body.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  CHECK(learn::bitwise_equal(state_in(body, model_schema()).state(), sent.state()));
  const learn::Schema other({{"fc.weight", c10::ScalarType::Float, {3, 2}}, {"fc.bias", c10::ScalarType::Float, {2}}});
  CHECK(contains(refusal([&] { (void)state_in(body_of(sent), other); }), "fc.weight"));
  CHECK(contains(refusal([&] { (void)state_in("", model_schema()); }), "without a body"));
}

TEST_CASE("a body beyond what its schema can need is refused before it is read") {
  std::istringstream in;
  CHECK(contains(refusal([&] {
                   (void)read_frame_state(in, {{{"type", "result"}}, std::uint64_t{1} << 40}, model_schema());
                 }),
                 "at most"));
}

TEST_CASE("the model of a joined says which tensors are trained") {
  const nlohmann::json written = {{"type", "joined"},
                                  {"model",
                                   {{{"name", "w"}, {"dtype", "F32"}, {"shape", {4}}},
                                    {{"name", "mean"}, {"dtype", "F32"}, {"shape", {4}}, {"trained", false}},
                                    {{"name", "n"}, {"dtype", "I64"}, {"shape", nlohmann::json::array()}}}}};
  const nlohmann::json joined = nlohmann::json::parse(written.dump());  // as read: numbers without a sign
  const learn::Schema schema = schema_in(joined, "model");
  REQUIRE(schema.tensors().size() == 3);
  for (const learn::TensorSpec& spec : schema.tensors()) {
    const learn::Role expected = spec.name == "w"      ? learn::Role::parameter
                                 : spec.name == "mean" ? learn::Role::buffer
                                                       : learn::Role::integer;
    CHECK((schema.role_of(spec) == expected));
  }
  nlohmann::json bad = joined;
  bad["model"][0]["shape"] = {-4};
  CHECK(contains(refusal([&] { (void)schema_in(bad, "model"); }), "'w'"));
  bad["model"][0] = joined["model"][1];
  CHECK(contains(refusal([&] { (void)schema_in(bad, "model"); }), "mean"));
}

TEST_CASE("several states follow one behind the other under their prefixes") {
  const wire::PackedState first = model();
  const wire::PackedState second = wire::PackedState::of_tensor("samples", torch::tensor({1.F, 2.F}));
  const std::vector<wire::PrefixedState> states = {{"0/", &first}, {"1/", &second}};
  std::string file = wire::safetensors_head(states);
  for (const wire::PackedState* state : {&first, &second}) {
    const auto bytes = state->bytes();
    file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  std::istringstream in(file);
  const wire::ModelFile read = wire::read_safetensors(in, file.size(), "body");
  CHECK(at::equal(read.model.state().at("0/fc.weight"), first.state().at("fc.weight")));
  CHECK(at::equal(read.model.state().at("1/samples"), second.state().at("samples")));
}

}  // namespace headstart::worker_process
