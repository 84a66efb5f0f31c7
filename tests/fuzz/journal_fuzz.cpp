// A journal. Promised: what is taken is whole lines, is an event each, and is taken again when the rest is cut off.
#include <algorithm>

#include "shared/base/journal.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace headstart;
  const std::string_view text = fuzz::text_of(data, size);
  const auto [events, taken] = Journal::parse(text);
  fuzz::require(taken <= size, "no more is taken than there is");
  const std::string_view sound = text.substr(0, taken);
  fuzz::require(std::ranges::count(sound, '\n') == std::ssize(events), "each line is an event");
  fuzz::require(Journal::parse(sound) == std::pair(events, taken), "a journal that was cut off is sound");
  return 0;
}
