// A frame of a silo's own worker process. Promised: what is accepted reads the same after it was written, a body takes
// no more memory than its schema or the frame, and a refusal is short and printable.
#include <sstream>

#include "shared/wire/prefixed_states.hpp"
#include "shared/worker_process/frame.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace headstart;

learn::Schema model_schema() {
  return learn::Schema({{"fc.weight", c10::ScalarType::Float, {2, 3}}, {"steps", c10::ScalarType::Long, {}}});
}

void read_joined(const nlohmann::json& header) {
  (void)worker_process::integer_in(header, "examples", 0);
  (void)worker_process::texts_in(header, "remarks");
  const learn::Schema schema = worker_process::schema_in(header, "model");
  fuzz::require(!schema.tensors().empty(), "a model has tensors");
}

void read_state(std::istream& in, const worker_process::FrameHead& head) {
  const wire::PackedState state = worker_process::read_frame_state(in, head, model_schema());
  fuzz::require(state.state().schema() == model_schema(), "a state is of the schema that is expected");
}

void read_frame(const std::string& text) {
  std::istringstream in(text);
  const worker_process::FrameHead head = worker_process::read_frame_head(in);
  const std::string written = worker_process::frame_prefix(head.header, head.num_body_bytes);
  std::istringstream again(written);
  const worker_process::FrameHead same = worker_process::read_frame_head(again);
  fuzz::require(same.header == head.header && same.num_body_bytes == head.num_body_bytes, "a head reads as written");
  if (head.type() == "joined") read_joined(head.header);
  if (head.type() == "result") read_state(in, head);
  if (head.type() == "failed") (void)worker_process::text_in(head.header, "reason");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::offer(std::string(fuzz::text_of(data, size)), read_frame);
  return 0;
}
