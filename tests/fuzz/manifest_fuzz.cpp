// A manifest. Promised: what is accepted reads the same after it was written, and can be shown as a table.
#include "shared/learn/partition/manifest.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace headstart;
  fuzz::is_refused([&] {
    const learn::Manifest manifest = learn::parse_manifest(fuzz::text_of(data, size), "input");
    const std::string written = learn::manifest_text(manifest);
    fuzz::require(learn::manifest_text(learn::parse_manifest(written, "written")) == written,
                  "a manifest reads as written");
    (void)learn::summary_table(manifest);
  });
  return 0;
}
