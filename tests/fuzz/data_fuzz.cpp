// A file of a data set, whose companions are sound: its first byte says which file it is. Promised: it is refused, or
// there are as many labels as images, each of a class that there is.
#include <array>

#include <ATen/core/Tensor.h>

#include "shared/base/files.hpp"
#include "shared/learn/data/data_set.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/support/temporary_folder.hpp"

namespace {

using namespace headstart;

struct File {
  const char* set;
  const char* name;
  std::string_view sound;
};

using namespace std::string_view_literals;

/// One sample of 1x1 pixel of class 1.
constexpr std::array files = {
    File{"mnist", "train-images-idx3-ubyte", "\0\0\x08\x03\0\0\0\1\0\0\0\1\0\0\0\1\x2a"sv},
    File{"mnist", "train-labels-idx1-ubyte", "\0\0\x08\x01\0\0\0\1\x01"sv},
    File{"tensors", "train-images.npy",
         "\x93NUMPY\1\0\x3a\0{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1)}\x2a"sv},
    File{"tensors", "train-labels.npy",
         "\x93NUMPY\1\0\x37\0{'descr': '|u1', 'fortran_order': False, 'shape': (1,)} \x01"sv},
    File{"tensors", "meta.json", R"({"num_classes": 3})"sv},
    File{"cifar10", "test_batch.bin", {}},
};

std::filesystem::path memory_folder() {
  return std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : std::filesystem::temp_directory_path();
}

void write(const std::filesystem::path& file, std::string_view content) {
  std::ofstream(file, std::ios::binary) << content;
}

void check(const learn::Dataset& dataset) {
  fuzz::require(dataset.labels.dim() == 1 && !learn::shape_violation(dataset.task().shape),
                "a sample has a shape within its bounds, labels are [n]");
  fuzz::require(dataset.images.size(0) == dataset.size() && dataset.size() > 0, "there are as many labels as images");
  const auto label = dataset.labels.accessor<std::int64_t, 1>();
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    fuzz::require(label[i] >= 0 && label[i] < dataset.num_classes, "a label is of a class that there is");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const test::TemporaryFolder folder(memory_folder());
  if (size == 0 || data[0] >= files.size()) return 0;
  const File& file = files[data[0]];
  for (const File& companion : files) {
    if (std::string_view(companion.set) == file.set) write(folder / companion.name, companion.sound);
  }
  write(folder / file.name, fuzz::text_of(data, size).substr(1));
  const auto split = std::string_view(file.set) == "cifar10" ? learn::Split::test : learn::Split::train;
  fuzz::is_refused([&] { check(learn::load_dataset({file.set, folder.path()}, split)); });
  return 0;
}
