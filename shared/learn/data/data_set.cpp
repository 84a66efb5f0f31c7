#include "shared/learn/data/data_set.hpp"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <sstream>
#include <system_error>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/names.hpp"
#include "shared/learn/data/readers.hpp"

namespace headstart::learn {

namespace {

constexpr std::string_view fashion_mnist_folder = "/usr/share/datasets/fashion-mnist";

enum class Format { idx, cifar10, cifar100, images, tensors };

struct KnownSet {
  std::string name;
  Format format;
  std::vector<std::string> classes;  ///< By label; of images and tensors the files say it.
  std::vector<std::int64_t> shape;   ///< Of a sample; likewise.
  std::vector<double> mean;
  std::vector<double> deviation;
  std::string files;  ///< What its folder holds, for the message that asks for it.

  [[nodiscard]] std::int64_t num_classes() const { return std::ssize(classes); }
};

/// Without what surrounds them, by blanks.
std::vector<std::string> words_in(std::string_view text) {
  std::vector<std::string> words;
  std::istringstream in{std::string(text)};
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

constexpr std::string_view cifar100_classes =
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm";

const std::vector<KnownSet>& known_sets() {
  static const std::vector<KnownSet> sets = {
      {"fashion-mnist",
       Format::idx,
       {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"},
       {1, 28, 28},
       {0.2860},
       {0.3530},
       "train-images-idx3-ubyte and its three companions"},
      {"mnist",
       Format::idx,
       words_in("0 1 2 3 4 5 6 7 8 9"),
       {1, 28, 28},
       {0.1307},
       {0.3081},
       "train-images-idx3-ubyte and its three companions"},
      {"cifar10",
       Format::cifar10,
       words_in("airplane automobile bird cat deer dog frog horse ship truck"),
       {3, 32, 32},
       {0.4914, 0.4822, 0.4465},
       {0.2470, 0.2435, 0.2616},
       "data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version)"},
      {"cifar100",
       Format::cifar100,
       words_in(cifar100_classes),
       {3, 32, 32},
       {0.5071, 0.4865, 0.4409},
       {0.2673, 0.2564, 0.2762},
       "train.bin and test.bin (the binary version)"},
      {"images",
       Format::images,
       {},
       {},
       {0.485, 0.456, 0.406},
       {0.229, 0.224, 0.225},
       "train and test with class folders, or SUN397 and its lists"},
      {"tensors",
       Format::tensors,
       {},
       {},
       {},
       {},
       "train-images.npy, train-labels.npy, test-images.npy and test-labels.npy"},
  };
  return sets;
}

const KnownSet& known_set(const std::string& name) {
  std::vector<std::string> names;
  for (const KnownSet& set : known_sets()) {
    if (set.name == name) return set;
    names.push_back(set.name);
  }
  const std::string near = nearest(name, names);
  throw Error(Errc::usage,
              fmt::format("unknown data set '{}'{}; there are {}", name,
                          near.empty() ? "" : fmt::format("; did you mean '{}'?", near), fmt::join(names, ", ")));
}

std::filesystem::path folder_of(const DataSource& source, const KnownSet& set) {
  const bool is_default = source.path.empty();
  if (is_default && set.name != "fashion-mnist") {
    throw Error(Errc::usage, fmt::format("data set '{}' needs a path: the folder of {}", set.name, set.files));
  }
  const std::filesystem::path folder = is_default ? std::string(fashion_mnist_folder) : source.path;
  if (!is_folder(folder, Errc::data)) {
    throw Error(Errc::data, fmt::format("{}: no such folder; {}", folder.string(),
                                        is_default ? "install the Debian package dataset-fashion-mnist, or set the path"
                                                   : fmt::format("data set '{}' is read from the folder of {}",
                                                                 set.name, set.files)));
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
  if (!dataset.mean.empty()) {
    images.sub_(per_channel(dataset.mean, images.dim())).div_(per_channel(dataset.deviation, images.dim()));
  }
  return images;
}

Dataset load_images(const DataSource& source, const KnownSet& set, Split split) {
  if (source.channels != 1 && source.channels != 3) {
    throw Error(Errc::usage, fmt::format("data.channels {}: images have 1 or 3", source.channels));
  }
  const RawImages raw = read_images(source, split);
  Dataset dataset{set.name, raw.split.images, raw.split.labels, std::ssize(raw.classes),
                  set.mean, set.deviation,    raw.paths_digest, raw.classes};
  dataset.class_source = ClassSource::folders;
  if (source.channels == 1) {
    dataset.mean = {set.mean[1]};
    dataset.deviation = {set.deviation[1]};
  }
  return dataset;
}

}  // namespace

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
  std::vector<std::string_view> names;
  for (const KnownSet& set : known_sets()) names.push_back(set.name);
  fields.text(prefix + ".set", source.set, fmt::format("The data set: {}.", fmt::join(names, ", ")));
  fields.path(
      prefix + ".path", source.path,
      fmt::format("Folder of the data set's files; may be left empty for fashion-mnist ({}).", fashion_mnist_folder));
  fields.integer(prefix + ".side", source.side,
                 "Of the set images: the middle square of each image is resized to so many pixels a side.",
                 {.min = 1, .max = 1024});
  fields.integer(prefix + ".channels", source.channels, "Of the set images: 3 for colours, 1 for brightness.",
                 {.min = 1, .max = 3});
  fields.integer(prefix + ".list", source.list,
                 "Of the set images, SUN397: which of its partitions, Training_NN.txt and Testing_NN.txt.",
                 {.min = 1, .max = 99});
}

namespace {

Dataset read(const DataSource& source, const KnownSet& set, const std::filesystem::path& folder, Split split) {
  if (set.format == Format::tensors) return read_tensors(folder, split);
  if (set.format == Format::images) return load_images(source, set, split);
  RawSplit raw;
  switch (set.format) {
    case Format::cifar10:
      raw = read_cifar(folder, split, CifarKind::cifar10);
      break;
    case Format::cifar100:
      raw = read_cifar(folder, split, CifarKind::cifar100);
      break;
    default:
      raw = read_idx(folder, split, set.num_classes());
  }
  Dataset dataset{set.name, raw.images, raw.labels, set.num_classes(), set.mean, set.deviation};
  dataset.classes = set.classes;
  return dataset;
}

}  // namespace

Dataset load_dataset(const DataSource& source, Split split) {
  const KnownSet& set = known_set(source.set);
  const std::filesystem::path folder = folder_of(source, set);
  Dataset dataset = read(source, set, folder, split);
  if (const auto violation = shape_violation(dataset.task().shape)) {
    throw Error(Errc::data, fmt::format("data set {} in {}: {}", set.name, folder.string(), *violation));
  }
  return dataset;
}

std::optional<Dataset> known_dataset(const DataSource& source) {
  const KnownSet& set = known_set(source.set);
  if (set.classes.empty()) return std::nullopt;
  std::vector<std::int64_t> sizes = set.shape;
  sizes.insert(sizes.begin(), 0);
  Dataset dataset{
      set.name,     torch::empty(sizes, at::kByte), torch::empty({0}, at::kLong), set.num_classes(), set.mean,
      set.deviation};
  dataset.classes = set.classes;
  return dataset;
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
