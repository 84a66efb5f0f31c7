#include "shared/net/redial.hpp"

#include <algorithm>

namespace headstart::net {

using std::chrono::milliseconds;

milliseconds pause_after(const RedialOptions& options, int attempt, Seed seed) {
  milliseconds pause = options.first_pause;
  for (int doubled = 1; doubled < attempt && pause < options.longest_pause; ++doubled) pause *= 2;
  pause = std::min(pause, options.longest_pause);
  const std::uint64_t draw = seed.child(static_cast<std::uint64_t>(attempt)).value();
  const double share = static_cast<double>(draw >> 11) * 0x1p-53;  // 0..1
  return milliseconds(static_cast<std::int64_t>(static_cast<double>(pause.count()) * (1 - share / 2)));
}

}  // namespace headstart::net
