#include "shared/wire/codec.hpp"

#include <algorithm>
#include <istream>
#include <ostream>
#include <streambuf>

namespace headstart::wire {

static_assert(!cereal::traits::is_output_serializable<std::string, OutputArchive>::value,
              "messages carry bounded text only");
static_assert(!cereal::traits::is_output_serializable<std::vector<int>, OutputArchive>::value,
              "messages carry bounded lists only");

namespace {

constexpr std::byte frame_version{1};
constexpr std::byte control_kind{0};
constexpr std::byte chunk_kind{1};
constexpr std::size_t control_head_bytes = 4;
/// The first byte that cereal's portable archive writes.
constexpr std::byte little_endian_mark{1};

/// Reads from a span and tells how much of it is left.
class SpanReader final : public std::streambuf, public BytesLeft {
 public:
  explicit SpanReader(std::span<const std::byte> bytes) {
    // streambuf wants mutable characters; nothing here writes through them.
    char* begin = const_cast<char*>(reinterpret_cast<const char*>(bytes.data()));
    setg(begin, begin, begin + bytes.size());
  }
  [[nodiscard]] std::size_t bytes_left() const override { return static_cast<std::size_t>(egptr() - gptr()); }
};

class VectorWriter final : public std::streambuf {
 public:
  explicit VectorWriter(std::vector<std::byte>& out) : out_(out) {}

 protected:
  int_type overflow(int_type c) override {
    out_.push_back(static_cast<std::byte>(c));
    return c;
  }
  std::streamsize xsputn(const char* data, std::streamsize count) override {
    const auto* bytes = reinterpret_cast<const std::byte*>(data);
    out_.insert(out_.end(), bytes, bytes + count);
    return count;
  }

 private:
  std::vector<std::byte>& out_;
};

template <class Table>
std::vector<std::byte> encode_control(const typename Table::Message& message) {
  const auto id = static_cast<std::byte>(Table::ids[message.index()]);
  std::vector<std::byte> frame{frame_version, control_kind, id, std::byte{0}};
  VectorWriter buffer(frame);
  std::ostream stream(&buffer);
  OutputArchive archive(stream);
  // cereal's serialize() is one function for both directions and so not const; saving changes nothing.
  std::visit([&](const auto& m) { archive(m); }, message);
  if (frame.size() > max_control_bytes) {
    throw Error(Errc::internal, "a control message of " + std::to_string(frame.size()) + " bytes; at most " +
                                    std::to_string(max_control_bytes) + " fit a frame");
  }
  return frame;
}

/// Makes `message` the one of this id. Throws Error(protocol) where that side has none.
template <class Table, std::size_t I = 0>
void emplace_by_id(typename Table::Message& message, std::uint8_t id) {
  if constexpr (I < Table::ids.size()) {
    if (id == Table::ids[I]) {
      message.template emplace<I>();
    } else {
      emplace_by_id<Table, I + 1>(message, id);
    }
  } else {
    throw Error(Errc::protocol, "unknown message " + std::to_string(id) + " from the " + std::string(Table::side) +
                                    "; is it of another version?");
  }
}

void check_values(const Hello& hello) {
  if (const Versions range = hello.versions(); range.oldest > range.newest) {
    throw Error(Errc::protocol, "a client that speaks protocol versions from " + std::to_string(range.oldest) + " to " +
                                    std::to_string(range.newest));
  }
}

void check_values(const Welcome& welcome) {
  if (!spoken_versions.contains(welcome.protocol)) {
    throw Error(Errc::protocol, "the server chose protocol version " + std::to_string(welcome.protocol) +
                                    "; this client speaks " + words_of(spoken_versions));
  }
}

void check_values(const Fetch& fetch) {
  std::vector<std::uint16_t> places = fetch.inputs.values;
  std::ranges::sort(places);
  if (places.empty() || std::ranges::adjacent_find(places) != places.end()) {
    throw Error(Errc::protocol, "a client that fetches nothing, or an input twice");
  }
}

void check_values(const Task& task) {
  if (task.num_inputs > max_inputs) {
    throw Error(Errc::protocol, "a task of " + std::to_string(task.num_inputs) + " inputs; at most " +
                                    std::to_string(max_inputs) + " are allowed");
  }
}

void check_values(const TaskFailed& failed) {
  if (failed.failure > last_failure) {
    throw Error(Errc::protocol, "a failed task of unknown kind " + std::to_string(static_cast<int>(failed.failure)));
  }
}

void check_values(const PeerHello& hello) {
  if (const Versions range = hello.versions(); range.oldest > range.newest) {
    throw Error(Errc::protocol, "a peer that speaks protocol versions from " + std::to_string(range.oldest) + " to " +
                                    std::to_string(range.newest));
  }
  if (hello.sections.values.size() != hello.digests.values.size()) {
    throw Error(Errc::protocol, "a peer that names " + std::to_string(hello.sections.values.size()) + " sections and " +
                                    std::to_string(hello.digests.values.size()) + " digests");
  }
}

void check_values(const Ready& ready) {
  if ((ready.num_bytes == 0) != ready.digest.value.empty()) {
    throw Error(Errc::protocol, "a peer whose message of round " + std::to_string(ready.round) + " has " +
                                    std::to_string(ready.num_bytes) + " bytes and " +
                                    (ready.digest.value.empty() ? "no" : "a") + " digest");
  }
}

template <class Message>
void check_values(const Message&) {}

/// Whether what follows the fields that this program knows is another version's.
template <class Message>
bool may_go_on(const Message&) {
  return false;
}
bool may_go_on(const Hello& hello) { return hello.newest != protocol_version; }
bool may_go_on(const PeerHello& hello) { return hello.newest != peer_protocol_version; }

template <class Table>
typename Table::Message decode_control(std::span<const std::byte> frame) {
  if (frame.size() > max_control_bytes) {
    throw Error(Errc::protocol, "a control frame of " + std::to_string(frame.size()) + " bytes; at most " +
                                    std::to_string(max_control_bytes) + " are allowed");
  }
  if (frame[3] != std::byte{0}) throw Error(Errc::protocol, "a frame whose spare byte is not 0");
  // cereal would turn the other byte order round, and then a message would have two encodings.
  if (frame.size() > control_head_bytes && frame[control_head_bytes] != little_endian_mark) {
    throw Error(Errc::protocol, "a control frame that is not little-endian");
  }
  typename Table::Message message;
  emplace_by_id<Table>(message, std::to_integer<std::uint8_t>(frame[2]));
  SpanReader reader(frame.subspan(control_head_bytes));
  std::istream stream(&reader);
  try {
    InputArchive archive(reader, stream);
    std::visit(
        [&](auto& m) {
          archive(m);
          check_values(m);
        },
        message);
  } catch (const cereal::Exception&) {
    throw Error(Errc::protocol, "a control frame ends in the middle of its message");
  }
  const bool is_whole = reader.bytes_left() == 0 || std::visit([](const auto& m) { return may_go_on(m); }, message);
  if (!is_whole) throw Error(Errc::protocol, "a control frame is longer than its message");
  return message;
}

template <class Integer>
void store(std::byte* to, Integer value) {
  for (std::size_t i = 0; i < sizeof(Integer); ++i) to[i] = static_cast<std::byte>(value >> (8 * i));
}

template <class Integer>
Integer load(const std::byte* from) {
  Integer value = 0;
  for (std::size_t i = 0; i < sizeof(Integer); ++i) {
    value = static_cast<Integer>(value | (static_cast<Integer>(std::to_integer<std::uint8_t>(from[i])) << (8 * i)));
  }
  return value;
}

template <class Table>
std::variant<typename Table::Message, Chunk> decode(std::span<const std::byte> frame) {
  if (frame.size() < control_head_bytes) throw Error(Errc::protocol, "a frame shorter than its head");
  if (frame[0] != frame_version) {
    throw Error(Errc::protocol, "a frame of version " + std::to_string(std::to_integer<int>(frame[0])) +
                                    "; this side speaks version " +
                                    std::to_string(std::to_integer<int>(frame_version)));
  }
  if (frame[1] == control_kind) return decode_control<Table>(frame);
  if (frame[1] != chunk_kind) throw Error(Errc::protocol, "a frame of unknown kind");
  if (frame[2] != std::byte{0} || frame[3] != std::byte{0}) {
    throw Error(Errc::protocol, "a frame whose spare bytes are not 0");
  }
  if (frame.size() <= chunk_head_bytes) throw Error(Errc::protocol, "a chunk without data");
  if (frame.size() > chunk_head_bytes + max_chunk_bytes) throw Error(Errc::protocol, "a chunk above 1 MiB");
  return Chunk{load<std::uint32_t>(&frame[4]), load<std::uint64_t>(&frame[8]), frame.subspan(chunk_head_bytes)};
}

}  // namespace

std::vector<std::byte> encode(const ClientMessage& message) { return encode_control<ClientTable>(message); }
std::vector<std::byte> encode(const ServerMessage& message) { return encode_control<ServerTable>(message); }
std::vector<std::byte> encode(const PeerMessage& message) { return encode_control<PeerTable>(message); }

std::optional<Chunk> chunk_of(std::span<const std::byte> head, std::span<const std::byte> data) {
  constexpr std::array kind{frame_version, chunk_kind, std::byte{0}, std::byte{0}};
  if (head.size() != chunk_head_bytes || !std::ranges::equal(head.first(kind.size()), kind)) return std::nullopt;
  if (data.empty() || data.size() > max_chunk_bytes) return std::nullopt;
  return Chunk{load<std::uint32_t>(&head[4]), load<std::uint64_t>(&head[8]), data};
}

ChunkHead encode_chunk_head(std::uint32_t attachment, std::uint64_t offset) {
  ChunkHead head{frame_version, chunk_kind};
  store(&head[4], attachment);
  store(&head[8], offset);
  return head;
}

std::variant<ClientMessage, Chunk> decode_from_client(std::span<const std::byte> frame) {
  return decode<ClientTable>(frame);
}
std::variant<ServerMessage, Chunk> decode_from_server(std::span<const std::byte> frame) {
  return decode<ServerTable>(frame);
}
std::variant<PeerMessage, Chunk> decode_from_peer(std::span<const std::byte> frame) { return decode<PeerTable>(frame); }

}  // namespace headstart::wire
