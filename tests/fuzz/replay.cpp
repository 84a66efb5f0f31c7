// In place of libFuzzer where there is none: hands each file of the folders that are named to the target, once.
#include <algorithm>
#include <filesystem>
#include <vector>

#include "shared/base/files.hpp"
#include "tests/fuzz/fuzz.hpp"

int main(int argc, char** argv) {
  std::size_t num_inputs = 0;
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i])) {
      std::fprintf(stderr, "%s is no folder: a corpus is expected\n", argv[i]);
      return 2;
    }
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) files.push_back(entry.path());
    std::ranges::sort(files);
    for (const std::filesystem::path& file : files) {
      // The last line names the input that ends the process.
      std::fprintf(stderr, "%s\n", file.c_str());
      const std::string input = headstart::read_text(file);
      LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
      ++num_inputs;
    }
  }
  std::fprintf(stderr, "%zu inputs\n", num_inputs);
  return num_inputs == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
