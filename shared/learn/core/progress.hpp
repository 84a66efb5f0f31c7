// How long work tells where it stands.
#pragma once

#include <cstdint>
#include <functional>

namespace headstart::learn {

/// Where long work stands; called from the computing thread after each batch.
struct Progress {
  std::int64_t done = 0;   ///< Samples processed so far.
  std::int64_t total = 0;  ///< Samples planned (an upper bound under early stopping).
};
using ProgressCallback = std::function<void(const Progress&)>;

}  // namespace headstart::learn
