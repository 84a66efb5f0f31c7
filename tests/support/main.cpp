#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include <doctest/doctest.h>

namespace {

/// Where there is room in memory, what tests write lies there. They have thousands of small files written through to
/// the disk, and no test looks at what the disk makes of that. TMPDIR says otherwise.
void keep_files_in_memory() {
  constexpr std::uintmax_t enough = std::uintmax_t{1} << 30;
  const char* const folder = "/dev/shm";
  std::error_code code;
  const std::filesystem::space_info space = std::filesystem::space(folder, code);
  if (!code && space.available >= enough) ::setenv("TMPDIR", folder, 0);  // NOLINT(concurrency-mt-unsafe)
}

}  // namespace

int main(int argc, char** argv) {
  keep_files_in_memory();
  return doctest::Context(argc, argv).run();
}
