#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/reader.hpp"
#include "shared/learn/data/reading.hpp"

namespace headstart::learn {

namespace {

constexpr std::int64_t most_classes = 1'000'000;

struct NpyHeader {
  std::string type;  ///< NumPy's word: "|u1", "<f4", ...
  std::vector<std::uint64_t> shape;
};

constexpr std::string_view blanks = " \t\n\r\f\v";

std::string_view without_leading_blanks(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
  return text;
}

/// What stands behind `key` (in its quotation marks) and a colon; empty where there is no such key.
std::string_view value_of(std::string_view dictionary, std::string_view key) {
  for (std::size_t at = dictionary.find(key); at != std::string_view::npos; at = dictionary.find(key, at + 1)) {
    const std::string_view rest = without_leading_blanks(dictionary.substr(at + key.size()));
    if (rest.starts_with(':')) return without_leading_blanks(rest.substr(1));
  }
  return {};
}

/// The content of a value in `open` and `close`; nothing where it has none.
std::optional<std::string_view> content_of(std::string_view value, char open, char close) {
  const std::size_t end = value.find(close, 1);
  if (!value.starts_with(open) || end == std::string_view::npos) return std::nullopt;
  return value.substr(1, end - 1);
}

/// The Python dictionary that a .npy header is. `fail` throws. Read by hand: std::regex calls itself for every
/// character and so runs out of stack on a long header.
NpyHeader parse_dictionary(const std::string& text, const std::function<void(const std::string&)>& fail) {
  constexpr std::string_view digits = "0123456789";
  const auto type = content_of(value_of(text, "'descr'"), '\'', '\'');
  if (!type) fail("the header names no plain element type ('descr')");
  const std::string_view order = value_of(text, "'fortran_order'");
  if (!order.starts_with("True") && !order.starts_with("False")) fail("the header has no 'fortran_order'");
  const auto shape = content_of(value_of(text, "'shape'"), '(', ')');
  const bool has_shape =
      shape && std::ranges::all_of(*shape, [&](char c) {
        return c == ',' || digits.find(c) != std::string_view::npos || blanks.find(c) != std::string_view::npos;
      });
  if (!has_shape) fail("the header has no 'shape' of whole numbers");
  if (order.starts_with("True")) fail("stored in Fortran order; save it with numpy.ascontiguousarray");
  if (type->starts_with('>')) fail(fmt::format("type {} is big-endian; save it little-endian", *type));
  NpyHeader header{std::string(*type), {}};
  std::string_view sizes = *shape;
  while (true) {
    sizes.remove_prefix(std::min(sizes.find_first_of(digits), sizes.size()));
    if (sizes.empty()) return header;
    const std::string_view size = sizes.substr(0, sizes.find_first_not_of(digits));
    // More than 18 digits need not fit 64 bits.
    if (size.size() > 18) fail("a size in 'shape' is too large");
    header.shape.push_back(std::stoull(std::string(size)));
    if (header.shape.back() == 0) fail("a size of 0 in 'shape'");
    sizes.remove_prefix(size.size());
  }
}

/// Leaves `in` at the first element.
NpyHeader read_header(InputFile& in) {
  constexpr std::string_view magic = "\x93NUMPY";
  constexpr std::uint64_t most_header_bytes = 65536;
  std::array<char, 8> opening{};
  in.read(opening.data(), opening.size());
  if (std::string_view(opening.data(), magic.size()) != magic) in.fail(0, "not a .npy file (no NUMPY at its start)");
  const int version = static_cast<unsigned char>(opening[6]);
  if (version < 1 || version > 3) in.fail(6, fmt::format(".npy version {}, expected 1 to 3", version));
  std::array<unsigned char, 4> length{};
  in.read(length.data(), version == 1 ? 2 : 4);
  const std::uint64_t num_bytes = length[0] | length[1] << 8 | length[2] << 16 | std::uint64_t{length[3]} << 24;
  if (num_bytes > most_header_bytes) in.fail(8, fmt::format("a header of {} bytes", num_bytes));
  in.require_room(num_bytes);
  const std::uint64_t start = in.offset();
  std::string text(num_bytes, '\0');
  in.read(text.data(), num_bytes);
  return parse_dictionary(text, [&](const std::string& what) { in.fail(start, what); });
}

/// Bytes of the elements to come; refuses what the file cannot hold.
std::uint64_t data_bytes(InputFile& in, const NpyHeader& header, std::uint64_t element_bytes) {
  std::vector<std::uint64_t> factors = header.shape;
  factors.push_back(element_bytes);
  const auto num_bytes = product(factors);
  if (!num_bytes) in.fail(0, "sizes in 'shape' too large");
  in.require_room(*num_bytes);
  return *num_bytes;
}

/// uint8 or float32 [n, ...]; [n, height, width] are images of one channel.
Tensor read_images(const std::filesystem::path& file) {
  InputFile in(file);
  const NpyHeader header = read_header(in);
  if (header.type != "|u1" && header.type != "<f4") {
    in.fail(0, fmt::format("samples of type {}, expected uint8 (|u1) or float32 (<f4)", header.type));
  }
  if (header.shape.size() < 2 || header.shape.size() > max_rank + 1) {
    in.fail(0, fmt::format("an array of {} dimensions, expected 2 to {}: [n, features], [n, height, width], "
                           "[n, channels, height, width], ...",
                           header.shape.size(), max_rank + 1));
  }
  const bool is_float = header.type == "<f4";
  const std::uint64_t num_bytes = data_bytes(in, header, is_float ? 4 : 1);
  const std::uint64_t start = in.offset();
  Tensor images = torch::empty(std::vector<std::int64_t>(header.shape.begin(), header.shape.end()),
                               is_float ? at::kFloat : at::kByte);
  in.read(images.data_ptr(), num_bytes);
  in.require_end();
  if (is_float) {
    const std::span<const float> values(images.data_ptr<float>(), static_cast<std::size_t>(images.numel()));
    const auto bad = std::ranges::find_if_not(values, [](float value) { return std::isfinite(value); });
    if (bad != values.end()) {
      const auto index = static_cast<std::uint64_t>(bad - values.begin());
      in.fail(start + 4 * index, fmt::format("value {} is {}, expected finite numbers", index, *bad));
    }
  }
  return header.shape.size() == 3 ? images.unsqueeze(1) : images;
}

template <class Element>
Tensor read_integers(InputFile& in, const NpyHeader& header) {
  const std::uint64_t num_bytes = data_bytes(in, header, sizeof(Element));
  std::vector<Element> elements(header.shape[0]);
  in.read(elements.data(), num_bytes);
  in.require_end();
  Tensor labels = torch::empty({static_cast<std::int64_t>(elements.size())}, at::kLong);
  std::ranges::transform(elements, labels.data_ptr<std::int64_t>(),
                         [](Element element) { return static_cast<std::int64_t>(element); });
  return labels;
}

/// int64 [n].
Tensor read_labels(const std::filesystem::path& file) {
  InputFile in(file);
  const NpyHeader header = read_header(in);
  if (header.shape.size() != 1) {
    in.fail(0, fmt::format("labels of {} dimensions, expected [n]", header.shape.size()));
  }
  static const std::pair<std::string_view, Tensor (*)(InputFile&, const NpyHeader&)> readers[] = {
      {"|u1", read_integers<std::uint8_t>},  {"<u2", read_integers<std::uint16_t>},
      {"<u4", read_integers<std::uint32_t>}, {"<u8", read_integers<std::uint64_t>},
      {"|i1", read_integers<std::int8_t>},   {"<i2", read_integers<std::int16_t>},
      {"<i4", read_integers<std::int32_t>},  {"<i8", read_integers<std::int64_t>}};
  for (const auto& [type, read] : readers) {
    if (type == header.type) return read(in, header);
  }
  in.fail(0, fmt::format("labels of type {}, expected integers", header.type));
}

[[noreturn]] void fail_meta(const std::filesystem::path& file, std::string_view key, std::string_view what) {
  throw Error(Errc::data, fmt::format("{}, key '{}': {}", file.string(), key, what));
}

std::vector<double> channel_constants(const nlohmann::json& value, const std::filesystem::path& file,
                                      const std::string& key, std::int64_t channels) {
  const bool is_list = value.is_array() && static_cast<std::int64_t>(value.size()) == channels;
  if (!is_list || !std::ranges::all_of(value, [](const auto& element) { return element.is_number(); })) {
    fail_meta(file, key, fmt::format("expected a list of {} numbers, one a channel, got {}", channels, value.dump()));
  }
  return value.get<std::vector<double>>();
}

/// The shape that the samples have, whatever the array's is: [n, channels, length] would be read as images.
void use_shape(const nlohmann::json& value, const std::filesystem::path& file, Dataset& dataset) {
  const auto is_extent = [](const auto& element) { return element.is_number_integer() && element >= 1; };
  const bool is_list = value.is_array() && value.size() <= max_rank && std::ranges::all_of(value, is_extent);
  const std::vector<std::int64_t> stored = dataset.task().shape;
  if (is_list) {
    const std::vector<std::int64_t> shape = value.get<std::vector<std::int64_t>>();
    if (!shape_violation(shape) && num_values(shape) == num_values(stored)) {
      std::vector<std::int64_t> sizes = shape;
      sizes.insert(sizes.begin(), dataset.images.size(0));
      dataset.images = dataset.images.view(sizes);
      return;
    }
  }
  fail_meta(file, "shape",
            fmt::format("expected the shape of a sample, of as many values as the {} that are stored, got {}",
                        shape_text(stored), value.dump()));
}

void read_meta(const std::filesystem::path& file, Dataset& dataset) {
  const nlohmann::json meta = read_json(file);
  if (!meta.is_object()) throw Error(Errc::data, file.string() + ": expected a JSON object");
  // First, as there is a constant for each channel.
  if (const auto shape = meta.find("shape"); shape != meta.end()) use_shape(*shape, file, dataset);
  for (const auto& [key, value] : meta.items()) {
    if (key == "num_classes") {
      if (!value.is_number_integer() || value < 2 || value > most_classes) {
        fail_meta(file, key, fmt::format("expected a whole number from 2 to {}, got {}", most_classes, value.dump()));
      }
      dataset.num_classes = value.get<std::int64_t>();
    } else if (key == "classes") {
      const bool is_list = value.is_array() && value.size() >= 2 && value.size() <= most_classes;
      if (!is_list || !std::ranges::all_of(value, [](const auto& element) { return element.is_string(); })) {
        fail_meta(file, key, "expected a list of 2 names or more, by label");
      }
      dataset.classes = value.get<std::vector<std::string>>();
    } else if (key == "mean") {
      dataset.mean = channel_constants(value, file, key, dataset.images.size(1));
    } else if (key == "deviation") {
      dataset.deviation = channel_constants(value, file, key, dataset.images.size(1));
    } else if (key != "shape") {
      fail_meta(file, key, "unknown; there are classes, num_classes, mean, deviation, shape");
    }
  }
  if (!dataset.classes.empty()) {
    if (dataset.num_classes != 0 && dataset.num_classes != std::ssize(dataset.classes)) {
      fail_meta(file, "classes",
                fmt::format("{} names, and num_classes is {}", dataset.classes.size(), dataset.num_classes));
    }
    dataset.num_classes = std::ssize(dataset.classes);
  }
  if (dataset.mean.empty() != dataset.deviation.empty()) {
    fail_meta(file, dataset.mean.empty() ? "mean" : "deviation", "missing; mean and deviation go together");
  }
  if (!std::ranges::all_of(dataset.deviation, [](double value) { return value > 0; })) {
    fail_meta(file, "deviation", "expected numbers above 0");
  }
  if (!dataset.mean.empty() && dataset.images.scalar_type() != at::kByte) {
    fail_meta(file, "mean", "is for uint8 samples; float32 samples are used as they are");
  }
}

std::filesystem::path images_file_of(const std::filesystem::path& folder, Split split) {
  return folder / (split == Split::train ? "train-images.npy" : "test-images.npy");
}

std::filesystem::path labels_file_of(const std::filesystem::path& folder, Split split) {
  return folder / (split == Split::train ? "train-labels.npy" : "test-labels.npy");
}

/// The labels of both splits count, lest a split without the last class make another task of it.
std::int64_t num_classes_in(const std::filesystem::path& folder, const Tensor& labels, Split split) {
  std::int64_t greatest = labels.max().item<std::int64_t>();
  const std::filesystem::path other = labels_file_of(folder, split == Split::train ? Split::test : Split::train);
  if (is_there(other, Errc::data)) greatest = std::max(greatest, read_labels(other).max().item<std::int64_t>());
  return std::clamp<std::int64_t>(greatest, 1, most_classes - 1) + 1;
}

/// `type`: NumPy's word for the elements. `rows` is contiguous.
void write_npy(const std::filesystem::path& file, std::string_view type, const Tensor& rows) {
  std::string shape;
  for (const std::int64_t size : rows.sizes()) shape += fmt::format("{},", size);
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type, shape);
  // NumPy has the elements begin at a multiple of 64, to be mapped into memory.
  constexpr std::size_t opening = 10;
  header.append(63 - (opening + header.size()) % 64, ' ').push_back('\n');
  const std::array<char, 4> version_and_length = {1, 0, static_cast<char>(header.size() & 0xff),
                                                  static_cast<char>(header.size() >> 8)};
  AtomicFile out(file);
  out.write("\x93NUMPY");
  out.write(std::string_view(version_and_length.data(), version_and_length.size()));
  out.write(header);
  out.write({static_cast<const std::byte*>(rows.data_ptr()), static_cast<std::size_t>(rows.nbytes())});
  out.commit();
}

}  // namespace

void save_tensors(const Dataset& dataset, const std::vector<std::int64_t>& indices, Split split,
                  const std::filesystem::path& folder) {
  const Tensor rows = dataset.rows(indices);
  const std::filesystem::path labels_file = labels_file_of(folder, split);
  if (is_there(labels_file, Errc::storage)) {
    throw Error(Errc::storage, labels_file.string() + ": exists already and is never overwritten");
  }
  if (dataset.table && dataset.images.isnan().any().item<bool>()) {
    throw Error(Errc::data, dataset.table->file + ": has missing values, which NumPy arrays of samples cannot hold");
  }
  make_folders(folder);
  nlohmann::json meta = {{"num_classes", dataset.num_classes}};
  if (!dataset.classes.empty()) meta["classes"] = dataset.classes;
  if (!dataset.mean.empty()) {
    meta["mean"] = dataset.mean;
    meta["deviation"] = dataset.deviation;
  }
  if (dataset.images.dim() == 3) meta["shape"] = dataset.task().shape;
  write_text_atomically(folder / "meta.json", to_line(meta) + "\n");
  const Tensor images = dataset.images.index_select(0, rows);
  write_npy(images_file_of(folder, split), images.scalar_type() == at::kByte ? "|u1" : "<f4", images);
  write_npy(labels_file, "<i8", dataset.labels.index_select(0, rows));
}

namespace {

Dataset load_tensors(const DataReader& reader, const std::filesystem::path& folder, const DataSource&, Split split) {
  const std::filesystem::path images_file = images_file_of(folder, split);
  const std::filesystem::path labels_file = labels_file_of(folder, split);
  const RawSplit raw{read_images(images_file), read_labels(labels_file)};
  require_same_length(raw, images_file.string(), labels_file.string());
  Dataset dataset = reader.dataset(raw.images, raw.labels);
  const std::filesystem::path meta_file = folder / "meta.json";
  if (is_there(meta_file, Errc::data)) read_meta(meta_file, dataset);
  dataset.labels_file = labels_file.string();
  if (dataset.num_classes == 0) {
    dataset.num_classes = num_classes_in(folder, raw.labels, split);
    dataset.class_source = ClassSource::labels;
  }
  require_labels_within(raw.labels, dataset.num_classes,
                        [&](std::int64_t i) { return fmt::format("{}, index {}", labels_file.string(), i); });
  return dataset;
}

}  // namespace

constinit const DataReader tensors_reader{
    .name = "tensors",
    .sentence = "NumPy arrays: samples of any shape, and their labels",
    .files = "train-images.npy, train-labels.npy, test-images.npy and test-labels.npy",
    .load = load_tensors};

}  // namespace headstart::learn
