// Frames: the first bytes of every message on a channel, and the messages inside them.
//
//   control  [version u8][0 u8][message id u8][0 u8] then the message in cereal's portable binary form
//   chunk    [version u8][1 u8][0 u16][attachment id u32][offset u64], all little-endian, then raw tensor bytes
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "shared/wire/messages.hpp"
#include "shared/wire/peer_messages.hpp"

namespace headstart::wire {

inline constexpr std::size_t max_control_bytes = 64 * 1024;
inline constexpr std::size_t max_chunk_bytes = std::size_t{1} << 20;
inline constexpr std::size_t chunk_head_bytes = 16;

/// Throws Error(internal) where the frame would exceed max_control_bytes.
std::vector<std::byte> encode(const ClientMessage& message);
std::vector<std::byte> encode(const ServerMessage& message);
std::vector<std::byte> encode(const PeerMessage& message);

using ChunkHead = std::array<std::byte, chunk_head_bytes>;
ChunkHead encode_chunk_head(std::uint32_t attachment, std::uint64_t offset);

/// A view into the frame it was decoded from.
struct Chunk {
  std::uint32_t attachment = 0;
  std::uint64_t offset = 0;
  std::span<const std::byte> data;
};

/// The chunk in a frame that came in two parts, the head of chunk_head_bytes; empty where it is no sound chunk, of
/// which decode_from_client() and decode_from_server() say more.
std::optional<Chunk> chunk_of(std::span<const std::byte> head, std::span<const std::byte> data);

/// Decodes one frame. Throws Error(protocol): another version, an unknown kind or message, a length that lies, bytes
/// left over, a number that no message of ours would carry. What it accepts is what encode() makes of the result, byte
/// for byte; but of a Hello of another version that is the beginning, as what follows is not read. Allocates no more
/// than the frame's own size.
std::variant<ClientMessage, Chunk> decode_from_client(std::span<const std::byte> frame);
std::variant<ServerMessage, Chunk> decode_from_server(std::span<const std::byte> frame);
std::variant<PeerMessage, Chunk> decode_from_peer(std::span<const std::byte> frame);

}  // namespace headstart::wire
