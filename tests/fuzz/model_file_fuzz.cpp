// A model file. Promised: tensors take no more memory than the file, and what is accepted reads the same, bit for bit,
// after it was written.
#include <sstream>

#include "shared/wire/safetensors.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace headstart;

wire::ModelFile read(const std::string& text) {
  std::istringstream in(text);
  return wire::read_safetensors(in, text.size(), "input");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::is_refused([&] {
    const wire::ModelFile file = read(std::string(fuzz::text_of(data, size)));
    const auto bytes = file.model.bytes();
    fuzz::require(bytes.size() < size, "tensors are smaller than their file");
    std::string written = wire::safetensors_head(file.model, file.metadata);
    written.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const wire::ModelFile again = read(written);
    fuzz::require(again.metadata == file.metadata, "metadata read as written");
    fuzz::require(learn::bitwise_equal(again.model.state(), file.model.state()), "a model reads as written");
  });
  return 0;
}
