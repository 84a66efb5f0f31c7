// Text and lists as messages may carry them: each with its own bound, checked before memory is taken.
// cereal's own headers for std::string and std::vector are never included, so a message with an unbounded member
// does not compile.
#pragma once

// UserDataAdapter, which carries the bytes left to the load functions, stands behind this switch in cereal 1.3.
#define CEREAL_FUTURE_EXPERIMENTAL
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <cereal/archives/adapters.hpp>
#include <cereal/archives/portable_binary.hpp>
#include <cereal/cereal.hpp>

#include "shared/base/error.hpp"
#include "shared/base/printable.hpp"

namespace headstart::wire {

/// Bytes of the frame that are not read yet; the decoder attaches one to the archive.
class BytesLeft {
 public:
  virtual ~BytesLeft() = default;
  [[nodiscard]] virtual std::size_t bytes_left() const = 0;
};

using InputArchive = cereal::UserDataAdapter<BytesLeft, cereal::PortableBinaryInputArchive>;
using OutputArchive = cereal::PortableBinaryOutputArchive;

/// Reads a length and checks it against the bound and the bytes that are left. Throws Error(protocol).
template <class Archive>
std::size_t load_length(Archive& archive, std::size_t max, std::size_t element_bytes) {
  std::uint32_t length = 0;
  archive(length);
  const std::size_t left = cereal::get_user_data<BytesLeft>(archive).bytes_left();
  if (length > max || length > left / element_bytes) {
    throw Error(Errc::protocol, "a message announces " + std::to_string(length) + " elements; at most " +
                                    std::to_string(max) + " are allowed and " + std::to_string(left) +
                                    " bytes are left in its frame");
  }
  return length;
}

/// Yes or no. A plain bool of a message would take whatever byte the peer sent, and one beyond 1 is undefined.
struct Flag {
  bool value = false;

  Flag() = default;
  Flag(bool flag) : value(flag) {}         // NOLINT(google-explicit-constructor): reads as a bool
  operator bool() const { return value; }  // NOLINT(google-explicit-constructor)

  template <class Archive>
  void save(Archive& archive) const {
    archive(static_cast<std::uint8_t>(value));
  }
  template <class Archive>
  void load(Archive& archive) {
    std::uint8_t byte = 0;
    archive(byte);
    if (byte > 1) throw Error(Errc::protocol, "a message says " + std::to_string(byte) + " where it is yes or no");
    value = byte == 1;
  }
};

/// A string of at most `max` bytes as it travels, behind its length.
template <class Archive>
void save_bytes(Archive& archive, const std::string& bytes) {
  archive(static_cast<std::uint32_t>(bytes.size()), cereal::binary_data(bytes.data(), bytes.size()));
}
template <class Archive>
std::string load_bytes(Archive& archive, std::size_t max) {
  std::string bytes(load_length(archive, max, 1), '\0');
  archive(cereal::binary_data(bytes.data(), bytes.size()));
  return bytes;
}

/// Words and names, which may be shown, logged and passed on as they are: whoever sent them, they are printable, and
/// what was cut says so. Texts that must not be changed (names, digests) are checked where they are made.
template <std::size_t Max>
struct Text {
  static constexpr std::size_t max_size = Max;
  std::string value;

  Text() = default;
  Text(const std::string& text) : value(printable(text, Max)) {}  // NOLINT(google-explicit-constructor): reads as text
  Text(const char* text) : Text(std::string(text)) {}             // NOLINT(google-explicit-constructor)

  template <class Archive>
  void save(Archive& archive) const {
    save_bytes(archive, printable(value, Max));
  }
  template <class Archive>
  void load(Archive& archive) {
    value = printable(load_bytes(archive, Max), Max);
  }
  friend bool operator==(const Text&, const Text&) = default;
};

/// JSON for the other side's program, exactly as it was written. What is shown of it must be made printable.
template <std::size_t Max>
struct JsonText {
  static constexpr std::size_t max_size = Max;
  std::string value;

  JsonText() = default;
  /// Throws Error(usage) where it is longer than a message carries.
  JsonText(std::string text) : value(std::move(text)) {  // NOLINT(google-explicit-constructor): reads as text
    if (value.size() <= Max) return;
    throw Error(Errc::usage,
                std::to_string(value.size()) + " bytes of settings; a message carries at most " + std::to_string(Max));
  }
  JsonText(const char* text) : JsonText(std::string(text)) {}  // NOLINT(google-explicit-constructor)

  template <class Archive>
  void save(Archive& archive) const {
    save_bytes(archive, value);
  }
  template <class Archive>
  void load(Archive& archive) {
    value = load_bytes(archive, Max);
  }
  friend bool operator==(const JsonText&, const JsonText&) = default;
};

/// Of numbers, or of Texts; tensors travel as attachments.
template <class T, std::size_t Max>
struct List {
  std::vector<T> values;

  List() = default;
  List(std::vector<T> list) : values(std::move(list)) {  // NOLINT(google-explicit-constructor): reads as a vector
    if (values.size() > Max) throw Error(Errc::internal, "a list is longer than its message allows");
  }

  template <class Archive>
  void save(Archive& archive) const {
    archive(static_cast<std::uint32_t>(values.size()));
    for (const T& value : values) archive(value);
  }
  template <class Archive>
  void load(Archive& archive) {
    values.resize(load_length(archive, Max, least_bytes()));
    for (T& value : values) archive(value);
  }
  friend bool operator==(const List&, const List&) = default;

 private:
  /// That an element takes in a frame: of a text its length.
  static constexpr std::size_t least_bytes() {
    if constexpr (std::is_arithmetic_v<T>) {
      return sizeof(T);
    } else {
      static_assert(std::is_same_v<T, Text<T::max_size>>, "a list carries numbers or texts");
      return sizeof(std::uint32_t);
    }
  }
};

}  // namespace headstart::wire
