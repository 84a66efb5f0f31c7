#include <array>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/reader.hpp"
#include "shared/learn/data/reading.hpp"

namespace headstart::learn {

namespace {

/// The plain file, or else its .gz.
std::filesystem::path idx_file(const std::filesystem::path& folder, const std::string& name) {
  for (const std::filesystem::path& file : {folder / name, folder / (name + ".gz")}) {
    if (is_there(file, Errc::data)) return file;
  }
  throw Error(Errc::data, fmt::format("{}: no such file, neither plain nor .gz", (folder / name).string()));
}

std::uint64_t read_big_endian(InputFile& in) {
  std::array<unsigned char, 4> bytes{};
  in.read(bytes.data(), bytes.size());
  std::uint64_t value = 0;
  for (const unsigned char byte : bytes) value = value << 8 | byte;
  return value;
}

/// An IDX file of unsigned bytes with `rank` dimensions: uint8 of that shape.
Tensor read_idx_bytes(const std::filesystem::path& file, std::size_t rank) {
  InputFile in(file);
  // 0x08 is IDX for unsigned byte; the last byte is the rank.
  const std::uint64_t expected_magic = 0x0800 + rank;
  const std::uint64_t magic = read_big_endian(in);
  if (magic != expected_magic) {
    in.fail(0, fmt::format("not IDX {}: expected magic number 0x{:08x}, got 0x{:08x}", rank == 1 ? "labels" : "images",
                           expected_magic, magic));
  }
  std::vector<std::uint64_t> sizes(rank);
  for (std::uint64_t& size : sizes) {
    const std::uint64_t place = in.offset();
    size = read_big_endian(in);
    if (size == 0) in.fail(place, "a size of 0");
  }
  const auto num_bytes = product(sizes);
  if (!num_bytes) in.fail(4, "sizes too large");
  in.require_room(*num_bytes);
  Tensor bytes = torch::empty(std::vector<std::int64_t>(sizes.begin(), sizes.end()), at::kByte);
  in.read(bytes.data_ptr(), *num_bytes);
  in.require_end();
  return bytes;
}

Dataset load_idx(const DataReader& reader, const std::filesystem::path& folder, const DataSource&, Split split) {
  const std::string stem = split == Split::train ? "train" : "t10k";
  const std::filesystem::path images_file = idx_file(folder, stem + "-images-idx3-ubyte");
  const std::filesystem::path labels_file = idx_file(folder, stem + "-labels-idx1-ubyte");
  const RawSplit raw{read_idx_bytes(images_file, 3).unsqueeze(1), read_idx_bytes(labels_file, 1).to(at::kLong)};
  require_same_length(raw, images_file.string(), labels_file.string());
  constexpr std::int64_t labels_offset = 8;
  require_labels_within(raw.labels, std::ssize(reader.classes), [&](std::int64_t i) {
    return fmt::format("{}, offset {}", labels_file.string(), labels_offset + i);
  });
  return reader.dataset(raw.images, raw.labels);
}

constexpr std::string_view files = "train-images-idx3-ubyte and its three companions";
constexpr std::array<std::int64_t, 3> shape = {1, 28, 28};

constexpr std::array<std::string_view, 10> clothes = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                                      "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
constexpr std::array clothes_mean = {0.2860};
constexpr std::array clothes_deviation = {0.3530};

constexpr std::array<std::string_view, 10> digits = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
constexpr std::array digits_mean = {0.1307};
constexpr std::array digits_deviation = {0.3081};

}  // namespace

constinit const DataReader fashion_mnist_reader{
    .name = "fashion-mnist",
    .sentence = "gray pictures of clothes, as published (IDX, plain or .gz)",
    .files = files,
    .load = load_idx,
    .classes = clothes,
    .shape = shape,
    .mean = clothes_mean,
    .deviation = clothes_deviation,
    .default_folder = "/usr/share/datasets/fashion-mnist",
    .package = "dataset-fashion-mnist"};

constinit const DataReader mnist_reader{.name = "mnist",
                                        .sentence = "handwritten digits, as published (IDX, plain or .gz)",
                                        .files = files,
                                        .load = load_idx,
                                        .classes = digits,
                                        .shape = shape,
                                        .mean = digits_mean,
                                        .deviation = digits_deviation};

}  // namespace headstart::learn
