#include <array>
#include <span>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/reader.hpp"
#include "shared/learn/data/reading.hpp"

namespace headstart::learn {

namespace {

constexpr std::int64_t image_bytes = 3 * 32 * 32;

/// A record is its label bytes, the wanted one last, and the image.
struct Layout {
  std::int64_t num_label_bytes;
  std::string_view archive_folder;  ///< Where the published archive unpacks to.
  std::span<const std::string_view> train_files;
  std::string_view test_file;
};

constexpr std::array<std::string_view, 5> train_files_of_10 = {
    "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"};
constexpr Layout layout_of_10{1, "cifar-10-batches-bin", train_files_of_10, "test_batch.bin"};

constexpr std::array<std::string_view, 1> train_files_of_100 = {"train.bin"};
constexpr Layout layout_of_100{2, "cifar-100-binary", train_files_of_100, "test.bin"};

RawSplit read_records(const std::filesystem::path& file, const Layout& layout, std::int64_t num_classes) {
  InputFile in(file);
  const std::int64_t record_bytes = layout.num_label_bytes + image_bytes;
  const auto num_bytes = static_cast<std::int64_t>(size_of_file(file, Errc::data));
  const std::int64_t num_records = num_bytes / record_bytes;
  if (num_records == 0 || num_bytes % record_bytes != 0) {
    in.fail(static_cast<std::uint64_t>(num_records * record_bytes),
            fmt::format("truncated: a record has {} bytes, and the file of {} bytes ends within one", record_bytes,
                        num_bytes));
  }
  Tensor records = torch::empty({num_records, record_bytes}, at::kByte);
  in.read(records.data_ptr(), static_cast<std::uint64_t>(num_bytes));
  in.require_end();
  const std::int64_t label_column = layout.num_label_bytes - 1;
  RawSplit raw{records.narrow(1, layout.num_label_bytes, image_bytes).reshape({num_records, 3, 32, 32}),
               records.select(1, label_column).to(at::kLong)};
  require_labels_within(raw.labels, num_classes, [&](std::int64_t i) {
    return fmt::format("{}, offset {}", file.string(), i * record_bytes + label_column);
  });
  return raw;
}

template <const Layout& layout>
Dataset load_cifar(const DataReader& reader, const std::filesystem::path& folder, const DataSource&, Split split) {
  const std::filesystem::path unpacked = folder / layout.archive_folder;
  const std::filesystem::path& home = is_folder(unpacked, Errc::data) ? unpacked : folder;
  const std::span<const std::string_view> names =
      split == Split::train ? layout.train_files : std::span<const std::string_view>(&layout.test_file, 1);
  std::vector<Tensor> images;
  std::vector<Tensor> labels;
  for (const std::string_view name : names) {
    RawSplit part = read_records(home / name, layout, std::ssize(reader.classes));
    images.push_back(std::move(part.images));
    labels.push_back(std::move(part.labels));
  }
  return reader.dataset(torch::cat(images), torch::cat(labels));
}

constexpr std::array<std::int64_t, 3> shape = {3, 32, 32};

constexpr std::array<std::string_view, 10> classes_of_10 = {"airplane", "automobile", "bird",  "cat",  "deer",
                                                            "dog",      "frog",       "horse", "ship", "truck"};
constexpr std::array mean_of_10 = {0.4914, 0.4822, 0.4465};
constexpr std::array deviation_of_10 = {0.2470, 0.2435, 0.2616};

constexpr std::array<std::string_view, 100> classes_of_100 = {
    "apple",      "aquarium_fish", "baby",         "bear",       "beaver",      "bed",         "bee",
    "beetle",     "bicycle",       "bottle",       "bowl",       "boy",         "bridge",      "bus",
    "butterfly",  "camel",         "can",          "castle",     "caterpillar", "cattle",      "chair",
    "chimpanzee", "clock",         "cloud",        "cockroach",  "couch",       "crab",        "crocodile",
    "cup",        "dinosaur",      "dolphin",      "elephant",   "flatfish",    "forest",      "fox",
    "girl",       "hamster",       "house",        "kangaroo",   "keyboard",    "lamp",        "lawn_mower",
    "leopard",    "lion",          "lizard",       "lobster",    "man",         "maple_tree",  "motorcycle",
    "mountain",   "mouse",         "mushroom",     "oak_tree",   "orange",      "orchid",      "otter",
    "palm_tree",  "pear",          "pickup_truck", "pine_tree",  "plain",       "plate",       "poppy",
    "porcupine",  "possum",        "rabbit",       "raccoon",    "ray",         "road",        "rocket",
    "rose",       "sea",           "seal",         "shark",      "shrew",       "skunk",       "skyscraper",
    "snail",      "snake",         "spider",       "squirrel",   "streetcar",   "sunflower",   "sweet_pepper",
    "table",      "tank",          "telephone",    "television", "tiger",       "tractor",     "train",
    "trout",      "tulip",         "turtle",       "wardrobe",   "whale",       "willow_tree", "wolf",
    "woman",      "worm"};
constexpr std::array mean_of_100 = {0.5071, 0.4865, 0.4409};
constexpr std::array deviation_of_100 = {0.2673, 0.2564, 0.2762};

}  // namespace

constinit const DataReader cifar10_reader{
    .name = "cifar10",
    .sentence = "colour pictures of 32 x 32 in 10 classes, the binary version",
    .files = "data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version)",
    .load = load_cifar<layout_of_10>,
    .classes = classes_of_10,
    .shape = shape,
    .mean = mean_of_10,
    .deviation = deviation_of_10};

constinit const DataReader cifar100_reader{.name = "cifar100",
                                           .sentence = "the same in 100 classes",
                                           .files = "train.bin and test.bin (the binary version)",
                                           .load = load_cifar<layout_of_100>,
                                           .classes = classes_of_100,
                                           .shape = shape,
                                           .mean = mean_of_100,
                                           .deviation = deviation_of_100};

}  // namespace headstart::learn
