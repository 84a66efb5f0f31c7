// A frame of a peer. Promised: what is accepted is byte for byte what its content encodes to.
#include <algorithm>

#include "shared/wire/codec.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace headstart::wire {
namespace {

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
  fuzz::require(std::ranges::equal(encode(std::get<Message>(decoded)), frame), "a message is what it encodes to");
}

}  // namespace
}  // namespace headstart::wire

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace headstart;
  const auto frame = fuzz::bytes_of(data, size);
  fuzz::is_refused([&] { wire::check(wire::decode_from_client(frame), frame); });
  fuzz::is_refused([&] { wire::check(wire::decode_from_server(frame), frame); });
  return 0;
}
