#include "shared/learn/core/platform.hpp"

#include <dlfcn.h>

#include <cstdint>
#include <filesystem>
#include <mutex>

#include <sys/mman.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/version.h>

namespace headstart::learn {

namespace {

/// A function of whichever library the process has loaded, or null: the BLAS is chosen at start, not when we link.
template <typename Function>
Function* loaded_function(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
}

std::string describe_blas() {
  if (auto* describe = loaded_function<char*()>("openblas_get_config")) return describe();
  Dl_info where{};
  void* multiply = ::dlsym(RTLD_DEFAULT, "sgemm_");
  if (multiply == nullptr || ::dladdr(multiply, &where) == 0 || where.dli_fname == nullptr) return "within libtorch";
  std::error_code unresolved;
  const std::filesystem::path file = std::filesystem::canonical(where.dli_fname, unresolved);
  return unresolved ? where.dli_fname : file.string();
}

/// Asked once: OpenBLAS writes its description into one buffer of its own at each call, and many threads ask.
const std::string& blas_description() {
  static const std::string description = describe_blas();
  return description;
}

class FreedMemoryPolicy {
 public:
  void keep() {
    const std::lock_guard lock(mutex_);
    if (num_keepers_++ > 0) return;
#ifdef __GLIBC__
    ::mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024);  // the most that glibc takes
    ::mallopt(M_TRIM_THRESHOLD, 1024 * 1024 * 1024);
#endif
  }
  void release() {
    const std::lock_guard lock(mutex_);
    if (--num_keepers_ == 0) give_back();
  }
  void return_freed() {
    const std::lock_guard lock(mutex_);
#ifdef __GLIBC__
    ::mallopt(M_ARENA_MAX, 2);  // each arena keeps blocks of its own
#endif
    if (num_keepers_ == 0) give_back();
  }

 private:
  static void give_back() {
#ifdef __GLIBC__
    ::mallopt(M_MMAP_THRESHOLD, 256 * 1024);
    ::mallopt(M_TRIM_THRESHOLD, 128 * 1024);
    ::malloc_trim(0);
#endif
  }

  std::mutex mutex_;
  int num_keepers_ = 0;
};

FreedMemoryPolicy& freed_memory() {
  static FreedMemoryPolicy policy;
  return policy;
}

}  // namespace

Platform platform() {
  Platform result{.libtorch = TORCH_VERSION,
                  .instruction_set = "unknown",
                  .blas = blas_description(),
                  .num_threads = at::get_num_threads()};
  // LibTorch before 2.0 tells its instruction set only in the text of its configuration.
  const std::string config = at::show_config();
  const std::string key = "CPU capability usage: ";
  if (const std::size_t begin = config.find(key); begin != std::string::npos) {
    const std::size_t from = begin + key.size();
    result.instruction_set = config.substr(from, config.find_first_of(" \n", from) - from);
  }
  return result;
}

nlohmann::json platform_record(const std::string& device) {
  const Platform here = platform();
  return {{"libtorch", here.libtorch},
          {"instruction_set", here.instruction_set},
          {"blas", here.blas},
          {"threads", here.num_threads},
          {"device", device}};
}

std::string platform_line() {
  const Platform here = platform();
  return fmt::format("libtorch {}, {}, {}, {} threads", here.libtorch, here.instruction_set, here.blas,
                     here.num_threads);
}

void use_threads(std::int64_t num_threads) {
  at::set_num_threads(static_cast<int>(num_threads));
  if (auto* set_threads = loaded_function<void(int)>("openblas_set_num_threads")) {
    set_threads(static_cast<int>(num_threads));
  }
}

void prefer_large_pages([[maybe_unused]] void* begin, [[maybe_unused]] std::size_t num_bytes) {
#ifdef MADV_HUGEPAGE
  constexpr std::size_t large_page = std::size_t{2} << 20;
  if (num_bytes < 2 * large_page) return;
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const std::uintptr_t first = (address + large_page - 1) / large_page * large_page;
  const std::uintptr_t last = (address + num_bytes) / large_page * large_page;
  // Advice: where it is not taken, pages are small as before.
  (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

void provide_pages([[maybe_unused]] void* begin, [[maybe_unused]] std::size_t num_bytes) {
#ifdef MADV_POPULATE_WRITE
  constexpr std::size_t page = 4096;
  constexpr std::size_t least = std::size_t{256} << 10;
  if (num_bytes < least) return;
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const std::uintptr_t first = (address + page - 1) / page * page;
  const std::uintptr_t last = (address + num_bytes) / page * page;
  (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_POPULATE_WRITE);
#endif
}

void return_freed_memory() { freed_memory().return_freed(); }

KeepFreedMemory::KeepFreedMemory() { freed_memory().keep(); }
KeepFreedMemory::~KeepFreedMemory() { freed_memory().release(); }

}  // namespace headstart::learn
