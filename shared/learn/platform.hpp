// What, beside seeds and settings, the bits of a result depend on.
#pragma once

#include <string>

namespace headstart::learn {

struct Platform {
  std::string libtorch;         ///< "1.13.1"
  std::string instruction_set;  ///< What LibTorch's kernels use: "AVX2", "AVX512", "DEFAULT".
  int num_threads = 0;          ///< Of one computation.
};

Platform platform();

/// All of it in one line, for keys of stored results.
std::string platform_line();

}  // namespace headstart::learn
