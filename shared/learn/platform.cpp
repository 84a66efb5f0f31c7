#include "shared/learn/platform.hpp"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <torch/version.h>

namespace headstart::learn {

Platform platform() {
  Platform result{.libtorch = TORCH_VERSION, .instruction_set = "unknown", .num_threads = at::get_num_threads()};
  // LibTorch before 2.0 tells its instruction set only in the text of its configuration.
  const std::string config = at::show_config();
  const std::string key = "CPU capability usage: ";
  if (const std::size_t begin = config.find(key); begin != std::string::npos) {
    const std::size_t from = begin + key.size();
    result.instruction_set = config.substr(from, config.find_first_of(" \n", from) - from);
  }
  return result;
}

std::string platform_line() {
  const Platform here = platform();
  return fmt::format("libtorch {}, {}, {} threads", here.libtorch, here.instruction_set, here.num_threads);
}

}  // namespace headstart::learn
