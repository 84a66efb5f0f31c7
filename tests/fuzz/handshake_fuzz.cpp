// The JSON inside Welcome (the terms of a run, the figures of its samples) and inside Join (a client's own model, what
// it says of its samples). Promised: what is accepted reads the same after it was written and sent on, and a spec names
// its architecture or is refused; what is said of text that is refused is short and printable, whatever the text holds.
#include "shared/plan/terms.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace headstart;

void read_terms(const std::string& text) {
  const std::string written = plan::to_json_text(plan::terms_from_json_text(text));
  fuzz::require(plan::to_json_text(plan::terms_from_json_text(written)) == written, "terms read as written");
}

void read_spec(const std::string& text) {
  const learn::ModelSpec spec = plan::spec_from_json_text(text);
  const std::string written = plan::to_json_text(spec);
  fuzz::require(plan::to_json_text(plan::spec_from_json_text(written)) == written, "a spec reads as written");
  // What a scripted model's architecture is stands in the file that the spec names.
  if (!spec.is_scripted()) fuzz::is_refused([&] { (void)spec.architecture(); });
}

void read_report(const std::string& text) {
  const std::string written = plan::to_json_text(plan::report_from_json_text(text));
  fuzz::require(plan::to_json_text(plan::report_from_json_text(written)) == written, "a report reads as written");
}

void read_reference(const std::string& text) {
  const std::string written = plan::to_json_text(plan::reference_from_json_text(text));
  fuzz::require(plan::to_json_text(plan::reference_from_json_text(written)) == written, "a reference reads as written");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(fuzz::text_of(data, size));
  fuzz::offer(text, read_terms);
  fuzz::offer(text, read_spec);
  fuzz::offer(text, read_report);
  fuzz::offer(text, read_reference);
  return 0;
}
