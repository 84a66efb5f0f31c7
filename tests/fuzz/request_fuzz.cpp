// A certificate request, as a silo sends it to the authority. Promised: it is refused, or has a key to take a
// fingerprint of.
#include "server/pki/x509.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace headstart;
  fuzz::is_refused([&] {
    const pki::Request request = pki::parse_request(std::string(fuzz::text_of(data, size)), "input");
    (void)pki::name_of(*request);
    fuzz::require(pki::fingerprint(*request).size() == 64, "a fingerprint is a SHA-256");
  });
  return 0;
}
