#include "shared/wire/safetensors.hpp"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <map>
#include <system_error>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/wire/prefixed_states.hpp"

namespace headstart::wire {

namespace {

constexpr std::uint64_t max_header_bytes = 64U << 20U;
constexpr std::string_view metadata_key = "__metadata__";

struct Entry {
  learn::TensorSpec spec;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

class Reader {
 public:
  Reader(std::istream& in, std::uint64_t size, const std::string& name) : in_(in), size_(size), name_(name) {}

  ModelFile read() {
    const std::uint64_t header_bytes = read_header_length();
    std::vector<Entry> entries = read_header(header_bytes);
    const std::uint64_t data_start = 8 + header_bytes;
    std::ranges::sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
    check_layout(entries, size_ - data_start);
    std::vector<learn::TensorSpec> specs;
    for (const Entry& entry : entries) specs.push_back(entry.spec);
    result_.model = PackedState(learn::Schema(specs));
    std::map<std::string_view, void*> targets;
    for (const auto& [name, tensor] : result_.model.state().tensors()) targets.emplace(name, tensor.data_ptr());
    // One behind the other: the stream may be a socket.
    for (const Entry& entry : entries) {
      auto* target = static_cast<char*>(targets.at(entry.spec.name));
      if (entry.end > entry.begin) in_.read(target, static_cast<std::streamsize>(entry.end - entry.begin));
      if (!in_) fail(data_start + entry.begin, "ends before tensor '" + entry.spec.name + "' is complete");
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(std::uint64_t offset, const std::string& what) const {
    throw Error(Errc::data, fmt::format("{}: not a sound safetensors file: at byte {}: {}", name_, offset, what));
  }

  std::uint64_t read_header_length() {
    std::array<unsigned char, 8> bytes{};
    if (!in_.read(reinterpret_cast<char*>(bytes.data()), bytes.size())) fail(0, "no header length");
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < 8; ++i) length |= std::uint64_t{bytes[i]} << (8 * i);
    if (length > max_header_bytes || length > size_ - 8) {
      fail(0, fmt::format("header of {} bytes in a file of {}", length, size_));
    }
    return length;
  }

  std::vector<Entry> read_header(std::uint64_t header_bytes) {
    std::string text(header_bytes, '\0');
    if (!in_.read(text.data(), static_cast<std::streamsize>(text.size()))) fail(8, "header cut short");
    const nlohmann::json header = parse_header(text);
    try {
      if (!header.is_object()) fail(8, "the header is no JSON object");
      std::vector<Entry> entries;
      for (const auto& [name, value] : header.items()) {
        if (name == metadata_key) {
          result_.metadata = value.get<Metadata>();
        } else {
          entries.push_back(entry_of(name, value));
        }
      }
      return entries;
    } catch (const nlohmann::json::exception& error) {
      fail(8, std::string("header: ") + error.what());
    }
  }

  [[nodiscard]] nlohmann::json parse_header(const std::string& text) const {
    try {
      return parse_json(text, "header");
    } catch (const Error& error) {
      fail(8, error.what());
    }
  }

  /// json::get() would cut fractions off and turn negative numbers into large ones.
  static bool are_whole_numbers(const nlohmann::json& list) {
    return list.is_array() && std::ranges::all_of(list, [](const nlohmann::json& value) {
             return value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t{INT64_MAX};
           });
  }

  Entry entry_of(const std::string& name, const nlohmann::json& value) const {
    const auto dtype = learn::dtype_of(value.at("dtype").get<std::string>());
    if (!dtype) fail(8, "tensor '" + name + "' has the unsupported type " + value.at("dtype").dump());
    Entry entry{{name, *dtype, {}}, 0, 0};
    const nlohmann::json& shape = value.at("shape");
    const nlohmann::json& offsets = value.at("data_offsets");
    if (!are_whole_numbers(shape)) fail(8, "tensor '" + name + "' has an impossible shape");
    if (!are_whole_numbers(offsets) || offsets.size() != 2) fail(8, "tensor '" + name + "' has impossible offsets");
    entry.spec.shape = shape.get<std::vector<std::int64_t>>();
    entry.begin = offsets[0].get<std::uint64_t>();
    entry.end = offsets[1].get<std::uint64_t>();
    std::uint64_t elements = 1;
    for (const std::int64_t extent : entry.spec.shape) {
      if (extent > 0 && elements > size_ / static_cast<std::uint64_t>(extent)) {
        fail(8, "tensor '" + name + "' has an impossible shape");
      }
      elements *= static_cast<std::uint64_t>(extent);
    }
    if (entry.end < entry.begin || entry.spec.num_bytes() != entry.end - entry.begin) {
      fail(8, fmt::format("tensor '{}' needs {} bytes, its offsets span {}..{}", name, entry.spec.num_bytes(),
                          entry.begin, entry.end));
    }
    return entry;
  }

  /// `entries` in their order in the file.
  void check_layout(const std::vector<Entry>& entries, std::uint64_t data_bytes) const {
    std::uint64_t position = 0;
    for (const Entry& entry : entries) {
      if (entry.begin != position) fail(8, "tensor '" + entry.spec.name + "' overlaps another or leaves a gap");
      position = entry.end;
    }
    if (position != data_bytes) {
      fail(8, fmt::format("the header describes {} bytes of tensors, the file holds {}", position, data_bytes));
    }
  }

  std::istream& in_;
  std::uint64_t size_;
  const std::string& name_;
  ModelFile result_;
};

void add_tensors(nlohmann::ordered_json& header, const std::string& prefix, const PackedState& state,
                 std::uint64_t& offset) {
  const learn::Schema schema = state.state().schema();
  for (const learn::TensorSpec& spec : schema.tensors()) {
    header[prefix + spec.name] = {{"dtype", learn::dtype_name(spec.dtype)},
                                  {"shape", spec.shape},
                                  {"data_offsets", {offset, offset + spec.num_bytes()}}};
    offset += spec.num_bytes();
  }
}

std::string head_of(const nlohmann::ordered_json& header) {
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors start aligned, as the format recommends
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

}  // namespace

std::string safetensors_head(const PackedState& model, const Metadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[std::string(metadata_key)] = metadata;
  std::uint64_t offset = 0;
  add_tensors(header, "", model, offset);
  return head_of(header);
}

std::string safetensors_head(std::span<const PrefixedState> states) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::uint64_t offset = 0;
  for (const PrefixedState& part : states) add_tensors(header, part.prefix, *part.state, offset);
  return head_of(header);
}

void save_safetensors(const std::filesystem::path& file, const PackedState& model, const Metadata& metadata) {
  AtomicFile out(file);
  out.write(safetensors_head(model, metadata));
  out.write(model.bytes());
  out.commit();
}

ModelFile read_safetensors(std::istream& in, std::uint64_t size, const std::string& name) {
  return Reader(in, size, name).read();
}

ModelFile load_safetensors(const std::filesystem::path& file) {
  const std::uint64_t size = size_of_file(file, Errc::data);
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    throw Error(Errc::data,
                fmt::format("{}: cannot be read ({})", file.string(), std::generic_category().message(errno)));
  }
  return read_safetensors(in, size, file.string());
}

}  // namespace headstart::wire
