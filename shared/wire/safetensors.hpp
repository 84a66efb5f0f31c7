// Models on disk: the safetensors format, as Python's `safetensors` reads and writes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <map>
#include <string>

#include "shared/wire/packed_state.hpp"

namespace headstart::wire {

using Metadata = std::map<std::string, std::string>;

struct ModelFile {
  PackedState model;
  Metadata metadata;
};

/// What stands before the tensors' bytes: the header and its length.
std::string safetensors_head(const PackedState& model, const Metadata& metadata = {});
/// Written atomically. Throws Error(storage).
void save_safetensors(const std::filesystem::path& file, const PackedState& model, const Metadata& metadata = {});

/// Reads a model of the next `size` bytes of the stream, with any order of tensors; `name` tells what it is. Does not
/// seek.
/// Throws Error(data) naming it and the fault: header length above 64 MiB or the file, header that is no JSON of the
/// format, unsupported type, a tensor whose bytes do not match its shape, overlap or gap, a truncated file. Allocates
/// tensors no larger than `size`, and what the JSON of the header takes.
ModelFile read_safetensors(std::istream& in, std::uint64_t size, const std::string& name);
/// Throws as read_safetensors() does, or where the file cannot be read.
ModelFile load_safetensors(const std::filesystem::path& file);

}  // namespace headstart::wire
