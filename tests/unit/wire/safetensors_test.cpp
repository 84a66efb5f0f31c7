#include "shared/wire/safetensors.hpp"

#include <random>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/files.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::wire {
namespace {

PackedState example() {
  return PackedState(learn::StateDict({{"fc.weight", torch::arange(6, torch::kFloat).reshape({2, 3})},
                                       {"fc.bias", torch::tensor({0.5F, 1.5F})},
                                       {"bn.num_batches_tracked", torch::tensor(3, torch::kLong)},
                                       {"empty", torch::empty({0, 4})}}));
}

void write_file(const std::filesystem::path& file, std::string header, const std::string& data) {
  std::string text;
  for (std::size_t i = 0; i < 8; ++i) text += static_cast<char>(header.size() >> (8 * i));
  write_text_atomically(file, text + header + data);
}

TEST_CASE("a model file holds the state, bit for bit, and its metadata") {
  const test::TemporaryFolder folder;
  save_safetensors(folder / "m.safetensors", example(), {{"round", "3"}});
  const ModelFile loaded = load_safetensors(folder / "m.safetensors");
  CHECK(learn::bitwise_equal(loaded.model.state(), example().state()));
  CHECK(loaded.metadata.at("round") == "3");
}

TEST_CASE("the format: header length, JSON header with offsets, raw data at the end") {
  const test::TemporaryFolder folder;
  save_safetensors(folder / "m.safetensors", example());
  const std::string text = read_text(folder / "m.safetensors");
  const auto length = static_cast<std::size_t>(static_cast<unsigned char>(text[0])) |
                      static_cast<std::size_t>(static_cast<unsigned char>(text[1])) << 8U;
  CHECK(length % 8 == 0);
  const auto header = nlohmann::json::parse(text.substr(8, length));
  CHECK(header["fc.bias"]["dtype"] == "F32");
  CHECK(header["bn.num_batches_tracked"]["dtype"] == "I64");
  CHECK(header["fc.weight"]["shape"] == nlohmann::json({2, 3}));
  const std::size_t begin = header["fc.bias"]["data_offsets"][0];
  float value = 0;
  std::memcpy(&value, text.data() + 8 + length + begin, 4);
  CHECK(value == 0.5F);
  CHECK(text.size() == 8 + length + example().bytes().size());
}

TEST_CASE("files of others in another tensor order are read") {
  const test::TemporaryFolder folder;
  write_file(
      folder / "m",
      R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}})",
      std::string("\0\0\x80\x3f\x01\x02", 6));
  const ModelFile loaded = load_safetensors(folder / "m");
  CHECK(loaded.model.state().at("b").item<float>() == 1.0F);
  CHECK(loaded.model.state().at("a")[1].item<int>() == 2);
}

TEST_CASE("damaged files are refused with file and fault") {
  const test::TemporaryFolder folder;
  const auto error_for = [&](const std::string& header, const std::string& data) {
    write_file(folder / "bad.safetensors", header, data);
    const std::string message = test::error_of([&] { load_safetensors(folder / "bad.safetensors"); });
    CHECK(message.find("bad.safetensors") != std::string::npos);
    return message;
  };
  const std::string four(4, '\0');
  CHECK(error_for("{", "").find("header") != std::string::npos);
  CHECK(error_for("[]", "").find("no JSON object") != std::string::npos);
  CHECK(error_for(R"({"a":{"dtype":"C64","shape":[1],"data_offsets":[0,4]}})", four).find("unsupported type") !=
        std::string::npos);
  CHECK(error_for(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", four).find("needs 8 bytes") !=
        std::string::npos);
  CHECK(error_for(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", four).find("impossible shape") !=
        std::string::npos);
  CHECK(
      error_for(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,4]}})", four)
          .find("impossible shape") != std::string::npos);
  for (const char* shape : {"1", "[1.0]", "[1e300]", "[true]", "[18446744073709551615]", "{\"0\":1}"}) {
    CAPTURE(shape);
    CHECK(error_for(fmt::format(R"({{"a":{{"dtype":"F32","shape":{},"data_offsets":[0,4]}}}})", shape), four)
              .find("impossible shape") != std::string::npos);
  }
  for (const char* offsets : {"4", "[0]", "[0,4,8]", "[0,4.0]", "[0,1e300]", "[-1,3]", "[false,4]"}) {
    CAPTURE(offsets);
    CHECK(error_for(fmt::format(R"({{"a":{{"dtype":"F32","shape":[1],"data_offsets":{}}}}})", offsets), four)
              .find("impossible offsets") != std::string::npos);
  }
  CHECK(error_for(R"({"a":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}", "").find("nested") !=
        std::string::npos);
  CHECK(error_for(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", std::string(8, '\0')).find("gap") !=
        std::string::npos);
  CHECK(error_for(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "").find("the file holds 0") !=
        std::string::npos);
  CHECK(error_for(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", std::string(5, '\0'))
            .find("the file holds 5") != std::string::npos);
  const std::string twice = error_for(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                                      four);
  CHECK(twice.find("line 2: the key \"a\" stands twice") != std::string::npos);
  std::filesystem::create_symlink("loop", folder / "loop");
  CHECK(test::error_of(Errc::data, [&] { load_safetensors(folder / "loop"); }).find("loop: cannot be read (Too many") !=
        std::string::npos);
  write_text_atomically(folder / "short", "abc");
  CHECK(test::code_of([&] { load_safetensors(folder / "short"); }) == Errc::data);
  write_text_atomically(folder / "liar", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10));
  CHECK(test::error_of([&] { load_safetensors(folder / "liar"); }).find("header of") != std::string::npos);
  CHECK(test::code_of([&] { load_safetensors(folder / "none"); }) == Errc::data);
}

TEST_CASE("flipped bytes in the header never crash the reader") {
  const test::TemporaryFolder folder;
  save_safetensors(folder / "m", example());
  const std::string sound = read_text(folder / "m");
  const std::size_t header_end = sound.size() - example().bytes().size();
  std::mt19937 random(3);
  for (int i = 0; i < 500; ++i) {
    std::string text = sound;
    text[random() % header_end] = static_cast<char>(random());
    write_text_atomically(folder / "flipped", text);
    const auto code = test::code_of([&] { load_safetensors(folder / "flipped"); });
    CHECK((!code || code == Errc::data));
  }
}

}  // namespace
}  // namespace headstart::wire
