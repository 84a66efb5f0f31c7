#include "shared/wire/codec.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>

#include <doctest/doctest.h>

#include "tests/support/throws.hpp"

namespace headstart::wire {
namespace {

std::vector<ClientMessage> client_examples() {
  Join join;
  join.num_examples = 540;
  join.num_held_out = 60;
  join.num_classes = 10;
  join.channels = 1;
  join.height = join.width = 28;
  join.schema = std::string(64, 'a');
  join.architecture = "cnn channels=32,64";
  join.own_model = R"({"model": {}})";
  join.held_model = std::string(64, 'b');
  EvaluationReport report;
  report.task = 7;
  report.correct = std::vector<std::uint64_t>{1, 2};
  report.total = std::vector<std::uint64_t>{3, 4};
  report.predicted = std::vector<std::uint64_t>{5, 2};
  report.loss_sum = 1.5;
  return {Hello{protocol_version, "silo-1", "headstart 0.1.0", true},
          join,
          ProgressReport{3, 10, 20},
          PretrainDone{3, true, 12.5, 15, 4},
          report,
          Offer{9, 44'700'000},
          TaskFailed{9, Failure::memory},
          Attachment{2, std::uint64_t{5} << 32}};
}

std::vector<ServerMessage> server_examples() {
  return {Welcome{R"({"run": {"seed": 1}})", 1'767'225'600'125, 45'000},
          Joined{3, 10},
          Refused{"name taken", true},
          PretrainTask{1},
          ExchangeTask{2},
          TrainTask{3, 7, std::string(64, 'b'), true},
          EvaluateTask{4, std::string(64, 'b'), false, "{}"},
          LogitsTask{5, 5000},
          DistillTask{6, 9, 2.5, 0.25},
          TeacherFollows{"silo-2", "{}"},
          StatisticsTask{7},
          Grant{3},
          ResultRefused{3, "NaN"},
          Finished{"done", false},
          Notice{"another one came"},
          Attachment{0, 1}};
}

TEST_CASE("every message survives its frame, and its frame's bytes are the same again") {
  CHECK(client_examples().size() == std::variant_size_v<ClientMessage>);
  for (const ClientMessage& message : client_examples()) {
    const auto frame = encode(message);
    const auto decoded = decode_from_client(frame);
    REQUIRE(std::holds_alternative<ClientMessage>(decoded));
    CHECK(std::get<ClientMessage>(decoded).index() == message.index());
    const bool is_same = encode(std::get<ClientMessage>(decoded)) == frame;
    CHECK(is_same);
  }
  CHECK(server_examples().size() == std::variant_size_v<ServerMessage>);
  for (const ServerMessage& message : server_examples()) {
    const auto frame = encode(message);
    const auto decoded = decode_from_server(frame);
    REQUIRE(std::holds_alternative<ServerMessage>(decoded));
    const bool is_same = encode(std::get<ServerMessage>(decoded)) == frame;
    CHECK(is_same);
  }
}

TEST_CASE("a message's fields arrive as they were sent") {
  const auto frame = encode(client_examples()[1]);
  const auto join = std::get<Join>(std::get<ClientMessage>(decode_from_client(frame)));
  CHECK(join.num_examples == 540);
  CHECK(join.architecture.value == "cnn channels=32,64");
  CHECK(join.schema.value == std::string(64, 'a'));
}

TEST_CASE("every truncation of every message is refused, and so is a byte too many") {
  for (const ClientMessage& message : client_examples()) {
    auto frame = encode(message);
    for (std::size_t length = 0; length < frame.size(); ++length) {
      CHECK(test::code_of([&] { decode_from_client(std::span(frame).first(length)); }) == Errc::protocol);
    }
    frame.push_back(std::byte{0});
    CHECK(test::code_of([&] { decode_from_client(frame); }) == Errc::protocol);
  }
}

TEST_CASE("flipped bits are refused or read as another message, never more") {
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    auto frame = encode(client_examples()[random() % 8]);
    for (auto flips = 1 + random() % 3; flips > 0; --flips) {
      frame[random() % frame.size()] ^= static_cast<std::byte>(1U << (random() % 8));
    }
    try {
      const auto decoded = decode_from_client(frame);
      if (const auto* message = std::get_if<ClientMessage>(&decoded))
        CHECK(encode(*message).size() <= max_control_bytes);
    } catch (const Error& error) {
      CHECK(error.code() == Errc::protocol);
      ++refused;
    }
  }
  CHECK(refused > 1000);
}

/// The bytes of `words` in place of as many '#' in `frame`.
void put(std::vector<std::byte>& frame, const std::string& words) {
  const auto place = std::ranges::find(frame, std::byte{'#'});
  REQUIRE(std::distance(place, frame.end()) >= std::ssize(words));
  std::ranges::transform(words, place, [](char c) { return static_cast<std::byte>(c); });
}

TEST_CASE("words of a peer are printable whatever bytes came, and are cut and cleaned before they go out") {
  const std::string dirty = "\x1b[2J\nforged \u009b\u202e\xff";
  const std::string clean = "?[2J forged ??????";
  auto frame = encode(ServerMessage(Refused{std::string(dirty.size(), '#'), false}));
  put(frame, dirty);
  CHECK(std::get<Refused>(std::get<ServerMessage>(decode_from_server(frame))).reason.value == clean);
  frame = encode(ClientMessage(Hello{protocol_version, "silo-1", std::string(dirty.size(), '#'), false}));
  put(frame, dirty);
  CHECK(std::get<Hello>(std::get<ClientMessage>(decode_from_client(frame))).software.value == clean);

  const auto arrives = [](const Finished& finished) {
    const auto sent = encode(ServerMessage(finished));
    return std::get<Finished>(std::get<ServerMessage>(decode_from_server(sent))).summary.value;
  };
  CHECK(arrives({dirty, true}) == clean);
  CHECK(arrives({std::string(2000, 'x'), true}) == std::string(509, 'x') + "...");
  Finished assigned;
  assigned.summary.value = dirty + std::string(2000, 'x');
  CHECK(arrives(assigned).starts_with(clean + "xxx"));
}

TEST_CASE("settings travel as they were written, and are refused where no message carries them") {
  const std::string json = "{\"name\": \"\xe2\x80\x8f\\n\"}";
  Join join;
  join.own_model = json;
  const auto frame = encode(ClientMessage(join));
  CHECK(std::get<Join>(std::get<ClientMessage>(decode_from_client(frame))).own_model.value == json);
  CHECK(test::error_of(Errc::usage, [] { (void)Settings(std::string(48 * 1024 + 1, ' ')); }).find("at most 49152") !=
        std::string::npos);
}

TEST_CASE("a failed task says why by a code that is known") {
  for (int i = 0; i <= static_cast<int>(last_failure); ++i) {
    const auto failure = static_cast<Failure>(i);
    const auto frame = encode(ClientMessage(TaskFailed{1, failure}));
    CHECK(std::get<TaskFailed>(std::get<ClientMessage>(decode_from_client(frame))).failure == failure);
    CHECK_FALSE(word_of(failure).empty());
    CHECK_FALSE(sentence_of(failure).empty());
  }
  auto frame = encode(ClientMessage(TaskFailed{1, Failure::data}));
  frame.back() = std::byte{200};
  CHECK(test::error_of(Errc::protocol, [&] { decode_from_client(frame); }).find("unknown kind 200") !=
        std::string::npos);
}

TEST_CASE("a length that lies is refused before memory is taken") {
  auto frame = encode(ServerMessage(ResultRefused{1, "no"}));
  // head, portable-binary byte order mark, task id, then the text's length.
  const std::size_t length_at = 4 + 1 + 8;
  const std::uint32_t huge = 0xffffffff;
  std::memcpy(&frame[length_at], &huge, sizeof(huge));
  CHECK(test::error_of([&] { decode_from_server(frame); }).find("announces 4294967295 elements") != std::string::npos);
  const std::uint32_t allowed_but_not_there = 500;
  std::memcpy(&frame[length_at], &allowed_but_not_there, sizeof(allowed_but_not_there));
  CHECK(test::error_of([&] { decode_from_server(frame); }).find("bytes are left") != std::string::npos);
}

TEST_CASE("frames of another version, kind or message are refused by name") {
  auto frame = encode(ServerMessage(Grant{1}));
  frame[0] = std::byte{9};
  CHECK(test::error_of([&] { decode_from_server(frame); }).find("version 9") != std::string::npos);
  frame = encode(ServerMessage(Grant{1}));
  frame[1] = std::byte{5};
  CHECK(test::code_of([&] { decode_from_server(frame); }) == Errc::protocol);
  frame = encode(ServerMessage(Grant{1}));
  frame[2] = std::byte{200};
  CHECK(test::error_of([&] { decode_from_server(frame); }).find("unknown message 200") != std::string::npos);
}

TEST_CASE("a message has one encoding: spare bytes that are set and the other byte order are refused") {
  const std::vector<std::byte> sound = encode(ServerMessage(Grant{1}));
  for (const std::size_t place : {3, 4}) {
    std::vector<std::byte> frame = sound;
    frame[place] ^= std::byte{1};
    CHECK(test::code_of([&] { decode_from_server(frame); }) == Errc::protocol);
  }
  const ChunkHead head = encode_chunk_head(1, 2);
  std::vector<std::byte> chunk(head.begin(), head.end());
  chunk.push_back(std::byte{42});
  CHECK_NOTHROW(decode_from_server(chunk));
  for (const std::size_t place : {2, 3}) {
    std::vector<std::byte> frame = chunk;
    frame[place] = std::byte{1};
    CHECK(test::code_of([&] { decode_from_server(frame); }) == Errc::protocol);
  }
}

TEST_CASE("a yes or no that is neither is refused") {
  std::vector<std::byte> frame = encode(ServerMessage(TrainTask{1, 2, "digest", true}));
  REQUIRE(frame.back() == std::byte{1});
  CHECK(std::get<TrainTask>(std::get<ServerMessage>(decode_from_server(frame))).model_follows);
  frame.back() = std::byte{2};
  CHECK(test::code_of([&] { decode_from_server(frame); }) == Errc::protocol);
}

TEST_CASE("numbers that no client would send are refused") {
  using Counts = std::vector<std::uint64_t>;
  EvaluationReport report;
  const auto is_refused = [&report](Counts correct, Counts total, Counts predicted) {
    report.correct = std::move(correct);
    report.total = std::move(total);
    report.predicted = std::move(predicted);
    return test::code_of([&] { decode_from_client(encode(ClientMessage(report))); }) == Errc::protocol;
  };
  CHECK(is_refused({5, 0}, {4, 4}, {6, 2}));  // more right than there are
  CHECK(is_refused({5, 0}, {6, 2}, {4, 4}));  // more right than predicted
  CHECK(is_refused({5}, {6, 6}, {6, 6}));
  CHECK(is_refused({5}, {6}, {3, 3}));
  CHECK(is_refused({2, 2}, {3, 3}, {3, 4}));  // more predictions than samples
  CHECK_FALSE(is_refused({2, 2}, {3, 3}, {2, 4}));
  for (const double loss : {-1.0, std::numeric_limits<double>::quiet_NaN()}) {
    report.loss_sum = loss;
    CHECK(is_refused({2, 2}, {3, 3}, {2, 4}));
  }
  report.loss_sum = std::numeric_limits<double>::infinity();  // of a model that diverged
  CHECK_FALSE(is_refused({2, 2}, {3, 3}, {2, 4}));
  CHECK(is_refused({0, 0}, {0, 0}, {0, 0}));
  CHECK(test::code_of([&] {
          decode_from_client(encode(ClientMessage(PretrainDone{1, false, NAN, 1, 1})));
        }) == Errc::protocol);
}

TEST_CASE("chunks carry 64-bit offsets") {
  const std::uint64_t offset = (std::uint64_t{5} << 30) + 3;
  const ChunkHead head = encode_chunk_head(7, offset);
  std::vector<std::byte> frame(head.begin(), head.end());
  CHECK(test::code_of([&] { decode_from_client(frame); }) == Errc::protocol);
  frame.push_back(std::byte{42});
  const auto decoded = decode_from_client(frame);
  REQUIRE(std::holds_alternative<Chunk>(decoded));
  const Chunk& chunk = std::get<Chunk>(decoded);
  CHECK(chunk.attachment == 7);
  CHECK(chunk.offset == offset);
  CHECK(chunk.data.size() == 1);
  frame.resize(chunk_head_bytes + max_chunk_bytes + 1);
  CHECK(test::code_of([&] { decode_from_client(frame); }) == Errc::protocol);
}

TEST_CASE("5 GB of chunks through one fixed buffer: every offset arrives") {
  std::vector<std::byte> frame(chunk_head_bytes + max_chunk_bytes);
  const std::uint64_t total = std::uint64_t{5} << 30;
  std::uint64_t received = 0;
  while (received < total) {
    const ChunkHead head = encode_chunk_head(1, received);
    std::memcpy(frame.data(), head.data(), head.size());
    const auto decoded = decode_from_server(frame);
    const Chunk& chunk = std::get<Chunk>(decoded);
    REQUIRE(chunk.offset == received);
    received += chunk.data.size();
  }
  CHECK(received == total);
}

}  // namespace
}  // namespace headstart::wire
