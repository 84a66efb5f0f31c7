// A frame of a client, a server or a peer. Promised: what is accepted is byte for byte what its content encodes to, but
// for the other side's words, in which each byte that cannot be shown became a '?' or a blank, and for what follows in
// a greeting of another version; all words of a message are printable, and a peer's greeting has a digest a section.
#include <algorithm>

#include "shared/wire/codec.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace headstart::wire {
namespace {

/// Looks at each member of a message, as an archive would.
struct Reader {
  template <class... Members>
  void operator()(const Members&... members) const {
    (look_at(members), ...);
  }
  template <std::size_t Max>
  static void look_at(const Text<Max>& text) {
    fuzz::require(is_printable(text.value) && text.value.size() <= Max, "words are printable and bounded");
  }
  template <class T, std::size_t Max>
  static void look_at(const List<T, Max>& list) {
    fuzz::require(list.values.size() <= Max, "lists are bounded");
    for (const T& value : list.values) look_at(value);
  }
  template <class Other>
  static void look_at(const Other&) {}
};

/// Whether `encoded` is `frame` with other bytes only where a byte of words was replaced.
bool is_same_but_for_words(std::span<const std::byte> encoded, std::span<const std::byte> frame) {
  const auto is_replaced = [](std::byte byte) { return byte == std::byte{'?'} || byte == std::byte{' '}; };
  return std::ranges::equal(encoded, frame,
                            [&](std::byte to, std::byte from) { return to == from || is_replaced(to); });
}

bool is_of_another_version(const Hello& hello) { return hello.newest != protocol_version; }
bool is_of_another_version(const PeerHello& hello) { return hello.newest != peer_protocol_version; }
template <class Other>
bool is_of_another_version(const Other&) {
  return false;
}

void check_content(const PeerHello& hello) {
  fuzz::require(hello.sections.values.size() == hello.digests.values.size(), "each section has a digest");
}
void check_content(const Ready& ready) {
  fuzz::require((ready.num_bytes == 0) == ready.digest.value.empty(), "bytes have a digest, and no bytes have none");
}
template <class Other>
void check_content(const Other&) {}

template <class Message>
void check(const std::variant<Message, Chunk>& decoded, std::span<const std::byte> frame) {
  if (const auto* chunk = std::get_if<Chunk>(&decoded)) {
    const ChunkHead head = encode_chunk_head(chunk->attachment, chunk->offset);
    fuzz::require(std::ranges::equal(head, frame.first(chunk_head_bytes)), "a chunk's head is what it encodes to");
    fuzz::require(
        chunk->data.data() == frame.data() + chunk_head_bytes && chunk->data.size() == frame.size() - chunk_head_bytes,
        "a chunk's data is the rest of its frame");
    return;
  }
  Message message = std::get<Message>(decoded);
  const auto encoded = encode(message);
  const bool may_go_on = std::visit([](const auto& m) { return is_of_another_version(m); }, message);
  const std::size_t num_read = may_go_on ? std::min(encoded.size(), frame.size()) : frame.size();
  fuzz::require(is_same_but_for_words(encoded, frame.first(num_read)),
                "a message is what it encodes to, but for its words");
  Reader reader;
  std::visit(
      [&reader](auto& m) {
        m.serialize(reader);
        check_content(m);
      },
      message);
}

}  // namespace
}  // namespace headstart::wire

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace headstart;
  const auto frame = fuzz::bytes_of(data, size);
  fuzz::is_refused([&] { wire::check(wire::decode_from_client(frame), frame); });
  fuzz::is_refused([&] { wire::check(wire::decode_from_server(frame), frame); });
  fuzz::is_refused([&] { wire::check(wire::decode_from_peer(frame), frame); });
  return 0;
}
