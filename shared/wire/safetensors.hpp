// Models on disk: the safetensors format, as Python's `safetensors` reads and writes it.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "shared/wire/packed_state.hpp"

namespace headstart::wire {

using Metadata = std::map<std::string, std::string>;

struct ModelFile {
  PackedState model;
  Metadata metadata;
};

/// Written atomically. Throws Error(storage).
void save_safetensors(const std::filesystem::path& file, const PackedState& model, const Metadata& metadata = {});

/// Accepts any tensor order. Throws Error(data) naming file and fault: header length above 64 MiB or the file, header
/// that is no JSON of the format, unsupported type, a tensor whose bytes do not match its shape, overlap or gap,
/// a truncated file. Allocates no more than the file's size.
ModelFile load_safetensors(const std::filesystem::path& file);

}  // namespace headstart::wire
