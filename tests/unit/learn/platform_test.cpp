#include "shared/learn/core/platform.hpp"

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <ATen/Parallel.h>
#include <doctest/doctest.h>

namespace headstart::learn {
namespace {

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t pages = 0;
  statm >> pages >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

/// Blocks as a training step allocates them: written, then freed in the order of allocation.
void use_and_free(std::size_t total) {
  constexpr std::size_t block = 1024 * 1024;
  std::vector<std::vector<char>> blocks;
  for (std::size_t i = 0; i < total / block; ++i) blocks.emplace_back(block, static_cast<char>(i));
  CHECK(blocks.back().back() == static_cast<char>(total / block - 1));
}

}  // namespace

TEST_CASE("the line that keys stored results names every part of the platform") {
  use_threads(1);
  const Platform here = platform();
  CHECK(here.num_threads == 1);
  CHECK(here.blas != "");
  for (const std::string& part : {here.libtorch, here.instruction_set, here.blas}) {
    CHECK(platform_line().find(part) != std::string::npos);
  }
  const std::string with_one = platform_line();
  use_threads(2);
  CHECK(platform_line() != with_one);
  use_threads(1);
}

TEST_CASE("many threads get one answer") {
  const std::string expected = platform().blas;
  std::atomic<int> num_wrong = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) num_wrong += platform().blas != expected;
    });
  }
  threads.clear();
  CHECK(num_wrong == 0);
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("freed memory stays while anyone keeps it, and goes back after the last") {
  constexpr std::size_t mib = 1024 * 1024;
  constexpr std::size_t total = 256 * mib;
  return_freed_memory();
  const std::size_t before = resident_bytes();
  {
    const KeepFreedMemory outer;
    {
      const KeepFreedMemory inner;
      use_and_free(total);
    }
    CHECK(resident_bytes() > before + total / 2);
    return_freed_memory();  // must wait for the keeper
    CHECK(resident_bytes() > before + total / 2);
  }
  CHECK(resident_bytes() < before + total / 8);
  use_and_free(total);
  CHECK(resident_bytes() < before + total / 8);
}
#endif

}  // namespace headstart::learn
