#include "shared/worker_process/frame.hpp"

#include <array>
#include <istream>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/printable.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::worker_process {

namespace {

constexpr std::string_view frame_mark = "HSW1";
constexpr std::size_t prefix_bytes = 16;
/// What the header of a safetensors file may take beside the tensors.
constexpr std::uint64_t body_slack = 1U << 20U;
constexpr std::uint64_t slack_per_tensor = 1024;
constexpr std::size_t max_tensors = 100'000;
constexpr std::size_t max_dimensions = 8;

[[noreturn]] void refuse(const std::string& what) { throw Error(Errc::protocol, what); }

template <class Number>
void append(std::string& bytes, Number number) {
  for (std::size_t i = 0; i < sizeof(Number); ++i) bytes.push_back(static_cast<char>((number >> (8 * i)) & 0xffU));
}

template <class Number>
Number number_at(const char* bytes) {
  Number number = 0;
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    number |= static_cast<Number>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return number;
}

void read_all(std::istream& in, char* to, std::size_t count, std::string_view what) {
  in.read(to, static_cast<std::streamsize>(count));
  if (in.gcount() != static_cast<std::streamsize>(count)) refuse(fmt::format("a frame that ends within its {}", what));
}

std::string type_of(const nlohmann::json& header) {
  const auto type = header.find("type");
  return type != header.end() && type->is_string() ? type->get<std::string>() : "";
}

const nlohmann::json& value_in(const nlohmann::json& header, const std::string& key, std::string_view expected) {
  const auto value = header.find(key);
  if (value == header.end()) {
    refuse(fmt::format("a '{}' without '{}'; {} is expected", printable(type_of(header), 32), key, expected));
  }
  return *value;
}

wire::ModelFile read_body(std::istream& in, const FrameHead& head, std::uint64_t most) {
  const std::string what = fmt::format("the body of a '{}'", printable(head.type(), 32));
  if (head.num_body_bytes == 0) refuse(fmt::format("a '{}' without a body; tensors are expected", head.type()));
  if (head.num_body_bytes > most) {
    refuse(fmt::format("{} has {} bytes; {} at most are expected", what, head.num_body_bytes, most));
  }
  try {
    return wire::read_safetensors(in, head.num_body_bytes, what);
  } catch (const Error& error) {
    if (error.code() != Errc::data) throw;
    refuse(error.what());
  }
}

learn::TensorSpec spec_in(const nlohmann::json& entry, std::size_t place, std::set<std::string>& trained) {
  const std::string where = fmt::format("tensor {} of the model in 'joined'", place);
  if (!entry.is_object()) refuse(where + " is no object");
  learn::TensorSpec spec;
  const auto name = entry.find("name");
  if (name == entry.end() || !name->is_string()) refuse(where + " has no text 'name'");
  spec.name = name->get<std::string>();
  const auto dtype = entry.find("dtype");
  const auto type = dtype != entry.end() && dtype->is_string() ? learn::dtype_of(dtype->get<std::string>())
                                                               : std::optional<c10::ScalarType>();
  if (!type) refuse(fmt::format("{}, '{}', has no 'dtype' such as F32", where, printable(spec.name, 64)));
  spec.dtype = *type;
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() || shape->size() > max_dimensions) {
    refuse(fmt::format("{}, '{}', has no 'shape' of at most {} dimensions", where, printable(spec.name, 64),
                       max_dimensions));
  }
  std::uint64_t elements = 1;
  for (const nlohmann::json& extent : *shape) {
    if (!extent.is_number_unsigned() || extent.get<std::uint64_t>() > (1ULL << 40U) ||
        (elements *= std::max<std::uint64_t>(extent.get<std::uint64_t>(), 1)) > (1ULL << 40U)) {
      refuse(fmt::format("{}, '{}', has a 'shape' that no tensor has", where, printable(spec.name, 64)));
    }
    spec.shape.push_back(static_cast<std::int64_t>(extent.get<std::uint64_t>()));
  }
  const auto is_trained = entry.find("trained");
  if (is_trained != entry.end() && !is_trained->is_boolean()) refuse(where + ": 'trained' is neither true nor false");
  if (c10::isFloatingType(spec.dtype) && (is_trained == entry.end() || is_trained->get<bool>())) {
    trained.insert(spec.name);
  }
  return spec;
}

}  // namespace

std::string frame_prefix(const nlohmann::json& header, std::uint64_t num_body_bytes) {
  const std::string text = header.dump();
  if (text.size() > max_frame_header_bytes) {
    throw Error(Errc::usage, fmt::format("a task whose header has {} bytes; a worker takes {}", text.size(),
                                         max_frame_header_bytes));
  }
  std::string bytes(frame_mark);
  append(bytes, static_cast<std::uint32_t>(text.size()));
  append(bytes, num_body_bytes);
  return bytes + text;
}

FrameHead read_frame_head(std::istream& in) {
  std::array<char, prefix_bytes> prefix{};
  read_all(in, prefix.data(), prefix.size(), "first 16 bytes");
  if (std::string_view(prefix.data(), frame_mark.size()) != frame_mark) {
    refuse(fmt::format("a frame that begins with {} in place of {}",
                       quotation(std::string_view(prefix.data(), frame_mark.size())), frame_mark));
  }
  const auto num_header_bytes = number_at<std::uint32_t>(prefix.data() + 4);
  if (num_header_bytes > max_frame_header_bytes) {
    refuse(fmt::format("a frame with a header of {} bytes; {} at most are expected", num_header_bytes,
                       max_frame_header_bytes));
  }
  std::string text(num_header_bytes, '\0');
  read_all(in, text.data(), text.size(), "header");
  FrameHead head{nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false),
                 number_at<std::uint64_t>(prefix.data() + 8)};
  if (!head.header.is_object() || type_of(head.header).empty()) {
    refuse(fmt::format("a frame whose header is no JSON object with a text 'type': {}", quotation(text, 60)));
  }
  return head;
}

wire::PackedState read_frame_state(std::istream& in, const FrameHead& head, const learn::Schema& schema) {
  wire::ModelFile file =
      read_body(in, head, schema.num_bytes() + body_slack + slack_per_tensor * schema.tensors().size());
  if (const auto difference = file.model.state().schema().difference_from(schema)) {
    refuse(fmt::format("another schema in a '{}': {}", head.type(), *difference));
  }
  return std::move(file.model);
}

learn::Tensor read_frame_tensor(std::istream& in, const FrameHead& head, const std::string& name,
                                std::uint64_t max_bytes) {
  const wire::ModelFile file = read_body(in, head, max_bytes + body_slack);
  const auto& tensors = file.model.state().tensors();
  if (tensors.size() != 1 || tensors.front().name != name) {
    refuse(fmt::format("a '{}' with other tensors than '{}'", head.type(), name));
  }
  return tensors.front().tensor;
}

std::int64_t integer_in(const nlohmann::json& header, const std::string& key, std::int64_t least) {
  const nlohmann::json& value = value_in(header, key, "an integer");
  constexpr std::int64_t most = std::int64_t{1} << 53;
  if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<std::uint64_t>() > most) ||
      value.get<std::int64_t>() < least) {
    refuse(fmt::format("'{}' in a '{}' is {}; an integer of at least {} is expected", key,
                       printable(type_of(header), 32), printable(value.dump(), 40), least));
  }
  return value.get<std::int64_t>();
}

std::string text_in(const nlohmann::json& header, const std::string& key) {
  const nlohmann::json& value = value_in(header, key, "a text");
  if (!value.is_string()) refuse(fmt::format("'{}' in a '{}' is no text", key, printable(type_of(header), 32)));
  return value.get<std::string>();
}

std::vector<std::string> texts_in(const nlohmann::json& header, const std::string& key) {
  std::vector<std::string> texts;
  const auto value = header.find(key);
  if (value == header.end()) return texts;
  const auto is_text = [](const nlohmann::json& entry) { return entry.is_string(); };
  if (!value->is_array() || !std::all_of(value->begin(), value->end(), is_text)) {
    refuse(fmt::format("'{}' in a '{}' is no list of texts", key, printable(type_of(header), 32)));
  }
  return value->get<std::vector<std::string>>();
}

learn::Schema schema_in(const nlohmann::json& header, const std::string& key) {
  const nlohmann::json& list = value_in(header, key, "a list of tensors");
  if (!list.is_array() || list.empty() || list.size() > max_tensors) {
    refuse(fmt::format("'{}' in a 'joined' is no list of 1 to {} tensors", key, max_tensors));
  }
  std::vector<learn::TensorSpec> specs;
  std::set<std::string> trained;
  for (std::size_t place = 0; place < list.size(); ++place) specs.push_back(spec_in(list[place], place, trained));
  try {
    return {std::move(specs), std::move(trained)};
  } catch (const Error& error) {
    refuse(fmt::format("the model in 'joined': {}", error.what()));
  }
}

}  // namespace headstart::worker_process
