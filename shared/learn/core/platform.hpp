// The machine under LibTorch: what, beside seeds and settings, the bits of a result depend on, and the process-wide
// settings that computing wants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace headstart::learn {

struct Platform {
  std::string libtorch;         ///< "1.13.1"
  std::string instruction_set;  ///< What LibTorch's kernels use: "AVX2", "AVX512", "DEFAULT".
  std::string blas;             ///< OpenBLAS's own description, with the kernels it chose; else the library's file.
  int num_threads = 0;          ///< Of one computation.
};

Platform platform();

/// "reproducible_with" of a run.json: the platform here, and the device that computes ("cpu").
nlohmann::json platform_record(const std::string& device);

/// All of it in one line, for keys of stored results.
std::string platform_line();

/// Threads of one computation: LibTorch's, and those of an OpenBLAS below it, which LibTorch does not reach.
void use_threads(std::int64_t num_threads);

/// From now on large blocks go back to the system when they are freed: what one phase needed does not stay resident in
/// the next. Process-wide; nothing happens where the allocator is not glibc's.
void return_freed_memory();

/// Asks the system for large pages behind a block that nothing was written to yet: page by page, touching fresh memory
/// costs more than filling it. Small blocks, and systems without such pages, stay as they are.
void prefer_large_pages(void* begin, std::size_t num_bytes);

/// Has the system provide all pages of a large block at once, in the calling thread, its content unchanged: adding to
/// fresh zeros would touch each page twice, to read it and to write it.
void provide_pages(void* begin, std::size_t num_bytes);

/// While one lives, freed memory is kept for the next tensor, as training allocates the same sizes in every step: its
/// rate grows by about a third. The end of the last one returns what was kept, and return_freed_memory() holds.
class KeepFreedMemory {
 public:
  KeepFreedMemory();
  ~KeepFreedMemory();
  KeepFreedMemory(const KeepFreedMemory&) = delete;
  KeepFreedMemory& operator=(const KeepFreedMemory&) = delete;
};

}  // namespace headstart::learn
