#include "shared/learn/data/data_set.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/names.hpp"
#include "shared/learn/data/reader.hpp"
#include "shared/learn/data/reading.hpp"

namespace headstart::learn {

namespace {

const DataReader& reader_named(const std::string& name) {
  for (const DataReader* reader : data_readers()) {
    if (reader->name == name) return *reader;
  }
  const std::vector<std::string> names = data_set_words();
  const std::string near = nearest(name, names);
  throw Error(Errc::usage,
              fmt::format("unknown data set '{}'{}; there are {}", name,
                          near.empty() ? "" : fmt::format("; did you mean '{}'?", near), fmt::join(names, ", ")));
}

std::filesystem::path folder_of(const DataSource& source, const DataReader& reader) {
  const bool is_default = source.path.empty();
  if (is_default && reader.default_folder.empty()) {
    throw Error(Errc::usage, fmt::format("data set '{}' needs a path: the folder of {}", reader.name, reader.files));
  }
  const std::filesystem::path folder = is_default ? std::string(reader.default_folder) : source.path;
  if (!is_folder(folder, Errc::data)) {
    throw Error(Errc::data,
                fmt::format("{}: no such folder; {}", folder.string(),
                            is_default ? fmt::format("install the Debian package {}, or set the path", reader.package)
                                       : fmt::format("data set '{}' is read from the folder of {}", reader.name,
                                                     reader.files)));
  }
  return folder;
}

/// [1, channels, 1, ...], to act on a batch of `rank` dimensions.
Tensor per_channel(const std::vector<double>& values, std::int64_t rank) {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(rank), 1);
  sizes[1] = -1;
  return torch::tensor(values, at::kFloat).view(sizes);
}

/// images: float32, changed in place.
Tensor normalise(Tensor images, const Dataset& dataset) {
  if (dataset.images.scalar_type() == at::kByte) images.div_(255);
  normalise(images, dataset.mean, dataset.deviation, dataset.columns.missing);
  return images;
}

}  // namespace

void normalise(Tensor& values, const std::vector<double>& mean, const std::vector<double>& deviation,
               MissingValues missing) {
  if (missing == MissingValues::zero) values.nan_to_num_(0.0);
  if (!mean.empty()) values.sub_(per_channel(mean, values.dim())).div_(per_channel(deviation, values.dim()));
  if (missing == MissingValues::mean || missing == MissingValues::indicator) values.nan_to_num_(0.0);
}

std::span<const DataReader* const> data_readers() {
  static constexpr std::array readers = {&fashion_mnist_reader, &mnist_reader,   &cifar10_reader, &cifar100_reader,
                                         &images_reader,        &tensors_reader, &csv_reader};
  return readers;
}

std::vector<std::string> data_set_words() {
  std::vector<std::string> words;
  for (const DataReader* reader : data_readers()) words.emplace_back(reader->name);
  return words;
}

Dataset DataReader::dataset(Tensor samples, Tensor labels) const {
  Dataset dataset{std::string(name),   std::move(samples),         std::move(labels),
                  std::ssize(classes), {mean.begin(), mean.end()}, {deviation.begin(), deviation.end()}};
  dataset.classes.assign(classes.begin(), classes.end());
  return dataset;
}

Samples Samples::select(const Tensor& indices) const {
  const Tensor rows = indices.to(x.device());
  return {x.index_select(0, rows), y.defined() ? y.index_select(0, rows) : Tensor{}};
}

Task Dataset::task() const { return {images.sizes().slice(1).vec(), num_classes}; }

Tensor Dataset::rows(const std::vector<std::int64_t>& indices) const {
  for (std::size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] < 0 || indices[i] >= size()) {
      throw Error(Errc::data,
                  fmt::format("data set {}: there is no sample {} (position {} of the selection); it has {}", name,
                              indices[i], i, size()));
    }
  }
  return torch::tensor(indices, at::kLong);
}

Samples Dataset::select(const std::vector<std::int64_t>& indices) const {
  const Tensor rows = this->rows(indices);
  return {normalise(images.index_select(0, rows).to(at::kFloat), *this), labels.index_select(0, rows)};
}

Samples Dataset::all() const {
  return {normalise(images.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true), *this), labels.clone()};
}

Dataset Dataset::part(const std::vector<std::int64_t>& indices) const {
  const Tensor rows = this->rows(indices);
  Dataset part = *this;
  part.images = images.index_select(0, rows);
  part.labels = labels.index_select(0, rows);
  part.places = places.defined() ? places.index_select(0, rows) : rows;
  return part;
}

std::string Dataset::digest() const {
  const Tensor held = labels.contiguous();
  const std::span<const std::int64_t> values(held.data_ptr<std::int64_t>(), static_cast<std::size_t>(size()));
  Sha256 sha;
  sha.update(fmt::format("{} labels\n", size())).update(std::as_bytes(values)).update(paths_digest);
  return hex(sha.finish());
}

void declare_fields(Fields& fields, const std::string& prefix, DataSource& source) {
  fields.group(prefix, "The data set, and where its files are");
  std::string sets = "The data set.";
  std::string found;
  for (const DataReader* reader : data_readers()) {
    sets += fmt::format(" {}: {}.", reader->name, reader->sentence);
    if (!reader->default_folder.empty()) {
      found += fmt::format("{}{} ({})", found.empty() ? "" : ", ", reader->name, reader->default_folder);
    }
  }
  fields.text(prefix + ".set", source.set, std::move(sets));
  fields.path(prefix + ".path", source.path,
              fmt::format("Folder of the data set's files; may be left empty for {}.", found));
  fields.integer(prefix + ".side", source.side,
                 "Of the set images: the middle square of each image is resized to so many pixels a side.",
                 {.min = 1, .max = 1024});
  fields.integer(prefix + ".channels", source.channels, "Of the set images: 3 for colours, 1 for brightness.",
                 {.min = 1, .max = 3});
  fields.integer(prefix + ".list", source.list,
                 "Of the set images, SUN397: which of its partitions, Training_NN.txt and Testing_NN.txt.",
                 {.min = 1, .max = 99});
  fields.path(prefix + ".schema", source.schema,
              "Of the set csv: JSON file with label, classes and columns, in place of what the files show.");
  fields.text(
      prefix + ".label", source.columns.label,
      "Of the set csv: name of the column with the classes. A silo that sets neither this nor data.schema reads "
      "its columns as the run's terms say.");
  fields.names(prefix + ".columns", source.columns.columns,
               "Of the set csv: names of the columns that are features; empty: all but the label.");
  fields.names(prefix + ".drop", source.columns.drop, "Of the set csv: names of columns that are no features.");
  fields.names(prefix + ".categorical", source.columns.categorical,
               "Of the set csv: names of the columns that hold categories; the others hold numbers.");
  fields.choice(
      prefix + ".missing", source.missing,
      "Of the set csv, at the server: what becomes of cells that are empty, NA, NaN or ?. refuse: the file is "
      "refused. mean: the run's mean. zero: 0. indicator: mean, and a feature more for each column.",
      Choices<MissingValues>(missing_words));
}

Dataset load_dataset(const DataSource& source, Split split) {
  return load_dataset(source, split, reader_named(source.set));
}

Dataset load_dataset(const DataSource& source, Split split, const DataReader& reader) {
  const std::filesystem::path folder = folder_of(source, reader);
  Dataset dataset = reader.load(reader, folder, source, split);
  if (const auto violation = shape_violation(dataset.task().shape)) {
    throw Error(Errc::data, fmt::format("data set {} in {}: {}", reader.name, folder.string(), *violation));
  }
  return dataset;
}

std::optional<Dataset> known_dataset(const DataSource& source) {
  const DataReader& reader = reader_named(source.set);
  if (reader.told != nullptr) return reader.told(reader, source);
  if (reader.classes.empty() || reader.shape.empty()) return std::nullopt;
  std::vector<std::int64_t> sizes(reader.shape.begin(), reader.shape.end());
  sizes.insert(sizes.begin(), 0);
  return reader.dataset(torch::empty(sizes, at::kByte), torch::empty({0}, at::kLong));
}

struct InputFile::Handle {
  gzFile file = nullptr;
};

InputFile::InputFile(std::filesystem::path file) : file_(std::move(file)), handle_(std::make_unique<Handle>()) {
  stored_bytes_ = size_of_file(file_, Errc::data);
  errno = 0;
  handle_->file = gzopen(file_.c_str(), "rb");
  if (handle_->file == nullptr) {
    throw Error(Errc::data, fmt::format("{}: cannot be read ({})", file_.string(),
                                        errno != 0 ? std::generic_category().message(errno) : "out of memory"));
  }
  gzbuffer(handle_->file, 256 * 1024);
}

InputFile::~InputFile() {
  if (handle_->file != nullptr) gzclose_r(handle_->file);
}

void InputFile::read(void* target, std::uint64_t num_bytes) {
  // gzread counts in int.
  constexpr std::uint64_t most_at_once = 1 << 30;
  const std::uint64_t end = offset_ + num_bytes;
  auto* next = static_cast<char*>(target);
  while (offset_ < end) {
    const int got = gzread(handle_->file, next, static_cast<unsigned>(std::min(end - offset_, most_at_once)));
    if (got < 0) fail_damaged();
    if (got == 0) fail(offset_, fmt::format("truncated: the file ends here, {} bytes early", end - offset_));
    next += got;
    offset_ += static_cast<std::uint64_t>(got);
  }
}

void InputFile::require_room(std::uint64_t num_bytes) {
  // Deflate cannot shrink more than 1032 to 1.
  const std::uint64_t most_bytes = gzdirect(handle_->file) != 0 ? stored_bytes_ : stored_bytes_ * 1032;
  if (most_bytes < offset_ || num_bytes > most_bytes - offset_) {
    fail(std::min(offset_, most_bytes),
         fmt::format("truncated: {} more bytes are promised, and the file of {} bytes cannot hold them", num_bytes,
                     stored_bytes_));
  }
}

void InputFile::require_end() {
  char extra = 0;
  const int got = gzread(handle_->file, &extra, 1);
  if (got > 0) fail(offset_, "the data should end here, but the file goes on");
  if (got < 0) fail_damaged();
  // A gzip file that lacks only its checksum reads as if it were whole.
  int number = 0;
  gzerror(handle_->file, &number);
  if (number == Z_BUF_ERROR) fail(offset_, "truncated: the end of the compressed file is missing");
}

void InputFile::fail_damaged() const {
  int number = 0;
  const std::string what = gzerror(handle_->file, &number);
  fail(offset_, fmt::format("damaged ({})", what));
}

void InputFile::fail(std::uint64_t offset, const std::string& what) const {
  throw Error(Errc::data, fmt::format("{}, offset {}: {}", file_.string(), offset, what));
}

void require_same_length(const RawSplit& split, const std::string& images_file, const std::string& labels_file) {
  if (split.images.size(0) == split.labels.size(0)) return;
  throw Error(Errc::data, fmt::format("{}: {} images, but {} has {} labels", images_file, split.images.size(0),
                                      labels_file, split.labels.size(0)));
}

void require_labels_within(const Tensor& labels, std::int64_t num_classes,
                           const std::function<std::string(std::int64_t index)>& place) {
  const auto label = labels.accessor<std::int64_t, 1>();
  for (std::int64_t i = 0; i < labels.size(0); ++i) {
    if (label[i] < 0 || label[i] >= num_classes) {
      throw Error(Errc::data, fmt::format("{}: label {}, expected 0 to {}", place(i), label[i], num_classes - 1));
    }
  }
}

std::optional<std::uint64_t> product(std::span<const std::uint64_t> factors) {
  std::uint64_t result = 1;
  for (const std::uint64_t factor : factors) {
    if (__builtin_mul_overflow(result, factor, &result)) return std::nullopt;
  }
  // Tensors count in int64.
  return result <= static_cast<std::uint64_t>(INT64_MAX) ? std::optional(result) : std::nullopt;
}

}  // namespace headstart::learn
