// A server's address. Promised: what is accepted reads the same after it was written, and can stand in a request line.
#include <algorithm>

#include "shared/net/url.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace headstart;
  fuzz::is_refused([&] {
    const net::Url url = net::parse_url(fuzz::text_of(data, size));
    const std::string written = net::to_string(url);
    const net::Url again = net::parse_url(written);
    fuzz::require(
        again.host == url.host && again.port == url.port && again.path == url.path && again.is_secure == url.is_secure,
        "an address reads as written");
    fuzz::require(std::ranges::all_of(written, [](char c) { return c > ' ' && c < '\x7f'; }),
                  "an address is printable ASCII");
  });
  return 0;
}
