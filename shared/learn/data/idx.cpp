#include <array>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/readers.hpp"

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

}  // namespace

RawSplit read_idx(const std::filesystem::path& folder, Split split, std::int64_t num_classes) {
  const std::string stem = split == Split::train ? "train" : "t10k";
  const std::filesystem::path images_file = idx_file(folder, stem + "-images-idx3-ubyte");
  const std::filesystem::path labels_file = idx_file(folder, stem + "-labels-idx1-ubyte");
  const RawSplit raw{read_idx_bytes(images_file, 3).unsqueeze(1), read_idx_bytes(labels_file, 1).to(at::kLong)};
  require_same_length(raw, images_file.string(), labels_file.string());
  constexpr std::int64_t labels_offset = 8;
  require_labels_within(raw.labels, num_classes, [&](std::int64_t i) {
    return fmt::format("{}, offset {}", labels_file.string(), labels_offset + i);
  });
  return raw;
}

}  // namespace headstart::learn
