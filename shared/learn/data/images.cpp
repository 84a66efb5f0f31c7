#include <csetjmp>
#include <cstdio>

// jpeglib.h takes FILE and size_t for declared.
#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/data/reader.hpp"
#include "shared/learn/data/reading.hpp"

namespace headstart::learn {

namespace {

// With these bounds one image costs at most 300 MB while it is read.
constexpr std::uintmax_t most_file_bytes = 100'000'000;
constexpr std::uint64_t most_pixels = 50'000'000;

/// What is wrong with one image, without its file.
struct BadImage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void require_size(std::uint64_t width, std::uint64_t height) {
  if (width != 0 && height != 0 && height <= most_pixels && width <= most_pixels / height) return;
  throw BadImage(fmt::format("{} x {} pixels, expected 1 to {} in all", width, height, most_pixels));
}

// ------------------------------------------------------------------------------------------------------------ PNG

/// The file without what it says of gamma and colour space, by which libpng would change the values and PIL does not.
std::string without_colour_space(std::string_view bytes) {
  constexpr std::array<std::string_view, 4> left_out = {"gAMA", "cHRM", "sRGB", "iCCP"};
  constexpr std::size_t signature_bytes = 8;
  constexpr std::size_t frame_bytes = 12;  // of a chunk: length, type, checksum
  std::string kept(bytes.substr(0, signature_bytes));
  std::size_t at = std::min(signature_bytes, bytes.size());
  while (bytes.size() - at >= frame_bytes) {
    std::size_t length = 0;
    for (std::size_t i = 0; i < 4; ++i) length = length << 8 | static_cast<unsigned char>(bytes[at + i]);
    if (length > bytes.size() - at - frame_bytes) break;  // damaged: libpng finds its words for it
    if (std::ranges::find(left_out, bytes.substr(at + 4, 4)) == left_out.end()) {
      kept += bytes.substr(at, frame_bytes + length);
    }
    at += frame_bytes + length;
  }
  return kept.append(bytes.substr(at));
}

/// uint8 [height, width, 4].
Tensor decode_png(std::string_view stored) {
  const std::string bytes = without_colour_space(stored);
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  const auto require = [&image](int succeeded) {
    if (succeeded != 0) return;
    const std::string what = image.message;
    png_image_free(&image);
    throw BadImage(fmt::format("broken PNG ({})", what));
  };
  require(png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()));
  try {
    require_size(image.width, image.height);
    // Alpha is taken along and dropped later: libpng would mix it with a background.
    image.format = PNG_FORMAT_RGBA;
    image.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
    Tensor pixels = torch::empty({std::int64_t{image.height}, std::int64_t{image.width}, 4}, at::kByte);
    require(png_image_finish_read(&image, nullptr, pixels.data_ptr(), 0, nullptr));
    return pixels;
  } catch (...) {
    png_image_free(&image);
    throw;
  }
}

// ------------------------------------------------------------------------------------------------------------ JPEG

/// libjpeg reports by a call that must not return.
struct JpegErrors {
  jpeg_error_mgr base;  ///< First: libjpeg hands out its address.
  std::jmp_buf escape;
  std::array<char, JMSG_LENGTH_MAX> text;
};

struct JpegReader {
  jpeg_decompress_struct state;
  JpegErrors errors;
  jpeg_progress_mgr progress;
};

[[noreturn]] void escape(j_common_ptr state) {
  auto* errors = reinterpret_cast<JpegErrors*>(state->err);
  errors->base.format_message(state, errors->text.data());
  std::longjmp(errors->escape, 1);
}

/// libjpeg only warns where pixels are missing or wrong, and makes some up. These warnings cost none.
void refuse_damage(j_common_ptr state, int level) {
  constexpr std::array harmless = {JWRN_ADOBE_XFORM, JWRN_BOGUS_ICC, JWRN_EXTRANEOUS_DATA, JWRN_JFIF_MAJOR,
                                   JWRN_NOT_SEQUENTIAL};
  if (level < 0 && std::ranges::find(harmless, state->err->msg_code) == harmless.end()) escape(state);
}

/// Each scan of a progressive file costs a pass over the whole image; encoders make about ten.
void bound_scans(j_common_ptr state) {
  constexpr int most_scans = 200;
  if (reinterpret_cast<j_decompress_ptr>(state)->input_scan_number > most_scans) {
    state->err->msg_code = JERR_BAD_PROGRESSION;
    escape(state);
  }
}

// These two are left by longjmp() where the file is broken: nothing in them may need a destructor.

bool read_jpeg_head(JpegReader& reader, std::string_view bytes) {
  constexpr long most_bytes_of_coefficients = 400'000'000;
  if (setjmp(reader.errors.escape) != 0) return false;
  jpeg_create_decompress(&reader.state);
  reader.state.progress = &reader.progress;
  reader.state.mem->max_memory_to_use = most_bytes_of_coefficients;
  jpeg_mem_src(&reader.state, reinterpret_cast<const unsigned char*>(bytes.data()),
               static_cast<unsigned long>(bytes.size()));
  jpeg_read_header(&reader.state, TRUE);
  return true;
}

bool read_jpeg_rows(JpegReader& reader, unsigned char* rows, std::size_t row_bytes) {
  if (setjmp(reader.errors.escape) != 0) return false;
  jpeg_start_decompress(&reader.state);
  while (reader.state.output_scanline < reader.state.output_height) {
    JSAMPROW row = rows + row_bytes * reader.state.output_scanline;
    jpeg_read_scanlines(&reader.state, &row, 1);
  }
  jpeg_finish_decompress(&reader.state);
  return true;
}

/// As Adobe's programs store them, inverted, and without a colour profile: uint8 [height, width, 3].
Tensor rgb_of_inverted_cmyk(const Tensor& pixels) {
  const Tensor inks = pixels.to(at::kInt);
  return inks.narrow(2, 0, 3).mul(inks.narrow(2, 3, 1)).add_(127).div_(255, "floor").to(at::kByte);
}

/// uint8 [height, width, 1 or 3].
Tensor decode_jpeg(std::string_view bytes) {
  JpegReader reader{};
  reader.state.err = jpeg_std_error(&reader.errors.base);
  reader.errors.base.error_exit = escape;
  reader.errors.base.emit_message = refuse_damage;
  reader.progress.progress_monitor = bound_scans;
  struct Release {
    jpeg_decompress_struct* state;
    ~Release() { jpeg_destroy_decompress(state); }
  } const release{&reader.state};
  const auto require = [&reader](bool succeeded) {
    if (!succeeded) throw BadImage(fmt::format("broken JPEG ({})", reader.errors.text.data()));
  };
  require(read_jpeg_head(reader, bytes));
  jpeg_decompress_struct& state = reader.state;
  require_size(state.image_width, state.image_height);
  switch (state.num_components) {
    case 1:
      state.out_color_space = JCS_GRAYSCALE;
      break;
    case 3:
      state.out_color_space = JCS_RGB;
      break;
    case 4:
      state.out_color_space = JCS_CMYK;
      break;
    default:
      throw BadImage(fmt::format("a JPEG of {} colour components, expected 1, 3 or 4", state.num_components));
  }
  const std::int64_t height = state.image_height;
  const std::int64_t width = state.image_width;
  const std::int64_t depth = state.num_components;
  const Tensor pixels = torch::empty({height, width, depth}, at::kByte);
  require(read_jpeg_rows(reader, pixels.data_ptr<std::uint8_t>(), static_cast<std::size_t>(width * depth)));
  return depth == 4 ? rgb_of_inverted_cmyk(pixels) : pixels;
}

// ----------------------------------------------------------------------------------------- one image as it is stored

/// The content decides, not the name: published sets have a few PNG files that are called .jpg.
Tensor decode(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) return decode_png(bytes);
  if (bytes.starts_with("\xff\xd8\xff")) return decode_jpeg(bytes);
  if (bytes.starts_with("GIF8")) throw BadImage("a GIF; only PNG and JPEG are read: convert it");
  if (bytes.starts_with("BM")) throw BadImage("a BMP; only PNG and JPEG are read: convert it");
  throw BadImage(bytes.empty() ? "empty" : "neither PNG nor JPEG");
}

/// The largest square in the middle: [side, side, depth].
Tensor middle_of(const Tensor& pixels) {
  const std::int64_t height = pixels.size(0);
  const std::int64_t width = pixels.size(1);
  const std::int64_t side = std::min(height, width);
  return pixels.narrow(0, (height - side) / 2, side).narrow(1, (width - side) / 2, side);
}

/// One plane, uint8: [side, side]. Brightness is 0.299 red + 0.587 green + 0.114 blue.
Tensor plane_of(const Tensor& pixels, std::int64_t channel, std::int64_t num_channels) {
  if (pixels.size(2) == 1) return pixels.select(2, 0);
  if (num_channels == 3) return pixels.select(2, channel);
  // The weights in parts of 2^16, as PIL has them.
  constexpr std::array<std::int64_t, 3> weights = {19595, 38470, 7471};
  Tensor sum = torch::full({pixels.size(0), pixels.size(1)}, 1 << 15, at::kInt);
  for (std::int64_t i = 0; i < 3; ++i) {
    sum.add_(pixels.select(2, i).to(at::kInt), weights[static_cast<std::size_t>(i)]);
  }
  return sum.div_(1 << 16, "floor").to(at::kByte);
}

/// uint8 [side, side]. Each new pixel is the mean of all that it covers, under a triangle.
Tensor resized(const Tensor& plane, std::int64_t side) {
  if (plane.size(0) == side) return plane;
  const std::int64_t shape[] = {side, side};
  const Tensor scaled = at::_upsample_bilinear2d_aa(plane.to(at::kFloat).view({1, 1, plane.size(0), plane.size(1)}),
                                                    shape, /*align_corners=*/false, {}, {});
  return scaled.view({side, side}).add(0.5).clamp_(0, 255).to(at::kByte);
}

/// A PNG file says the bits of a value in the byte after width and height.
bool has_16_bits(std::string_view bytes) {
  constexpr std::size_t depth_at = 24;
  return bytes.starts_with("\x89PNG") && bytes.size() > depth_at && bytes[depth_at] == 16;
}

/// Fills `target`: uint8 [channels, side, side]. Whether the file has more bits a value than are kept.
bool read_image(const std::filesystem::path& file, const Tensor& target) {
  std::error_code code;
  const std::uintmax_t num_bytes = std::filesystem::file_size(file, code);
  if (code) throw BadImage(fmt::format("cannot be read ({})", code.message()));
  if (num_bytes > most_file_bytes) throw BadImage(fmt::format("{} bytes, more than {}", num_bytes, most_file_bytes));
  const std::string bytes = read_text(file);
  const Tensor square = middle_of(decode(bytes));
  for (std::int64_t channel = 0; channel < target.size(0); ++channel) {
    target.select(0, channel).copy_(resized(plane_of(square, channel, target.size(0)), target.size(1)));
  }
  return has_16_bits(bytes);
}

// ------------------------------------------------------------------------------------------ what belongs to a split

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& what) {
  throw Error(Errc::data, fmt::format("{}: {}", file.string(), what));
}

/// The images of each class by their paths. Both are ordered by the bytes of their names, whatever the locale.
using Classes = std::map<std::string, std::vector<std::filesystem::path>>;

std::string lower_case(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

enum class Kind { image, unknown, no_image };

/// By the name: what is neither called an image that can be read nor surely none may be one that is missed.
Kind kind_of(const std::filesystem::path& file) {
  const std::string ending = lower_case(file.extension().string());
  const auto is_one_of = [](std::string_view word, std::initializer_list<std::string_view> words) {
    return std::ranges::find(words, word) != words.end();
  };
  if (is_one_of(ending, {".png", ".jpg", ".jpeg"})) return Kind::image;
  const bool is_text =
      is_one_of(ending, {".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".log"});
  return is_text || is_one_of(lower_case(file.filename().string()), {"thumbs.db", "desktop.ini"}) ? Kind::no_image
                                                                                                  : Kind::unknown;
}

/// What else than images lies in the class folders.
class OtherFiles {
 public:
  explicit OtherFiles(std::filesystem::path folder) : folder_(std::move(folder)) {}

  void count(const std::filesystem::path& file, Kind kind) {
    Files& files = kind == Kind::unknown ? unknown_ : skipped_;
    if (files.count++ == 0) files.first = file;
    ++files.by_ending[file.has_extension() ? lower_case(file.extension().string()) : "without a suffix"];
  }

  /// The entries of a folder, sorted, without what is hidden, which is counted.
  std::vector<std::filesystem::path> shown_in(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> entries = entries_in(folder, Errc::data);
    std::erase_if(entries, [this](const std::filesystem::path& entry) {
      if (!entry.filename().native().starts_with('.')) return false;
      if (num_hidden_++ == 0) first_hidden_ = entry;
      return true;
    });
    return entries;
  }

  /// Throws Error(data) where images may be missed; logs what is skipped.
  void account_for(std::size_t num_images) const {
    if (unknown_.count > 0) {
      fail(folder_, fmt::format("{} of {} files in it are called neither .png, .jpg nor .jpeg ({}; the "
                                "first is {}); only PNG and JPEG are read: convert them, or move away what is no image",
                                unknown_.count, unknown_.count + skipped_.count + num_images, endings_of(unknown_),
                                unknown_.first.string()));
    }
    if (num_hidden_ > 0) {
      spdlog::info("{}: skipped, as they are hidden: {} files or folders, the first {}", folder_.string(), num_hidden_,
                   first_hidden_.string());
    }
    if (skipped_.count == 0) return;
    spdlog::info("{}: skipped, as they are no images: {}", folder_.string(), endings_of(skipped_));
  }

 private:
  struct Files {
    std::size_t count = 0;
    std::filesystem::path first;
    std::map<std::string, std::size_t> by_ending;
  };
  static std::string endings_of(const Files& files) {
    constexpr std::size_t most_endings = 8;
    std::vector<std::string> words;
    for (const auto& [ending, count] : files.by_ending) {
      if (words.size() == most_endings) {
        words.emplace_back("...");
        break;
      }
      words.push_back(fmt::format("{} {}", count, ending));
    }
    return fmt::format("{}", fmt::join(words, ", "));
  }

  std::filesystem::path folder_;
  Files unknown_;
  Files skipped_;
  std::size_t num_hidden_ = 0;
  std::filesystem::path first_hidden_;
};

Classes classes_in_folders(const std::filesystem::path& folder) {
  Classes classes;
  OtherFiles others(folder);
  std::size_t num_images = 0;
  for (const std::filesystem::path& home : others.shown_in(folder)) {
    if (!is_folder(home, Errc::data)) {
      const Kind kind = kind_of(home);
      if (kind == Kind::image) fail(home, "an image outside the class folders");
      others.count(home, kind);
      continue;
    }
    std::vector<std::filesystem::path>& images = classes[home.filename().string()];
    for (const std::filesystem::path& file : others.shown_in(home)) {
      if (is_folder(file, Errc::data)) fail(file, "a folder within a class folder");
      const Kind kind = kind_of(file);
      if (kind == Kind::image) {
        images.push_back(file);
      } else {
        others.count(file, kind);
      }
    }
    num_images += images.size();
  }
  others.account_for(num_images);
  if (classes.empty()) fail(folder, "there are no class folders in it");
  return classes;
}

/// Lines as SUN397 has them: /a/abbey/sun_aaa.jpg, /a/apse/indoor/sun_bbb.jpg. The class is the folder.
Classes classes_in_list(const std::filesystem::path& list, const std::filesystem::path& root) {
  const std::string text = read_text(list);
  Classes classes;
  std::set<std::string, std::less<>> seen;
  std::int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    const auto refuse = [&](std::string_view what) { fail(list, fmt::format("line {}: {}", number, what)); };
    const std::filesystem::path path(line);
    const std::filesystem::path home = path.parent_path().relative_path();
    const bool is_plain = line.find('\0') == std::string::npos &&
                          std::ranges::none_of(path, [](const auto& part) { return part == ".." || part == "."; });
    if (!path.is_absolute() || home.empty() || !path.has_filename() || !is_plain) {
      refuse("expected /FOLDER/.../IMAGE, a path below the root of the images");
    }
    const std::string place = path.relative_path().lexically_normal().string();
    if (!seen.insert(place).second) refuse(place + " stands in the list twice");
    classes[home.lexically_normal().string()].push_back(root / place);
  }
  if (classes.empty()) fail(list, "there are no images in it");
  for (auto& [name, images] : classes) {
    std::ranges::sort(images, {}, [](const std::filesystem::path& path) { return path.native(); });
  }
  return classes;
}

std::string_view word_of(Split split) { return split == Split::train ? "train" : "test"; }

/// The folder or list that says what a split has, and what it says.
struct Listed {
  std::filesystem::path origin;
  Classes classes;
};

/// Nothing where there is no such split.
std::optional<Listed> list_split(const DataSource& source, Split split) {
  const std::filesystem::path folder = source.path;
  const std::filesystem::path home = folder / word_of(split);
  if (is_folder(home, Errc::data)) return Listed{home, classes_in_folders(home)};
  const std::string name = fmt::format("{}_{:02}.txt", split == Split::train ? "Training" : "Testing", source.list);
  const std::filesystem::path unpacked = folder / "SUN397";
  const std::filesystem::path& root = is_folder(unpacked, Errc::data) ? unpacked : folder;
  for (const std::filesystem::path& place : {folder, folder / "Partitions", root}) {
    if (is_there(place / name, Errc::data)) return Listed{place / name, classes_in_list(place / name, root)};
  }
  return std::nullopt;
}

/// Of CLASS/IMAGE, in the order of the samples; a path has no zero byte.
std::string digest_of_paths(const Classes& classes) {
  Sha256 sha;
  for (const auto& [name, images] : classes) {
    for (const std::filesystem::path& file : images) {
      sha.update(name).update("/").update(file.filename().native()).update(std::string_view("\0", 1));
    }
  }
  return hex(sha.finish());
}

/// The names in both, in order. One may lack classes of the other; where each has what the other has not, a name is
/// spelled in two ways.
std::vector<std::string> classes_of(const Listed& listed, const std::optional<Listed>& other) {
  std::set<std::string> names;
  std::vector<std::string> only_here;
  std::vector<std::string> only_there;
  for (const auto& [name, images] : listed.classes) {
    names.insert(name);
    if (other && !other->classes.contains(name)) only_here.push_back(name);
  }
  if (other) {
    for (const auto& [name, images] : other->classes) {
      if (names.insert(name).second) only_there.push_back(name);
    }
    if (!only_here.empty() && !only_there.empty()) {
      fail(listed.origin, fmt::format("class '{}' is missing in {}, and class '{}' is missing here; is one class "
                                      "spelled in two ways? If not, an empty folder stands for a class that is lacking",
                                      only_here.front(), other->origin.string(), only_there.front()));
    }
  }
  return {names.begin(), names.end()};
}

struct RawImages {
  RawSplit split;
  std::vector<std::string> classes;  ///< Names by label, those without an image in this split included.
  std::string paths_digest;          ///< As Dataset has it.
};

RawImages read_images(const DataSource& source, Split split) {
  const auto listed = list_split(source, split);
  if (!listed) {
    fail(source.path, fmt::format("neither a folder '{}' with class folders nor SUN397's list {}_{:02}.txt is in it",
                                  word_of(split), split == Split::train ? "Training" : "Testing", source.list));
  }
  const auto other = list_split(source, split == Split::train ? Split::test : Split::train);

  std::int64_t count = 0;
  for (const auto& [name, images] : listed->classes) count += std::ssize(images);
  const std::uint64_t sizes[] = {static_cast<std::uint64_t>(count), static_cast<std::uint64_t>(source.channels),
                                 static_cast<std::uint64_t>(source.side), static_cast<std::uint64_t>(source.side)};
  if (count == 0) fail(listed->origin, "there are no images (.png, .jpg, .jpeg) in its class folders");
  RawImages raw{{}, classes_of(*listed, other), digest_of_paths(listed->classes)};
  try {
    if (!product(sizes)) throw std::bad_alloc();
    raw.split = {torch::empty({count, source.channels, source.side, source.side}, at::kByte),
                 torch::empty({count}, at::kLong)};
  } catch (const std::exception&) {
    fail(listed->origin, fmt::format("{} images of {} x {} pixels do not fit into memory; choose a smaller data.side",
                                     count, source.side, source.side));
  }
  std::int64_t row = 0;
  std::int64_t num_bad = 0;
  std::int64_t num_with_16_bits = 0;
  std::string first_bad;
  const auto note_bad = [&](const std::filesystem::path& file, const std::string& what) {
    if (num_bad++ == 0) first_bad = file.string() + ": " + what;
  };
  for (const auto& [name, images] : listed->classes) {
    const std::int64_t label = std::ranges::lower_bound(raw.classes, name) - raw.classes.begin();
    for (const std::filesystem::path& file : images) {
      raw.split.labels[row] = label;
      try {
        if (read_image(file, raw.split.images[row])) ++num_with_16_bits;
      } catch (const BadImage& bad) {
        note_bad(file, bad.what());
      }
      ++row;
    }
  }
  if (num_bad > 0) {
    throw Error(Errc::data, fmt::format("{}; {} of {} images cannot be used", first_bad, num_bad, count));
  }
  if (num_with_16_bits > 0) {
    spdlog::warn(
        "{}: {} of {} images have 16 bits a value, of which the upper 8 are kept: scale images of 12 bits to the "
        "whole range first, or store them as NumPy files",
        listed->origin.string(), num_with_16_bits, count);
  }
  return raw;
}

Dataset load_images(const DataReader& reader, const std::filesystem::path&, const DataSource& source, Split split) {
  if (source.channels != 1 && source.channels != 3) {
    throw Error(Errc::usage, fmt::format("data.channels {}: images have 1 or 3", source.channels));
  }
  RawImages raw = read_images(source, split);
  Dataset dataset = reader.dataset(raw.split.images, raw.split.labels);
  dataset.num_classes = std::ssize(raw.classes);
  dataset.classes = std::move(raw.classes);
  dataset.paths_digest = std::move(raw.paths_digest);
  dataset.class_source = ClassSource::folders;
  if (source.channels == 1) {
    dataset.mean = {reader.mean[1]};
    dataset.deviation = {reader.deviation[1]};
  }
  return dataset;
}

// The usual ones of ImageNet.
constexpr std::array mean = {0.485, 0.456, 0.406};
constexpr std::array deviation = {0.229, 0.224, 0.225};

}  // namespace

constinit const DataReader images_reader{.name = "images",
                                         .sentence = "PNG and JPEG files in class folders, or named by SUN397's lists",
                                         .files = "train and test with class folders, or SUN397 and its lists",
                                         .load = load_images,
                                         .mean = mean,
                                         .deviation = deviation};

}  // namespace headstart::learn
