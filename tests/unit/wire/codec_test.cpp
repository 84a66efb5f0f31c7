#include "shared/wire/codec.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "shared/base/files.hpp"
#include "tests/support/throws.hpp"

namespace headstart::wire {
namespace {

/// As tests/golden/frames.py has them.
template <class Message>
using Named = std::vector<std::pair<std::string, Message>>;

Named<ClientMessage> client_golden() {
  Join join;
  join.num_examples = 540;
  join.num_held_out = 60;
  join.num_classes = 10;
  join.shape = {{1, 28, 28}};
  join.schema = std::string(64, 'a');
  join.architecture = "cnn channels=32,64";
  join.own_model = R"({"model": {}})";
  join.own_architecture = "resnet18 width=64";
  join.shares_with_peers = true;
  return {{"Hello", Hello{8, "silo-0", "demo", false, 7, {{"train", "evaluate"}}}},
          {"Join", join},
          {"ProgressReport", ProgressReport{3, 10, 20}},
          {"Fetch", Fetch{3, {{0, 2}}}},
          {"Result", Result{3, R"({"seconds":12.5})", 900'136}},
          {"TaskFailed", TaskFailed{9, Failure::memory}},
          {"Attachment", Attachment{0, 900'136}}};
}

Named<ServerMessage> server_golden() {
  return {{"Welcome", Welcome{8, R"({"run": {"seed": 1}})", 1'767'225'600'125, 45'000}},
          {"Joined", Joined{3, 10}},
          {"Refused", Refused{"full", true}},
          {"Grant", Grant{3}},
          {"ResultRefused", ResultRefused{3, "NaN"}},
          {"Finished", Finished{"done", false}},
          {"Attachment", Attachment{0, 1}},
          {"Notice", Notice{"another one came"}},
          {"Task", Task{3, "train", R"({"counted_round":6,"round":7})", 1, true}},
          {"Input", Input{"model", std::string(64, 'b'), "silo-2", "{}"}}};
}

PeerHello peer_hello() {
  return {.newest = 1,
          .oldest = 1,
          .name = "silo-0",
          .software = "demo",
          .is_check = false,
          .rounds_done = 12,
          .sections = {{"model", "seed"}},
          .digests = {{std::string(64, 'b'), std::string(64, 'c')}}};
}

Named<PeerMessage> peer_golden() {
  return {{"PeerHello", peer_hello()},
          {"PeerRefused", PeerRefused{"its seed differs"}},
          {"Ready", Ready{13, 900'136, std::string(64, 'a')}},
          {"Pull", Pull{13}},
          {"Gone", Gone{11}},
          {"Done", Done{}},
          {"Attachment", Attachment{0, 900'136}}};
}

template <class Message>
std::vector<Message> messages_of(const Named<Message>& named) {
  std::vector<Message> messages;
  for (const auto& [name, message] : named) messages.push_back(message);
  return messages;
}
std::vector<ClientMessage> client_examples() { return messages_of(client_golden()); }
std::vector<ServerMessage> server_examples() { return messages_of(server_golden()); }
std::vector<PeerMessage> peer_examples() { return messages_of(peer_golden()); }

std::string hex_of(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    text += fmt::format("{}{:02x}", text.empty() ? "" : " ", std::to_integer<unsigned>(byte));
  }
  return text;
}

std::vector<std::byte> bytes_of(const std::string& hex) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 3) {
    bytes.push_back(static_cast<std::byte>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

nlohmann::json golden() { return read_json("tests/golden/frames.json"); }

/// Each message of `named` is the golden frame of its name, both ways.
template <class Message, class Decode>
void check_golden(const Named<Message>& named, const nlohmann::json& frames, Decode decode) {
  CHECK(named.size() == std::variant_size_v<Message>);
  for (const auto& [name, message] : named) {
    CAPTURE(name);
    const std::string expected = frames.at(name);
    CHECK(hex_of(encode(message)) == expected);
    const auto decoded = decode(bytes_of(expected));
    REQUIRE(std::holds_alternative<Message>(decoded));
    CHECK(std::get<Message>(decoded).index() == message.index());
    CHECK(hex_of(encode(std::get<Message>(decoded))) == expected);
  }
}

TEST_CASE("golden frames: each message has the id and the bytes that were agreed, both ways") {
  const nlohmann::json frames = golden();
  check_golden(client_golden(), frames.at("client"), [](const auto& frame) { return decode_from_client(frame); });
  check_golden(server_golden(), frames.at("server"), [](const auto& frame) { return decode_from_server(frame); });
  check_golden(peer_golden(), frames.at("peer"), [](const auto& frame) { return decode_from_peer(frame); });
  CHECK(hex_of(encode(PeerMessage(Ready{13}))) == frames.at("peer").at("Ready without a message"));
  const std::vector<std::byte> frame = bytes_of(frames.at("chunk"));
  const Chunk chunk = std::get<Chunk>(decode_from_server(frame));
  CHECK(chunk.attachment == 7);
  CHECK(chunk.offset == (std::uint64_t{5} << 30) + 3);
  CHECK(hex_of(encode_chunk_head(chunk.attachment, chunk.offset)) == hex_of(std::span(frame).first(chunk_head_bytes)));
}

/// What stands in code blocks of the protocol's description under `heading`.
std::string shown_under(const std::string& heading) {
  std::string shown;
  bool is_inside = false;
  const std::string readme = read_text("shared/wire/README.md");
  const std::size_t begin = readme.find("### " + heading + "\n");
  REQUIRE(begin != std::string::npos);
  std::istringstream lines(readme.substr(begin, readme.find("\n## ", begin) - begin));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("```")) {
      is_inside = !is_inside;
    } else if (is_inside) {
      shown += shown.empty() ? line : " " + line;
    }
  }
  return shown;
}

TEST_CASE("the examples of the protocol's description are golden frames, all of them") {
  for (const auto& [heading, key] :
       {std::pair("Examples", "readme"), std::pair("Examples of peers", "readme of peers")}) {
    std::string expected;
    const nlohmann::json examples = golden().at(key);
    for (const std::string frame : examples) expected += expected.empty() ? frame : " " + frame;
    CHECK(shown_under(heading) == expected);
  }
}

template <class... Messages>
struct BackToFront;
template <class First, class... Others, class... Done>
struct BackToFront<Table<First, Others...>, Done...> : BackToFront<Table<Others...>, First, Done...> {};
template <class... Done>
struct BackToFront<Table<>, Done...> {
  using type = Table<Done...>;
};

TEST_CASE("a message has its id wherever its row stands") {
  using Rows = Table<Row<Grant, 8>, Row<Result, 5>, Row<Joined, 200>>;
  using Reversed = BackToFront<Rows>::type;
  CHECK(Rows::ids[Rows::Message(Result{}).index()] == 5);
  CHECK(Reversed::ids[Reversed::Message(Joined{}).index()] == 200);
  CHECK(Reversed::ids[Reversed::Message(Grant{}).index()] == 8);
  static_assert(!Table<Row<Grant, 1>, Row<Result, 1>>::has_distinct_ids());
}

TEST_CASE("a Hello of every version can be read: of one before 7 its number, of a later one what version 7 has") {
  const nlohmann::json frames = golden().at("client");
  const auto hello_in = [](const std::vector<std::byte>& frame) {
    return std::get<Hello>(std::get<ClientMessage>(decode_from_client(frame)));
  };
  const Hello old = hello_in(bytes_of(frames.at("Hello of version 6")));
  CHECK(words_of(old.versions()) == "version 6");
  CHECK(old.name.value.empty());
  CHECK_FALSE(common_version(old.versions(), spoken_versions).has_value());

  std::vector<std::byte> frame = bytes_of(frames.at("Hello of versions 7 to 9"));
  const Hello later = hello_in(frame);
  CHECK(words_of(later.versions()) == "versions 7 to 9");
  CHECK(later.name.value == "silo-0");
  CHECK(later.is_check);
  const bool has_both = later.tasks.values == std::vector<TaskName>{"train", "later"};
  CHECK(has_both);
  CHECK(common_version(later.versions(), spoken_versions) == 8);

  // Of this version nothing may follow, and no range ends before it begins.
  frame[5] = std::byte{8};
  CHECK(test::error_of(Errc::protocol, [&] { hello_in(frame); }).find("longer than its message") != std::string::npos);
  const auto reversed = encode(ClientMessage(Hello{8, "silo-0", "demo", false, 9}));
  CHECK(test::error_of(Errc::protocol, [&] { hello_in(reversed); }).find("from 9 to 8") != std::string::npos);
}

TEST_CASE("a PeerHello of a later version has what this one has, and what follows is not read") {
  const auto hello_in = [](const std::vector<std::byte>& frame) {
    return std::get<PeerHello>(std::get<PeerMessage>(decode_from_peer(frame)));
  };
  std::vector<std::byte> frame = bytes_of(golden().at("peer").at("PeerHello of versions 1 to 3"));
  const PeerHello later = hello_in(frame);
  CHECK(words_of(later.versions()) == "versions 1 to 3");
  CHECK(common_version(later.versions(), spoken_peer_versions) == 1);
  CHECK(later.name.value == "silo-0");
  CHECK(later.rounds_done == 12);
  CHECK(later.digests.values.back().value == std::string(64, 'c'));

  // Of this version nothing may follow, and of none may anything be missing.
  frame[5] = std::byte{1};
  CHECK(test::error_of(Errc::protocol, [&] { hello_in(frame); }).find("longer than its message") != std::string::npos);
  frame = encode(PeerMessage(peer_hello()));
  frame[5] = std::byte{3};
  frame.pop_back();
  CHECK(test::code_of([&] { hello_in(frame); }) == Errc::protocol);
}

TEST_CASE("what no peer would say is refused: sections without digests, a range that ends before it begins") {
  const auto refusal_of = [](const PeerMessage& message) {
    const auto frame = encode(message);
    return test::error_of(Errc::protocol, [&] { decode_from_peer(frame); });
  };
  PeerHello hello = peer_hello();
  hello.digests.values.pop_back();
  CHECK(refusal_of(hello) == "a peer that names 2 sections and 1 digests");
  hello.sections.values.clear();
  CHECK(refusal_of(hello) == "a peer that names 0 sections and 1 digests");
  hello.digests.values.clear();
  CHECK_NOTHROW(decode_from_peer(encode(PeerMessage(hello))));
  hello.oldest = 2;
  CHECK(refusal_of(hello) == "a peer that speaks protocol versions from 2 to 1");
  // Of a later version too: what this one knows of it must be sound.
  hello = peer_hello();
  hello.newest = 3;
  hello.digests.values.pop_back();
  CHECK(refusal_of(hello) == "a peer that names 2 sections and 1 digests");
}

TEST_CASE("a message of a round has bytes and a digest, or neither") {
  const auto refusal_of = [](const Ready& ready) {
    const auto frame = encode(PeerMessage(ready));
    return test::error_of(Errc::protocol, [&] { decode_from_peer(frame); });
  };
  CHECK(refusal_of({5, 900'136, ""}) == "a peer whose message of round 5 has 900136 bytes and no digest");
  CHECK(refusal_of({5, 0, std::string(64, 'a')}) == "a peer whose message of round 5 has 0 bytes and a digest");
}

TEST_CASE("the version of a conversation is the newest that both sides speak") {
  CHECK(common_version({6, 9}, {4, 7}) == 7);
  CHECK(common_version({4, 7}, {6, 9}) == 7);
  CHECK(common_version({6, 6}, {6, 6}) == 6);
  CHECK(common_version({5, 9}, {6, 6}) == 6);
  CHECK_FALSE(common_version({7, 9}, {6, 6}).has_value());
  CHECK_FALSE(common_version({1, 5}, {6, 6}).has_value());
  for (const std::uint16_t chosen : {std::uint16_t{6}, std::uint16_t{9}}) {
    const auto frame = encode(ServerMessage(Welcome{chosen, "{}", 0, 30'000}));
    CHECK(test::error_of(Errc::protocol, [&] { decode_from_server(frame); }) ==
          fmt::format("the server chose protocol version {}; this client speaks versions 7 to 8", chosen));
  }
}

template <class Message, class Decode>
void check_survival(const std::vector<Message>& examples, Decode decode) {
  CHECK(examples.size() == std::variant_size_v<Message>);
  for (const Message& message : examples) {
    const auto frame = encode(message);
    const auto decoded = decode(frame);
    REQUIRE(std::holds_alternative<Message>(decoded));
    CHECK(std::get<Message>(decoded).index() == message.index());
    const bool is_same = encode(std::get<Message>(decoded)) == frame;
    CHECK(is_same);
  }
}

TEST_CASE("every message survives its frame, and its frame's bytes are the same again") {
  check_survival(client_examples(), [](const auto& frame) { return decode_from_client(frame); });
  check_survival(server_examples(), [](const auto& frame) { return decode_from_server(frame); });
  check_survival(peer_examples(), [](const auto& frame) { return decode_from_peer(frame); });
}

TEST_CASE("a message's fields arrive as they were sent") {
  const auto frame = encode(client_examples()[1]);
  const auto join = std::get<Join>(std::get<ClientMessage>(decode_from_client(frame)));
  CHECK(join.num_examples == 540);
  CHECK(join.architecture.value == "cnn channels=32,64");
  CHECK(join.schema.value == std::string(64, 'a'));
}

template <class Message, class Decode>
void check_lengths(const std::vector<Message>& examples, Decode decode) {
  for (const Message& message : examples) {
    auto frame = encode(message);
    for (std::size_t length = 0; length < frame.size(); ++length) {
      CHECK(test::code_of([&] { decode(std::span<const std::byte>(frame).first(length)); }) == Errc::protocol);
    }
    frame.push_back(std::byte{0});
    CHECK(test::code_of([&] { decode(frame); }) == Errc::protocol);
  }
}

TEST_CASE("every truncation of every message is refused, and so is a byte too many") {
  check_lengths(client_examples(), [](std::span<const std::byte> frame) { return decode_from_client(frame); });
  check_lengths(peer_examples(), [](std::span<const std::byte> frame) { return decode_from_peer(frame); });
}

TEST_CASE("flipped bits are refused or read as another message, never more") {
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    auto frame = encode(client_examples()[random() % client_examples().size()]);
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
  CHECK(test::error_of(Errc::protocol, [&] {
          decode_from_server(frame);
        }).starts_with("unknown message 200 from the server"));
  CHECK(test::error_of(Errc::protocol, [&] {
          decode_from_client(frame);
        }).starts_with("unknown message 200 from the client"));
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
  std::vector<std::byte> frame = encode(ServerMessage(Task{1, "train", {}, 1, true}));
  REQUIRE(frame.back() == std::byte{1});
  CHECK(std::get<Task>(std::get<ServerMessage>(decode_from_server(frame))).keeps_inputs);
  frame.back() = std::byte{2};
  CHECK(test::code_of([&] { decode_from_server(frame); }) == Errc::protocol);
}

TEST_CASE("what no peer of ours would say is refused: an input fetched twice, none fetched, too many inputs") {
  const auto is_refused = [](std::vector<std::uint16_t> inputs) {
    const auto frame = encode(ClientMessage(Fetch{1, {std::move(inputs)}}));
    return test::code_of([&] { decode_from_client(frame); }) == Errc::protocol;
  };
  CHECK(is_refused({}));
  CHECK(is_refused({2, 0, 2}));
  CHECK_FALSE(is_refused({2, 0, 1}));
  Task task{1, "distill", {}, static_cast<std::uint16_t>(max_inputs), true};
  CHECK_NOTHROW(decode_from_server(encode(ServerMessage(task))));
  ++task.num_inputs;
  CHECK(test::error_of(Errc::protocol, [&] { decode_from_server(encode(ServerMessage(task))); }).find("513 inputs") !=
        std::string::npos);
}

TEST_CASE("a chunk in two parts is the one of its frame, and what is no sound chunk is none") {
  const ChunkHead head = encode_chunk_head(7, (std::uint64_t{5} << 30) + 3);
  const std::vector<std::byte> data(max_chunk_bytes + 1, std::byte{42});
  const std::optional<Chunk> chunk = chunk_of(head, std::span(data).first(9));
  REQUIRE(chunk);
  CHECK(chunk->attachment == 7);
  CHECK(chunk->offset == (std::uint64_t{5} << 30) + 3);
  CHECK(chunk->data.data() == data.data());
  CHECK(chunk->data.size() == 9);
  CHECK_FALSE(chunk_of(head, {}));
  CHECK_FALSE(chunk_of(head, data));
  CHECK_FALSE(chunk_of(std::span(head).first(chunk_head_bytes - 1), data));
  for (std::size_t i = 0; i < 4; ++i) {
    ChunkHead other = head;
    other[i] ^= std::byte{1};
    CHECK_FALSE(chunk_of(other, std::span(data).first(9)));
  }
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
