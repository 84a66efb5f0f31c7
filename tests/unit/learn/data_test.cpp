#include <zlib.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/fields.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/reader.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

namespace {

using test::error_of;
using test::TemporaryFolder;

void write(const std::filesystem::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

void write_gz(const std::filesystem::path& file, const std::string& bytes) {
  gzFile out = gzopen(file.c_str(), "wb");
  gzwrite(out, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(out);
}

std::string read(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

/// Byte i of the pixels of every file made here.
unsigned char pixel(std::size_t i) { return static_cast<unsigned char>((i * 37 + 11) % 256); }

std::string pixels(std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes += static_cast<char>(pixel(i));
  return bytes;
}

std::string idx_images(std::uint32_t count, std::uint32_t rows, std::uint32_t columns) {
  return big_endian(0x803) + big_endian(count) + big_endian(rows) + big_endian(columns) +
         pixels(std::size_t{count} * rows * columns);
}

std::string idx_labels(const std::string& labels) {
  return big_endian(0x801) + big_endian(static_cast<std::uint32_t>(labels.size())) + labels;
}

std::string npy(const std::string& type, const std::string& shape, const std::string& data, char version = 1,
                const std::string& order = "False") {
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}\n", type, order, shape);
  std::string length{static_cast<char>(header.size()), '\0'};
  if (version > 1) length += std::string(2, '\0');
  return std::string("\x93NUMPY") + version + '\0' + length + header + data;
}

template <class Element>
std::string bytes_of(const std::vector<Element>& elements) {
  std::string bytes(elements.size() * sizeof(Element), '\0');
  std::memcpy(bytes.data(), elements.data(), bytes.size());
  return bytes;
}

std::vector<std::int64_t> values(const Tensor& labels) {
  const Tensor held = labels.contiguous();
  return {held.data_ptr<std::int64_t>(), held.data_ptr<std::int64_t>() + held.numel()};
}

std::string load_complaint(const std::string& set, const TemporaryFolder& folder, Errc code = Errc::data) {
  return error_of(code, [&] { load_dataset({set, folder.path().string()}, Split::train); });
}

void check_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    CAPTURE(part);
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  }
}

/// Three images of 2 x 4 with labels 7, 0, 9.
void write_idx_pair(const TemporaryFolder& folder) {
  write(folder / "train-images-idx3-ubyte", idx_images(3, 2, 4));
  write(folder / "train-labels-idx1-ubyte", idx_labels(std::string("\x07\x00\x09", 3)));
}

}  // namespace

TEST_CASE("IDX files are read plain or compressed, each split from its own") {
  const TemporaryFolder folder;
  write_idx_pair(folder);
  write_gz(folder / "t10k-images-idx3-ubyte.gz", idx_images(2, 2, 4));
  write_gz(folder / "t10k-labels-idx1-ubyte.gz", idx_labels("\x01\x02"));
  const DataSource source{"mnist", folder.path().string()};

  const Dataset train = load_dataset(source, Split::train);
  CHECK(train.name == "mnist");
  CHECK(train.task() == Task{{1, 2, 4}, 10});
  CHECK(values(train.labels) == std::vector<std::int64_t>{7, 0, 9});
  CHECK((train.images.scalar_type() == at::kByte));
  for (std::size_t i = 0; i < 24; ++i) CHECK(train.images.data_ptr<std::uint8_t>()[i] == pixel(i));

  const Dataset test = load_dataset(source, Split::test);
  CHECK(values(test.labels) == std::vector<std::int64_t>{1, 2});
  CHECK(torch::equal(test.images, train.images.narrow(0, 0, 2)));
}

TEST_CASE("damaged IDX files are refused with file and offset") {
  const TemporaryFolder folder;
  write_idx_pair(folder);
  const std::filesystem::path images = folder / "train-images-idx3-ubyte";
  const std::filesystem::path labels = folder / "train-labels-idx1-ubyte";
  const std::string whole = idx_images(3, 2, 4);

  SUBCASE("missing file") {
    std::filesystem::remove(labels);
    check_contains(load_complaint("mnist", folder), {labels.string(), "no such file", ".gz"});
  }
  SUBCASE("every truncation") {
    for (std::size_t length = 0; length < whole.size(); ++length) {
      write(images, whole.substr(0, length));
      check_contains(load_complaint("mnist", folder), {images.string() + ", offset", "truncated"});
    }
  }
  SUBCASE("every truncation of a compressed file") {
    std::filesystem::remove(images);
    const std::filesystem::path packed = folder / "train-images-idx3-ubyte.gz";
    write_gz(packed, whole);
    const std::string bytes = read(packed);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      write(packed, bytes.substr(0, length));
      CAPTURE(length);
      check_contains(load_complaint("mnist", folder), {packed.string() + ", offset"});
    }
  }
  SUBCASE("a bit flipped in a compressed file") {
    std::filesystem::remove(images);
    const std::filesystem::path packed = folder / "train-images-idx3-ubyte.gz";
    write_gz(packed, whole);
    std::string bytes = read(packed);
    bytes[bytes.size() - 6] = static_cast<char>(bytes[bytes.size() - 6] ^ 1);
    write(packed, bytes);
    check_contains(load_complaint("mnist", folder), {packed.string(), "damaged"});
  }
  SUBCASE("goes on after its end") {
    write(images, whole + "x");
    check_contains(load_complaint("mnist", folder), {images.string() + ", offset 40", "goes on"});
  }
  SUBCASE("labels where images should be") {
    write(images, idx_labels("\x01"));
    check_contains(load_complaint("mnist", folder), {images.string() + ", offset 0", "0x00000803", "0x00000801"});
  }
  SUBCASE("a header that promises more than memory") {
    write(images, big_endian(0x803) + big_endian(0xffffffff) + big_endian(0x7fff) + big_endian(0xffff));
    check_contains(load_complaint("mnist", folder), {"offset 16", "truncated"});
  }
  SUBCASE("sizes whose product overflows") {
    write(images, big_endian(0x803) + big_endian(0xffffffff) + big_endian(0xffffffff) + big_endian(0xffffffff));
    check_contains(load_complaint("mnist", folder), {"offset 4", "too large"});
  }
  SUBCASE("no samples") {
    write(images, idx_images(0, 2, 4));
    check_contains(load_complaint("mnist", folder), {"offset 4", "size of 0"});
  }
  SUBCASE("label out of range") {
    write(labels, idx_labels(std::string("\x07\x0a\x09", 3)));
    check_contains(load_complaint("mnist", folder), {labels.string() + ", offset 9", "label 10", "0 to 9"});
  }
  SUBCASE("images and labels of different length") {
    write(labels, idx_labels("\x07\x01"));
    check_contains(load_complaint("mnist", folder), {images.string(), "3 images", labels.string(), "2 labels"});
  }
}

TEST_CASE("CIFAR records give their label byte and channel planes") {
  const TemporaryFolder folder;
  const auto record = [](const std::string& labels) { return labels + pixels(3072); };

  SUBCASE("cifar10 joins five batches in order") {
    for (int batch = 1; batch <= 5; ++batch) {
      write(folder / fmt::format("data_batch_{}.bin", batch), record({static_cast<char>(batch)}) + record("\x09"));
    }
    const Dataset train = load_dataset({"cifar10", folder.path().string()}, Split::train);
    CHECK(values(train.labels) == std::vector<std::int64_t>{1, 9, 2, 9, 3, 9, 4, 9, 5, 9});
    CHECK(train.task() == Task{{3, 32, 32}, 10});
    CHECK(train.images[7][2][5][31].item<int>() == pixel(2 * 1024 + 5 * 32 + 31));

    write(folder / "data_batch_3.bin", record("\x03") + record("\x0a"));
    check_contains(load_complaint("cifar10", folder), {"data_batch_3.bin, offset 3073", "label 10"});
    write(folder / "data_batch_3.bin", record("\x03") + record("\x03").substr(0, 3072));
    check_contains(load_complaint("cifar10", folder), {"data_batch_3.bin, offset 3073", "truncated"});
    std::filesystem::remove(folder / "data_batch_3.bin");
    check_contains(load_complaint("cifar10", folder), {"data_batch_3.bin: cannot be read"});
  }
  SUBCASE("cifar100 takes the fine label, and the archive's own folder is found") {
    std::filesystem::create_directory(folder / "cifar-100-binary");
    write(folder / "cifar-100-binary/test.bin", record("\x05\x63") + record(std::string("\x13\x00", 2)));
    const Dataset test = load_dataset({"cifar100", folder.path().string()}, Split::test);
    CHECK(values(test.labels) == std::vector<std::int64_t>{99, 0});
    CHECK(test.num_classes == 100);
    CHECK(test.images[1][0][0][0].item<int>() == pixel(0));
  }
}

TEST_CASE("a folder of tensors holds uint8 or float32 images and integer labels of any width") {
  const TemporaryFolder folder;
  const auto load = [&](Split split = Split::train) {
    return load_dataset({"tensors", folder.path().string()}, split);
  };
  write(folder / "train-labels.npy", npy("<i4", "(2,)", bytes_of<std::int32_t>({1, 3})));

  SUBCASE("uint8 without channels, every header version") {
    for (const char version : {'\1', '\2', '\3'}) {
      write(folder / "train-images.npy", npy("|u1", "(2, 3, 4)", pixels(24), version));
      const Dataset train = load();
      CHECK(train.task() == Task{{1, 3, 4}, 4});
      CHECK(train.images[1][0][2][3].item<int>() == pixel(23));
      CHECK(torch::equal(train.all().x, train.images.to(at::kFloat) / 255));
    }
  }
  SUBCASE("float32 is used as it is") {
    write(folder / "train-images.npy", npy("<f4", "(2, 2, 1, 1)", bytes_of<float>({-1.5F, 0.F, 300.F, 4.F})));
    const Samples all = load().all();
    CHECK(torch::equal(all.x.flatten(), torch::tensor({-1.5F, 0.F, 300.F, 4.F})));
  }
  SUBCASE("tables, images and volumes: of two dimensions and of four to eight the shape is the array's") {
    for (const auto& [shape, sample] : std::vector<std::pair<std::string, std::vector<std::int64_t>>>{
             {"(2, 24)", {24}},
             {"(2, 2, 3, 4)", {2, 3, 4}},
             {"(2, 1, 2, 3, 4)", {1, 2, 3, 4}},
             {"(2, 1, 1, 1, 2, 3, 2, 2)", {1, 1, 1, 2, 3, 2, 2}}}) {
      CAPTURE(shape);
      write(folder / "train-images.npy", npy("|u1", shape, pixels(48)));
      CHECK(load().task() == Task{sample, 4});
      CHECK(torch::equal(load().all().x.flatten(), load().images.flatten().to(at::kFloat) / 255));
    }
  }
  SUBCASE("a signal has its shape from meta.json") {
    write(folder / "train-images.npy", npy("|u1", "(2, 3, 4)", pixels(24)));
    write(folder / "meta.json", R"({"shape": [3, 4], "mean": [0, 0.5, 1], "deviation": [1, 2, 4]})");
    const Dataset train = load();
    CHECK(train.task() == Task{{3, 4}, 4});
    CHECK(train.all().x[1][2][3].item<float>() == doctest::Approx((pixel(23) / 255.0 - 1) / 4));
    save_tensors(train, {0, 1}, Split::train, folder / "copy");
    const Dataset copy = load_dataset({"tensors", (folder / "copy").string()}, Split::train);
    CHECK(copy.task() == train.task());
    CHECK(torch::equal(copy.all().x, train.all().x));
  }
  SUBCASE("every integer type of labels") {
    write(folder / "train-images.npy", npy("|u1", "(2, 1, 1)", pixels(2)));
    const std::vector<std::pair<std::string, std::string>> types = {
        {"|u1", bytes_of<std::uint8_t>({1, 3})},  {"|i1", bytes_of<std::int8_t>({1, 3})},
        {"<u2", bytes_of<std::uint16_t>({1, 3})}, {"<i2", bytes_of<std::int16_t>({1, 3})},
        {"<u4", bytes_of<std::uint32_t>({1, 3})}, {"<i4", bytes_of<std::int32_t>({1, 3})},
        {"<u8", bytes_of<std::uint64_t>({1, 3})}, {"<i8", bytes_of<std::int64_t>({1, 3})}};
    for (const auto& [type, data] : types) {
      CAPTURE(type);
      write(folder / "train-labels.npy", npy(type, "(2,)", data));
      CHECK(values(load().labels) == std::vector<std::int64_t>{1, 3});
    }
  }
  SUBCASE("the classes of both splits count, unless meta.json says") {
    write(folder / "train-images.npy", npy("|u1", "(2, 1, 1)", pixels(2)));
    write(folder / "test-images.npy", npy("|u1", "(1, 1, 1)", pixels(1)));
    write(folder / "test-labels.npy", npy("|u1", "(1,)", "\x08"));
    CHECK(load(Split::train).num_classes == 9);
    CHECK(load(Split::test).num_classes == 9);
    CHECK(load(Split::train).class_source == ClassSource::labels);
    CHECK(load(Split::train).labels_file == (folder / "train-labels.npy").string());
    write(folder / "meta.json", R"({"classes": ["a", "b", "c", "d"]})");
    CHECK(load(Split::train).classes == std::vector<std::string>{"a", "b", "c", "d"});
    CHECK(load(Split::train).num_classes == 4);
    CHECK(load(Split::train).class_source == ClassSource::stated);
    write(folder / "meta.json", R"({"num_classes": 12, "mean": [0.5], "deviation": [0.25]})");
    const Dataset train = load();
    CHECK(train.num_classes == 12);
    CHECK(train.all().x.flatten()[1].item<float>() == doctest::Approx((pixel(1) / 255.0 - 0.5) / 0.25));
  }
}

TEST_CASE("samples written as tensors are the same samples to whoever reads them") {
  const TemporaryFolder folder;
  write(folder / "train-images-idx3-ubyte", idx_images(3, 2, 4));
  write(folder / "train-labels-idx1-ubyte", idx_labels(std::string("\x07\x00\x09", 3)));
  const Dataset whole = load_dataset({"mnist", folder.path().string()}, Split::train);
  const std::filesystem::path out = folder / "silo/data";

  SUBCASE("bytes, with classes and normalisation") {
    save_tensors(whole, {2, 1}, Split::train, out);
    const Dataset share = load_dataset({"tensors", out.string()}, Split::train);
    CHECK(share.task() == whole.task());
    CHECK(values(share.labels) == std::vector<std::int64_t>{9, 0});
    CHECK(torch::equal(share.all().x, whole.select({2, 1}).x));
    CHECK(share.classes == whole.classes);
    CHECK(share.classes.size() == 10);
    CHECK(read(out / "train-images.npy").find('\n') % 64 == 63);
    save_tensors(whole, {0}, Split::test, out);
    CHECK(values(load_dataset({"tensors", out.string()}, Split::test).labels) == std::vector<std::int64_t>{7});
  }
  SUBCASE("numbers that are used as they are") {
    const Dataset plain{"tensors", torch::tensor({-1.5F, 0.25F}).view({2, 1, 1, 1}), torch::tensor({1, 0}), 2, {}, {}};
    save_tensors(plain, {1}, Split::train, out);
    const Dataset share = load_dataset({"tensors", out.string()}, Split::train);
    CHECK(torch::equal(share.all().x, plain.select({1}).x));
    CHECK(share.num_classes == 2);
  }
  SUBCASE("what is there is left alone") {
    save_tensors(whole, {0}, Split::train, out);
    check_contains(error_of(Errc::storage, [&] { save_tensors(whole, {1}, Split::train, out); }),
                   {(out / "train-labels.npy").string(), "never overwritten"});
    check_contains(error_of(Errc::data, [&] { save_tensors(whole, {3}, Split::test, out); }), {"no sample 3"});
  }
}

TEST_CASE("damaged tensors are refused by name") {
  const TemporaryFolder folder;
  const std::filesystem::path images = folder / "train-images.npy";
  const std::filesystem::path labels = folder / "train-labels.npy";
  write(images, npy("|u1", "(2, 3, 4)", pixels(24)));
  write(labels, npy("|u1", "(2,)", "\x01\x03"));
  const auto refused = [&](const std::vector<std::string>& parts) {
    check_contains(load_complaint("tensors", folder), parts);
  };

  SUBCASE("missing") {
    std::filesystem::remove(labels);
    refused({labels.string(), "cannot be read"});
  }
  SUBCASE("every truncation") {
    const std::string whole = npy("|u1", "(2, 3, 4)", pixels(24));
    for (std::size_t length = 0; length < whole.size(); ++length) {
      write(images, whole.substr(0, length));
      refused({images.string() + ", offset", "truncated"});
    }
  }
  SUBCASE("not a .npy file") {
    write(images, "PK\x03\x04 and so on");
    refused({images.string() + ", offset 0", "not a .npy file"});
  }
  SUBCASE("other version") {
    write(images, npy("|u1", "(2, 3, 4)", pixels(24), 4));
    refused({images.string(), "version 4"});
  }
  SUBCASE("Fortran order") {
    write(images, npy("|u1", "(2, 3, 4)", pixels(24), 1, "True"));
    refused({images.string(), "Fortran order"});
  }
  SUBCASE("big-endian") {
    write(labels, npy(">i4", "(2,)", pixels(8)));
    refused({labels.string(), ">i4", "big-endian"});
  }
  SUBCASE("a long header, sound but for its last word") {
    const std::string blanks(60'000, ' ');
    const auto long_npy = [&](const std::string& end) {
      const std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2," + blanks + "3, 4" + end;
      return std::string("\x93NUMPY\1\0", 8) + static_cast<char>(header.size() & 255) +
             static_cast<char>(header.size() >> 8) + header + pixels(24);
    };
    write(images, long_npy(")}"));
    CHECK_NOTHROW(load_dataset({"tensors", folder.path().string()}, Split::train));
    write(images, long_npy(" and more)}"));
    refused({images.string(), "no 'shape' of whole numbers"});
  }
  SUBCASE("a header without its words") {
    const auto with_header = [](const std::string& header) {
      return std::string("\x93NUMPY\1\0", 8) + static_cast<char>(header.size()) + '\0' + header + pixels(24);
    };
    write(images, with_header("{'descr': [('r', '|u1')], 'fortran_order': False, 'shape': (2, 3, 4)}"));
    refused({images.string(), "'descr'"});
    write(images, with_header("{'descr': '|u1', 'fortran_order': 0, 'shape': (2, 3, 4)}"));
    refused({images.string(), "'fortran_order'"});
    write(images, with_header("{'descr': '|u1', 'fortran_order': False, 'shape': 24}"));
    refused({images.string(), "'shape'"});
    write(images, with_header("{'descr': '|u1', 'fortran_order': False, 'shape'"));
    refused({images.string(), "'shape'"});
  }
  SUBCASE("types") {
    write(images, npy("<f8", "(2, 1, 1)", pixels(16)));
    refused({images.string(), "<f8", "float32"});
    write(images, npy("|u1", "(2, 3, 4)", pixels(24)));
    write(labels, npy("<f4", "(2,)", pixels(8)));
    refused({labels.string(), "<f4", "integers"});
  }
  SUBCASE("shapes") {
    write(images, npy("|u1", "(24,)", pixels(24)));
    refused({images.string(), "1 dimensions, expected 2 to 8"});
    write(images, npy("|u1", "(2, 1, 1, 1, 1, 1, 1, 1, 12)", pixels(24)));
    refused({images.string(), "9 dimensions, expected 2 to 8"});
    write(images, npy("|u1", "(2, 65537)", std::string(std::size_t{2} * 65537, '\1')));
    refused(
        {"data set tensors in " + folder.path().string() + ": a dimension of a sample is of 1 to 65536, not 65537"});
    write(images, npy("|u1", "(2, 0, 4)", ""));
    refused({images.string(), "size of 0"});
    write(images, npy("|u1", "(3, 2, 4)", pixels(24)));
    refused({"3 images", "2 labels"});
  }
  SUBCASE("a shape that promises more than memory, or overflows") {
    write(images, npy("|u1", "(4000000000, 1000, 1000)", pixels(24)));
    refused({images.string(), "truncated"});
    write(images, npy("|u1", "(4294967296, 4294967296, 4294967296)", pixels(24)));
    refused({images.string(), "too large"});
    write(images, npy("|u1", "(99999999999999999999, 1, 1)", pixels(24)));
    refused({images.string(), "too large"});
  }
  SUBCASE("values that are no numbers") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    write(images, npy("<f4", "(2, 1, 2)", bytes_of<float>({1.F, 2.F, nan, 3.F})));
    refused({images.string() + ", offset", "value 2 is nan"});
  }
  SUBCASE("negative label") {
    write(labels, npy("|i1", "(2,)", bytes_of<std::int8_t>({1, -1})));
    refused({labels.string() + ", index 1", "label -1"});
  }
  SUBCASE("meta.json") {
    const std::filesystem::path meta = folder / "meta.json";
    const std::vector<std::pair<std::string, std::string>> cases = {
        {R"({"num_classes": 3})", "label 3"},
        {R"({"num_classes": "4"})", "key 'num_classes'"},
        {R"({"num_classes": 1})", "key 'num_classes'"},
        {R"({"classes": 4})", "key 'classes': expected a list"},
        {R"({"classes": ["a", 4]})", "key 'classes': expected a list"},
        {R"({"classes": ["a", "b"], "num_classes": 4})", "2 names, and num_classes is 4"},
        {R"({"klasses": 4})", "key 'klasses': unknown"},
        {R"({"mean": [0.5]})", "key 'deviation': missing"},
        {R"({"mean": [0.5, 0.5], "deviation": [1]})", "key 'mean'"},
        {R"({"mean": [0.5], "deviation": [0]})", "key 'deviation'"},
        {R"({"shape": 12})", "key 'shape': expected the shape of a sample, of as many values as the 1x3x4"},
        {R"({"shape": [3, 5]})", "key 'shape'"},
        {R"({"shape": []})", "key 'shape'"},
        {R"({"shape": [12.5]})", "key 'shape'"},
        {R"({"shape": [1, 1, 1, 1, 1, 1, 1, 12]})", "key 'shape'"},
        {R"({"shape": [18446744073709551604]})", "key 'shape'"},
        {R"([])", "expected a JSON object"},
        {R"({"num_classes": 4, "num_classes": 5})", "the key \"num_classes\" stands twice"},
        {R"({"mean")", "line 1"}};
    for (const auto& [text, expected] : cases) {
      write(meta, text);
      refused({expected});
    }
    write(images, npy("<f4", "(2, 1, 1)", bytes_of<float>({1.F, 2.F})));
    write(meta, R"({"mean": [0.5], "deviation": [1]})");
    refused({meta.string(), "key 'mean'", "float32"});
    // What is there and cannot be read is not taken for what is not there.
    for (const char* target : {"nowhere", "meta.json"}) {
      std::filesystem::remove(meta);
      std::filesystem::create_symlink(target, meta);
      refused({meta.string() + ": cannot be read"});
    }
  }
}

TEST_CASE("a known set says what its samples are without its files") {
  for (const auto& [set, shape] : std::vector<std::pair<std::string, Task>>{{"fashion-mnist", {{1, 28, 28}, 10}},
                                                                            {"mnist", {{1, 28, 28}, 10}},
                                                                            {"cifar10", {{3, 32, 32}, 10}},
                                                                            {"cifar100", {{3, 32, 32}, 100}}}) {
    CAPTURE(set);
    const auto known = known_dataset({set, "/nowhere"});
    REQUIRE(known);
    CHECK(known->task() == shape);
    CHECK(std::ssize(known->classes) == shape.num_classes);
    CHECK(known->size() == 0);
    CHECK(std::ssize(known->mean) == shape.shape.front());
  }
  CHECK_FALSE(known_dataset({"tensors", "/nowhere"}));
  CHECK_FALSE(known_dataset({"images", "/nowhere"}));
}

TEST_CASE("unknown sets and missing paths say what to do") {
  const auto load = [](const DataSource& source) { load_dataset(source, Split::train); };
  check_contains(error_of(Errc::usage,
                          [&] {
                            load({"fashion-mnst", ""});
                          }),
                 {"unknown data set 'fashion-mnst'", "did you mean 'fashion-mnist'?"});
  check_contains(error_of(Errc::usage, [&] { load({"cifar10", ""}); }), {"'cifar10' needs a path", "test_batch.bin"});
  check_contains(error_of(Errc::data,
                          [&] {
                            load({"cifar100", "/no/such/folder"});
                          }),
                 {"/no/such/folder: no such folder", "train.bin"});
}

TEST_CASE("the source of the data is a setting") {
  DataSource source;
  Fields fields;
  declare_fields(fields, "data", source);
  fields.set("data.set=cifar10");
  fields.set("data.path=/some/where");
  CHECK(source.set == "cifar10");
  CHECK(source.path == "/some/where");
}

TEST_CASE("a selection is normalised per channel, in the order asked for") {
  const Dataset dataset{"tensors",
                        torch::arange(24).to(at::kByte).view({3, 2, 2, 2}),
                        torch::tensor({2, 0, 1}, at::kLong),
                        3,
                        {0.5, 0.25},
                        {0.5, 2.0}};
  const Samples picked = dataset.select({2, 0, 2});
  CHECK(values(picked.y) == std::vector<std::int64_t>{1, 2, 1});
  const std::vector<std::int64_t> rows = {2, 0, 2};
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t c = 0; c < 2; ++c) {
      for (std::int64_t p = 0; p < 4; ++p) {
        const double stored = static_cast<double>(rows[static_cast<std::size_t>(i)] * 8 + c * 4 + p);
        const double expected = c == 0 ? (stored / 255 - 0.5) / 0.5 : (stored / 255 - 0.25) / 2.0;
        CHECK(picked.x[i][c].flatten()[p].item<float>() == doctest::Approx(expected).epsilon(1e-6));
      }
    }
  }
  CHECK(torch::equal(dataset.all().x, dataset.select({0, 1, 2}).x));
  CHECK(dataset.select({}).size() == 0);
  check_contains(error_of(Errc::data,
                          [&] {
                            (void)dataset.select({0, 3});
                          }),
                 {"no sample 3", "position 1", "it has 3"});
  check_contains(error_of(Errc::data, [&] { (void)dataset.select({-1}); }), {"no sample -1"});

  const Samples all = dataset.all();
  CHECK(torch::equal(all.select(torch::tensor({2, 0}, at::kLong)).y, torch::tensor({1, 2}, at::kLong)));
  const Samples unlabeled = all.without_labels();
  CHECK_FALSE(unlabeled.is_labeled());
  CHECK(torch::equal(unlabeled.select(torch::tensor({1}, at::kLong)).x, all.x.narrow(0, 1, 1)));
}

TEST_CASE("training on a selection leaves the stored images alone") {
  const Dataset dataset{"tensors", torch::ones({2, 1, 1, 1}), torch::zeros({2}, at::kLong), 2, {}, {}};
  dataset.all().x.fill_(7);
  dataset.select({0, 1}).x.fill_(7);
  dataset.all().y.fill_(1);
  CHECK(dataset.images.eq(1).all().item<bool>());
  CHECK(dataset.labels.eq(0).all().item<bool>());
}

TEST_CASE("constants are of the first dimension of a sample, whatever the others") {
  for (const std::vector<std::int64_t>& shape :
       std::vector<std::vector<std::int64_t>>{{2}, {2, 3}, {2, 3, 4}, {2, 3, 4, 5}}) {
    std::vector<std::int64_t> sizes = shape;
    sizes.insert(sizes.begin(), 3);
    const Dataset dataset{"tensors", torch::full(sizes, 51, at::kByte), torch::zeros({3}, at::kLong), 2, {0.1, 0.2},
                          {0.5, 2}};
    CHECK(dataset.task() == Task{shape, 2});
    const Tensor x = dataset.select({2, 0}).x;
    CHECK(at::allclose(x.select(1, 0), torch::full_like(x.select(1, 0), 0.2)));
    CHECK(x.select(1, 1).abs().max().item<float>() < 1e-6);
    CHECK(torch::equal(x, dataset.all().x.narrow(0, 0, 2)));
  }
}

TEST_CASE("a shape that no sample can have is named") {
  CHECK_FALSE(shape_violation(std::vector<std::int64_t>{1}));
  CHECK_FALSE(shape_violation(std::vector<std::int64_t>{65536, 32768}));
  CHECK_FALSE(shape_violation(std::vector<std::int64_t>{1, 1, 1, 1, 1, 1, 65536}));
  const auto violation = [](const std::vector<std::int64_t>& shape) { return shape_violation(shape).value_or("none"); };
  CHECK(violation({}) == "a sample has 1 to 7 dimensions, not 0");
  CHECK(violation(std::vector<std::int64_t>(8, 1)) == "a sample has 1 to 7 dimensions, not 8");
  CHECK(violation({3, 0}) == "a dimension of a sample is of 1 to 65536, not 0");
  CHECK(violation({65537}) == "a dimension of a sample is of 1 to 65536, not 65537");
  CHECK(violation({65536, 32768, 2}) == "a sample has at most 2147483648 values, not 65536x32768x2");
  CHECK(violation(std::vector<std::int64_t>(7, 65536)).starts_with("a sample has at most 2147483648 values"));
  CHECK(text_of({{3, 32, 32}, 10}) == "3x32x32 in 10 classes");
}

TEST_CASE("extension: a data set needs no more than its row") {
  static constexpr std::string_view names[] = {"calm", "storm"};
  static constexpr double mean[] = {1, 10};
  static constexpr double deviation[] = {2, 4};
  // A line is a label and the values of a sample.
  const DataReader lines_reader{
      .name = "lines",
      .sentence = "a table as text",
      .files = "train.txt and test.txt",
      .load =
          [](const DataReader& reader, const std::filesystem::path& folder, const DataSource&, Split) {
            std::istringstream lines(read_text(folder / "train.txt"));
            std::vector<float> values;
            std::vector<std::int64_t> labels;
            for (std::string line; std::getline(lines, line);) {
              std::istringstream fields(line);
              fields >> labels.emplace_back();
              for (char comma = 0; fields >> comma >> values.emplace_back();) {
              }
              values.pop_back();
            }
            return reader.dataset(torch::tensor(values).view({std::ssize(labels), -1}), torch::tensor(labels));
          },
      .classes = names,
      .mean = mean,
      .deviation = deviation};
  const TemporaryFolder folder;
  const auto load = [&](const std::string& path) { return load_dataset({"lines", path}, Split::train, lines_reader); };
  write(folder / "train.txt", "1,3,14\n0,1,6\n1,-1,10\n");
  const Dataset train = load(folder.path().string());
  CHECK(train.name == "lines");
  CHECK(train.task() == Task{{2}, 2});
  CHECK(train.classes == std::vector<std::string>{"calm", "storm"});
  CHECK(values(train.labels) == std::vector<std::int64_t>{1, 0, 1});
  CHECK(torch::equal(train.all().x, torch::tensor({{1.F, 1.F}, {0.F, -1.F}, {-1.F, 0.F}})));
  check_contains(error_of(Errc::usage, [&] { load(""); }), {"'lines' needs a path: the folder of train.txt"});
  check_contains(error_of(Errc::data, [&] { load("/nowhere"); }), {"no such folder", "train.txt and test.txt"});
  check_contains(error_of(Errc::usage,
                          [&] {
                            load_dataset({"lines", "/nowhere"}, Split::train);
                          }),
                 {"unknown data set 'lines'; there are fashion-mnist, mnist"});
  std::string wide = "0";
  for (int i = 0; i < 65537; ++i) wide += ",1";
  write(folder / "train.txt", wide);
  check_contains(error_of(Errc::data, [&] { load(folder.path().string()); }), {"data set lines in", "not 65537"});
}

TEST_CASE("the digest tells sizes, labels and their order apart") {
  const auto digest = [](const std::vector<std::int64_t>& labels) {
    const auto n = static_cast<std::int64_t>(labels.size());
    return Dataset{"tensors", torch::zeros({n, 1, 1, 1}), torch::tensor(labels, at::kLong), 3, {}, {}}.digest();
  };
  CHECK(digest({0, 1, 2}).size() == 64);
  CHECK(digest({0, 1, 2}) == digest({0, 1, 2}));
  CHECK(digest({0, 1, 2}) != digest({0, 2, 1}));
  CHECK(digest({0, 1, 2}) != digest({0, 1, 2, 0}));
}

TEST_CASE("Fashion-MNIST as the distribution packages it") {
  if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist")) {
    MESSAGE("skipped: the package dataset-fashion-mnist is not installed");
    return;
  }
  const Dataset train = load_dataset({}, Split::train);
  const Dataset test = load_dataset({}, Split::test);
  CHECK(train.size() == 60000);
  CHECK(test.size() == 10000);
  CHECK(train.task() == Task{{1, 28, 28}, 10});
  CHECK(torch::equal(torch::bincount(train.labels), torch::full({10}, 6000, at::kLong)));
  CHECK(torch::equal(torch::bincount(test.labels), torch::full({10}, 1000, at::kLong)));
  const Tensor x = train.all().x;
  CHECK(std::abs(x.mean().item<double>()) < 1e-3);
  CHECK(x.std().item<double>() == doctest::Approx(1).epsilon(1e-3));
}

TEST_CASE("CIFAR-10 as published") {
  const char* folder = std::getenv("HEADSTART_CIFAR10");
  if (folder == nullptr || *folder == '\0') {
    MESSAGE("skipped: HEADSTART_CIFAR10 names no folder");
    return;
  }
  const Dataset train = load_dataset({"cifar10", folder}, Split::train);
  CHECK(train.size() == 50000);
  CHECK(torch::equal(torch::bincount(train.labels), torch::full({10}, 5000, at::kLong)));
  CHECK(load_dataset({"cifar10", folder}, Split::test).size() == 10000);
  for (std::int64_t c = 0; c < 3; ++c) {
    const Tensor plane = train.images.select(1, c).to(at::kInt);
    const auto count = static_cast<double>(plane.numel());
    const double mean = plane.sum().item<double>() / count;
    const double variance = plane.square().sum().item<double>() / count - mean * mean;
    CHECK(mean / 255 == doctest::Approx(train.mean[static_cast<std::size_t>(c)]).epsilon(1e-3));
    CHECK(std::sqrt(variance) / 255 == doctest::Approx(train.deviation[static_cast<std::size_t>(c)]).epsilon(1e-3));
  }
}

}  // namespace headstart::learn
