// Frames of the conversation with a silo's own process: a JSON header and a safetensors body (README.md beside this
// file). Knows no process and no socket.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "shared/wire/packed_state.hpp"

namespace headstart::worker_process {

inline constexpr std::int64_t worker_protocol = 1;
inline constexpr std::uint32_t max_frame_header_bytes = 4U << 20U;

struct FrameHead {
  nlohmann::json header;  ///< An object with the text `type`.
  std::uint64_t num_body_bytes = 0;

  [[nodiscard]] std::string type() const { return header.at("type").get<std::string>(); }
};

/// The bytes before the body: mark, both lengths and the header.
std::string frame_prefix(const nlohmann::json& header, std::uint64_t num_body_bytes);

/// Reads all that stands before the body. Throws Error(protocol) for another mark, a header beyond its bound, one that
/// is no JSON object or has no `type`, or where the stream ends; what the stream throws passes through.
FrameHead read_frame_head(std::istream& in);

/// Reads the body as a state of `schema`. Throws Error(protocol) where there is none, where it is larger than such a
/// state can be, no safetensors file, or of another schema (naming the first difference).
wire::PackedState read_frame_state(std::istream& in, const FrameHead& head, const learn::Schema& schema);
/// Reads the body as one tensor of that name, of any shape and at most `max_bytes`. Throws Error(protocol) likewise.
learn::Tensor read_frame_tensor(std::istream& in, const FrameHead& head, const std::string& name,
                                std::uint64_t max_bytes);

/// Values of a header. Throw Error(protocol), naming message and key, where it is missing or of another kind.
std::int64_t integer_in(const nlohmann::json& header, const std::string& key, std::int64_t least);
std::string text_in(const nlohmann::json& header, const std::string& key);
/// Empty where the key is missing.
std::vector<std::string> texts_in(const nlohmann::json& header, const std::string& key);

/// The model of a `joined`: its list of tensors. Throws Error(protocol), naming the place in the list.
learn::Schema schema_in(const nlohmann::json& header, const std::string& key);

}  // namespace headstart::worker_process
