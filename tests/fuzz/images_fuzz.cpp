// An image of a set whose other image is sound, or SUN397's list of images: the first byte says which. Promised: it is
// refused, or there are as many labels as images, of the size and the channels that were asked for.
#include <array>
#include <fstream>

#include <ATen/core/Tensor.h>

#include "shared/learn/data/data_set.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/support/temporary_folder.hpp"

namespace {

using namespace headstart;
using namespace std::string_view_literals;

enum class Input : std::uint8_t { colours, gray, list };

/// One gray pixel.
constexpr auto sound_image =
    "\211PNG\015\012\032\012"
    "\000\000\000\015IHDR\000\000\000\001\000\000\000\001\010\000\000\000\000\072\176\233U"
    "\000\000\000\012IDAT\170\234\143\320\002\000\000\054\000\053\314\172\350\346"
    "\000\000\000\000IEND\256B\140\202"sv;
constexpr auto sound_list = "/a/abbey/x.jpg\n/z/zoo/y.jpg\n"sv;

std::filesystem::path memory_folder() {
  return std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : std::filesystem::temp_directory_path();
}

void write(const std::filesystem::path& file, std::string_view content) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << content;
}

void check(const learn::Dataset& dataset, const learn::DataSource& source) {
  fuzz::require(dataset.images.sizes() == at::IntArrayRef({dataset.size(), source.channels, source.side, source.side}),
                "images are of the size that was asked for");
  fuzz::require(dataset.size() >= 1 && dataset.num_classes >= 1, "there are an image and a class at least");
  const auto label = dataset.labels.accessor<std::int64_t, 1>();
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    fuzz::require(label[i] >= 0 && label[i] < dataset.num_classes, "a label is of a class that there is");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const test::TemporaryFolder folder(memory_folder());
  if (size == 0 || data[0] > static_cast<std::uint8_t>(Input::list)) return 0;
  const auto input = static_cast<Input>(data[0]);
  const std::string_view content = fuzz::text_of(data, size).substr(1);
  write(folder / "a/abbey/x.jpg", input == Input::list ? sound_image : content);
  write(folder / "z/zoo/y.jpg", sound_image);
  write(folder / "Training_01.txt", input == Input::list ? content : sound_list);
  const learn::DataSource source{
      .set = "images", .path = folder.path(), .side = 3, .channels = input == Input::gray ? 1 : 3};
  const bool is_refused = fuzz::is_refused([&] { check(learn::load_dataset(source, learn::Split::train), source); });
  fuzz::require(!is_refused || input == Input::list || content != sound_image, "a sound image is read");
  return 0;
}
