#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/fields.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/partition/manifest.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

namespace {

using test::error_of;
using test::TemporaryFolder;

const std::filesystem::path golden = "tests/golden/images";

void write(const std::filesystem::path& file, const std::string& bytes) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << bytes;
}

void put(const std::string& picture, const std::filesystem::path& file) { write(file, read_text(golden / picture)); }

DataSource source_of(const TemporaryFolder& folder, std::int64_t side = 6, std::int64_t channels = 3) {
  return {.set = "images", .path = folder.path().string(), .side = side, .channels = channels};
}

std::string complaint(const DataSource& source, Split split = Split::train) {
  return error_of(Errc::data, [&] { load_dataset(source, split); });
}

void check_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    CAPTURE(part);
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  }
}

std::vector<std::int64_t> labels_of(const Dataset& dataset) {
  return {dataset.labels.data_ptr<std::int64_t>(), dataset.labels.data_ptr<std::int64_t>() + dataset.size()};
}

/// Two classes, a picture each.
void write_small_set(const TemporaryFolder& folder) {
  for (const char* split : {"train", "test"}) {
    put("wide.png", folder.path() / split / "cat" / "1.png");
    put("colours.jpg", folder.path() / split / "dog" / "1.jpg");
  }
}

/// SUN397's tree and lists.
void write_scenes(const TemporaryFolder& folder) {
  put("wide.png", folder / "SUN397/a/abbey/sun_a.jpg");
  put("high.png", folder / "SUN397/a/abbey/sun_b.jpg");
  put("colours.jpg", folder / "SUN397/a/apse/indoor/sun_c.jpg");
  put("gray.jpg", folder / "SUN397/a/apse/indoor/sun_d.jpg");
  write(folder / "Training_01.txt", "/a/apse/indoor/sun_c.jpg\r\n/a/abbey/sun_a.jpg\r\n");
  write(folder / "Testing_01.txt", "/a/abbey/sun_b.jpg\n/a/apse/indoor/sun_d.jpg");
  write(folder / "Training_02.txt", "/a/abbey/sun_b.jpg\n/a/abbey/sun_a.jpg\n/a/apse/indoor/sun_d.jpg\n");
  write(folder / "Testing_02.txt", "/a/abbey/sun_b.jpg\n/a/apse/indoor/sun_c.jpg\n");
}

}  // namespace

TEST_CASE("pictures of every kind come out as PIL makes them") {
  const nlohmann::json expected = read_json(golden / "images.json");
  const auto side = expected.at("side").get<std::int64_t>();
  for (const auto& [name, values] : expected.at("files").items()) {
    for (const auto& [word, channels] : {std::pair("colours", 3), {"gray", 1}}) {
      CAPTURE(name);
      CAPTURE(word);
      const TemporaryFolder folder;
      put(name, folder / "train/a/picture.PNG");
      put("wide.png", folder / "train/b/picture.jpeg");
      const Dataset dataset = load_dataset(source_of(folder, side, channels), Split::train);
      CHECK((dataset.images.scalar_type() == at::kByte));
      CHECK(dataset.task() == Task{{channels, side, side}, 2});
      const auto pixels = values.at(word).get<std::vector<std::int64_t>>();
      const Tensor wanted = torch::tensor(pixels, at::kLong).view({channels, side, side});
      // PIL rounds after each of its two passes; another version of libjpeg-turbo may differ by one more.
      const auto tolerance = name.find(".jp") != std::string::npos ? 2 : 1;
      CHECK((dataset.images[0].to(at::kLong) - wanted).abs().max().item<std::int64_t>() <= tolerance);
      if (name == "as-stored.png") CHECK(torch::equal(dataset.images[0].to(at::kLong), wanted));
    }
  }
}

TEST_CASE("pixels are what a PNG file stores, whatever it says of gamma") {
  const TemporaryFolder folder;
  const std::string plain = read_text(golden / "wide.png");
  constexpr std::size_t behind_the_header = 33;
  using namespace std::string_literals;
  const std::string gamma_1 = "\x00\x00\x00\x04gAMA\x00\x01\x86\xa0\x31\xe8\x96\x5f"s;
  write(folder / "train/a/1.png", plain);
  write(folder / "train/b/1.png", plain.substr(0, behind_the_header) + gamma_1 + plain.substr(behind_the_header));
  const Dataset dataset = load_dataset(source_of(folder), Split::train);
  CHECK(torch::equal(dataset.images[0], dataset.images[1]));
}

TEST_CASE("class folders give labels in the order of their names, whatever the locale") {
  const TemporaryFolder folder;
  for (const char* split : {"train", "test"}) {
    put("wide.png", folder.path() / split / "b" / "2.png");
    put("high.png", folder.path() / split / "b" / "10.png");
    put("gray.png", folder.path() / split / "Z" / "x.JPG");
    put("gray.png", folder.path() / split / "\xc3\xa9" / "x.jpeg");
    write(folder.path() / split / "b" / "notes.txt", "no image");
    write(folder.path() / split / ".DS_Store", "hidden");
  }
  put("wide.png", folder / "valid/b/3.png");
  const Dataset train = load_dataset(source_of(folder), Split::train);
  CHECK(train.name == "images");
  CHECK(train.num_classes == 3);
  CHECK(labels_of(train) == std::vector<std::int64_t>{0, 1, 1, 2});
  // "10.png" before "2.png".
  const nlohmann::json expected = read_json(golden / "images.json");
  CHECK(std::abs(train.images[1].view(-1)[0].item<int>() - expected["files"]["high.png"]["colours"][0].get<int>()) <=
        1);
  CHECK(labels_of(load_dataset(source_of(folder), Split::test)) == labels_of(train));
  CHECK(load_dataset(source_of(folder), Split::train).digest() == train.digest());
}

TEST_CASE("a manifest notices an image that was renamed, and not where the folder lies") {
  const TemporaryFolder folder;
  for (const char* name : {"1.png", "2.png", "3.png"}) {
    put("wide.png", folder.path() / "here/train/cat" / name);
    put("high.png", folder.path() / "here/train/dog" / name);
  }
  const auto load = [&folder](const char* place) {
    return load_dataset({.set = "images", .path = (folder / place).string(), .side = 6}, Split::train);
  };
  const Dataset train = load("here");
  const Manifest manifest = draw_manifest(
      train, train,
      {.validation = 0, .public_large = 0, .public_small = 0, .public_labeled = 0, .clients = 6, .test = 0},
      {.kind = "uniform", .num_clients = 2, .min_samples = 1}, 1);
  std::filesystem::rename(folder / "here", folder / "there");
  CHECK_NOTHROW(check_fits(manifest, load("there"), Split::train, "m.json"));
  // The samples of the class change their order, its labels do not.
  std::filesystem::rename(folder / "there/train/cat/1.png", folder / "there/train/cat/4.png");
  check_contains(error_of(Errc::data, [&] { check_fits(manifest, load("there"), Split::train, "m.json"); }),
                 {"m.json: the manifest was made for another training split of images (its files' names or labels"});
  std::filesystem::rename(folder / "there/train/cat/4.png", folder / "there/train/cat/1.png");
  CHECK_NOTHROW(check_fits(manifest, load("there"), Split::train, "m.json"));
}

TEST_CASE("colours are normalised by three constants, brightness by one") {
  const TemporaryFolder folder;
  write_small_set(folder);
  CHECK(load_dataset(source_of(folder), Split::train).all().x.sizes() == at::IntArrayRef({2, 3, 6, 6}));
  const Dataset gray = load_dataset(source_of(folder, 5, 1), Split::train);
  CHECK(gray.mean.size() == 1);
  CHECK(gray.all().x.sizes() == at::IntArrayRef({2, 1, 5, 5}));
}

TEST_CASE("SUN397's tree and lists: classes of two and three levels, each list from its own files") {
  const TemporaryFolder folder;
  write_scenes(folder);
  DataSource source = source_of(folder);
  const Dataset train = load_dataset(source, Split::train);
  CHECK(labels_of(train) == std::vector<std::int64_t>{0, 1});
  CHECK(labels_of(load_dataset(source, Split::test)) == std::vector<std::int64_t>{0, 1});
  source.list = 2;
  const Dataset second = load_dataset(source, Split::train);
  CHECK(labels_of(second) == std::vector<std::int64_t>{0, 0, 1});
  CHECK(torch::equal(second.images[0], train.images[0]));
  source.list = 3;
  check_contains(complaint(source), {folder.path().string(), "'train'", "Training_03.txt"});

  SUBCASE("the lists in Partitions, the tree without its folder") {
    const TemporaryFolder other;
    std::filesystem::rename(folder / "SUN397/a", other / "a");
    std::filesystem::create_directory(other / "Partitions");
    std::filesystem::rename(folder / "Training_01.txt", other / "Partitions/Training_01.txt");
    CHECK(torch::equal(load_dataset(source_of(other), Split::train).images, train.images));
  }
}

TEST_CASE("lists that are wrong are refused with file and line") {
  const TemporaryFolder folder;
  write_scenes(folder);
  const std::filesystem::path list = folder / "Training_01.txt";
  const auto refusal_of = [&](const std::string& text) {
    write(list, text);
    return complaint(source_of(folder));
  };
  const std::string sound = "/a/abbey/sun_a.jpg\n/a/apse/indoor/sun_c.jpg\n";
  for (const std::string& line : {std::string("a/abbey/sun_a.jpg"), std::string("/a/../../etc/x.jpg"),
                                  std::string("/sun_a.jpg"), std::string("/a/abbey/"), std::string("/a/\0/b.jpg", 9)}) {
    check_contains(refusal_of(sound + "\n" + line), {list.string() + ": line 4", "/FOLDER/.../IMAGE"});
  }
  check_contains(refusal_of(sound + "/a//abbey/sun_a.jpg\n"), {list.string() + ": line 3", "twice"});
  check_contains(refusal_of("\n"), {list.string(), "no images"});
  check_contains(refusal_of("/a/abbey/sun_a.jpg\n/b/bar/sun_e.jpg\n"),
                 {list.string() + ": class 'b/bar' is missing", "class 'a/apse/indoor' is missing here"});
  check_contains(refusal_of(sound + "/a/abbey/gone.jpg\n"), {"a/abbey/gone.jpg: ", "No such file", "1 of 3 images"});
}

TEST_CASE("broken images are refused in one sentence: the first by name, and how many") {
  const TemporaryFolder folder;
  write_small_set(folder);
  const std::filesystem::path file = folder / "train/cat/2.jpg";
  const auto refusal_of = [&](const std::string& bytes) {
    write(file, bytes);
    return complaint(source_of(folder));
  };
  check_contains(refusal_of(""), {file.string() + ": empty; 1 of 3 images"});
  check_contains(refusal_of("hello"), {file.string() + ": neither PNG nor JPEG"});
  check_contains(refusal_of("GIF89a"), {"a GIF"});
  check_contains(refusal_of("BM12"), {"a BMP"});

  const std::string png = read_text(golden / "wide.png");
  for (std::size_t length = 8; length + 16 < png.size(); length += 7) {
    check_contains(refusal_of(png.substr(0, length)), {file.string() + ": broken PNG ("});
  }
  std::string flipped = png;
  flipped[flipped.size() / 2] ^= 0x55;
  check_contains(refusal_of(flipped), {"broken PNG ("});

  for (const char* picture : {"colours.jpg", "progressive.jpg", "cmyk.jpg"}) {
    const std::string jpeg = read_text(golden / picture);
    for (std::size_t length = 3; length + 2 < jpeg.size(); length += 11) {
      check_contains(refusal_of(jpeg.substr(0, length)), {file.string() + ": broken JPEG ("});
    }
  }

  write(folder / "train/dog/0.png", "x");
  check_contains(refusal_of("x"), {file.string() + ": neither", "2 of 4 images cannot be used"});
}

TEST_CASE("what an image promises is bounded before it is allocated") {
  const TemporaryFolder folder;
  write_small_set(folder);
  // Heads that promise 65,000 x 65,000 pixels, and no pixels.
  std::string jpeg = read_text(golden / "colours.jpg");
  const std::size_t frame = jpeg.find("\xff\xc0");
  REQUIRE(frame != std::string::npos);
  jpeg.replace(frame + 5, 4, "\xfd\xe8\xfd\xe8");
  write(folder / "train/cat/1.png", jpeg);
  check_contains(complaint(source_of(folder)), {"65000 x 65000 pixels", "50000000"});

  const std::filesystem::path large = folder / "train/cat/1.png";
  std::filesystem::resize_file(large, 100'000'001);
  check_contains(complaint(source_of(folder)), {large.string(), "100000001 bytes"});
}

TEST_CASE("folders that are not such a set are refused by name") {
  const TemporaryFolder folder;
  SUBCASE("nothing there") { check_contains(complaint(source_of(folder)), {folder.path().string(), "class folders"}); }
  SUBCASE("folders without classes") {
    std::filesystem::create_directory(folder / "train");
    check_contains(complaint(source_of(folder)), {(folder / "train").string(), "no class folders"});
  }
  SUBCASE("each split has a class that the other has not: one class spelled in two ways") {
    write_small_set(folder);
    std::filesystem::rename(folder / "test/dog", folder / "test/Dog");
    check_contains(complaint(source_of(folder)), {"'dog' is missing in " + (folder / "test").string(), "'Dog'"});
    check_contains(complaint(source_of(folder), Split::test), {"'Dog' is missing in " + (folder / "train").string()});
  }
  SUBCASE("no images at all") {
    std::filesystem::create_directories(folder / "train/cat");
    check_contains(complaint(source_of(folder)), {(folder / "train").string(), "no images"});
  }
  SUBCASE("an image beside the class folders") {
    write_small_set(folder);
    put("wide.png", folder / "train/1.png");
    check_contains(complaint(source_of(folder)), {(folder / "train/1.png").string(), "outside the class folders"});
  }
  SUBCASE("folders in class folders") {
    write_small_set(folder);
    std::filesystem::create_directory(folder / "train/cat/more");
    check_contains(complaint(source_of(folder)), {(folder / "train/cat/more").string(), "within a class folder"});
  }
  SUBCASE("a class folder that is a loop of links") {
    write_small_set(folder);
    std::filesystem::create_directory_symlink("eel", folder / "train/eel");
    check_contains(complaint(source_of(folder)), {(folder / "train/eel").string(), "Too many levels"});
  }
}

TEST_CASE("files that may be images and are not called so are counted and named, and nothing is left out in silence") {
  const TemporaryFolder folder;
  write_small_set(folder);
  write(folder / "train/cat/2.webp", "RIFF");
  check_contains(complaint(source_of(folder)),
                 {(folder / "train").string() + ": 1 of 3 files in it", "1 .webp", "convert"});
  write(folder / "train/cat/3.DCM", "DICM");
  write(folder / "train/dog/4.dcm", "DICM");
  write(folder / "train/dog/IMG0001", "");
  for (const char* ending : {".bmp", ".tif", ".tiff", ".gif", ".npy"})
    write(folder / ("train/dog/5" + std::string(ending)), "");
  check_contains(complaint(source_of(folder)), {"9 of 11 files in it", "2 .dcm", "1 .bmp", "1 .tif,",
                                                "1 without a suffix", "the first is", "2.webp"});
}

TEST_CASE("hidden files and what is surely no image are left out; capital suffixes are read") {
  const TemporaryFolder folder;
  write_small_set(folder);
  put("wide.png", folder / "train/cat/8.PNG");
  put("colours.jpg", folder / "train/dog/9.JPG");
  put("colours.jpg", folder / "train/dog/10.Jpeg");
  for (const char* name :
       {"Thumbs.db", ".DS_Store", "._1.png", "notes.txt", "labels.CSV", "desktop.ini", "meta.json"}) {
    write(folder.path() / "train/cat" / name, "x");
  }
  CHECK(load_dataset(source_of(folder), Split::train).size() == 5);
}

TEST_CASE("a split may lack classes: a folder is empty, missing, or there is only one") {
  const TemporaryFolder folder;
  write_small_set(folder);
  put("gray.png", folder / "train/bee/1.png");
  write(folder / "train/ant/notes.txt", "none yet");
  const Dataset train = load_dataset(source_of(folder), Split::train);
  CHECK(train.classes == std::vector<std::string>{"ant", "bee", "cat", "dog"});
  CHECK(train.class_source == ClassSource::folders);
  CHECK(labels_of(train) == std::vector<std::int64_t>{1, 2, 3});
  const Dataset test = load_dataset(source_of(folder), Split::test);
  CHECK(test.classes == train.classes);
  CHECK(labels_of(test) == std::vector<std::int64_t>{2, 3});

  const TemporaryFolder silo;
  put("wide.png", silo / "train/cat/1.png");
  const Dataset one = load_dataset(source_of(silo), Split::train);
  CHECK(one.num_classes == 1);
  check_contains(error_of(Errc::data,
                          [&] {
                            (void)draw_manifest(one, one, {.validation = 0, .clients = 1, .test = 0},
                                                {.kind = "uniform", .num_clients = 1}, 1);
                          }),
                 {"one class only"});
}

TEST_CASE("a folder may hold one split: a silo needs no test set, a coordinator no training set") {
  const TemporaryFolder folder;
  write_small_set(folder);
  std::filesystem::remove_all(folder / "test");
  CHECK(load_dataset(source_of(folder), Split::train).size() == 2);
  check_contains(complaint(source_of(folder), Split::test), {"'test'", "Testing_01.txt"});
}

TEST_CASE("size and channels of images are settings with bounds") {
  DataSource source;
  Fields fields;
  declare_fields(fields, "data", source);
  fields.load({{"data", {{"set", "images"}, {"path", "/p"}, {"side", 64}, {"channels", 1}, {"list", 10}}}}, "test");
  CHECK(source.side == 64);
  CHECK(source.channels == 1);
  CHECK(source.list == 10);
  CHECK_THROWS_AS(fields.set("data.side=0"), Error);
  const TemporaryFolder folder;
  write_small_set(folder);
  CHECK(error_of(Errc::usage, [&] { load_dataset(source_of(folder, 6, 2), Split::train); }).find("1 or 3") !=
        std::string::npos);
}

}  // namespace headstart::learn
