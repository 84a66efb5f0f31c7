#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/readers.hpp"

namespace headstart::learn {

namespace {

constexpr std::int64_t image_bytes = 3 * 32 * 32;

/// A record is its label bytes, the wanted one last, and the image.
struct Layout {
  std::int64_t num_label_bytes;
  std::int64_t num_classes;
  std::string archive_folder;  ///< Where the published archive unpacks to.
  std::vector<std::string> train_files;
  std::string test_file;
};

Layout layout_of(CifarKind kind) {
  if (kind == CifarKind::cifar100) return {2, 100, "cifar-100-binary", {"train.bin"}, "test.bin"};
  return {1,
          10,
          "cifar-10-batches-bin",
          {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
          "test_batch.bin"};
}

RawSplit read_records(const std::filesystem::path& file, const Layout& layout) {
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
  require_labels_within(raw.labels, layout.num_classes, [&](std::int64_t i) {
    return fmt::format("{}, offset {}", file.string(), i * record_bytes + label_column);
  });
  return raw;
}

}  // namespace

RawSplit read_cifar(const std::filesystem::path& folder, Split split, CifarKind kind) {
  const Layout layout = layout_of(kind);
  const std::filesystem::path unpacked = folder / layout.archive_folder;
  const std::filesystem::path& home = is_folder(unpacked, Errc::data) ? unpacked : folder;
  const std::vector<std::string> names =
      split == Split::train ? layout.train_files : std::vector<std::string>{layout.test_file};
  std::vector<Tensor> images;
  std::vector<Tensor> labels;
  for (const std::string& name : names) {
    RawSplit part = read_records(home / name, layout);
    images.push_back(std::move(part.images));
    labels.push_back(std::move(part.labels));
  }
  return {torch::cat(images), torch::cat(labels)};
}

}  // namespace headstart::learn
