// Files that are never half-written and never overwritten in silence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "shared/base/error.hpp"

namespace headstart {

// Of these, each throws Error(`code`) with the path and the system's reason where the system cannot tell: a loop of
// links, a name that is too long, a folder that may not be entered.

/// Whether something has this name; a link that leads nowhere has it too.
bool is_there(const std::filesystem::path& path, Errc code);

/// Whether it is a folder, or a link to one.
bool is_folder(const std::filesystem::path& path, Errc code);

/// What lies in a folder, sorted by the bytes of the names.
std::vector<std::filesystem::path> entries_in(const std::filesystem::path& folder, Errc code);

/// Bytes of a file.
std::uint64_t size_of_file(const std::filesystem::path& file, Errc code);

/// Makes a folder with its parents where they are missing. Throws Error(storage).
void make_folders(const std::filesystem::path& folder);

/// Removes a file if it is there. Throws Error(storage).
void remove_file(const std::filesystem::path& file);

/// The whole file as text. Throws Error(data) naming the file.
std::string read_text(const std::filesystem::path& file);

/// Deeper JSON than this is refused: what writes, copies or compares a value calls itself once a level.
inline constexpr int max_json_depth = 64;

/// Parses JSON of whatever origin, which `name` tells. Throws Error(data): a syntax error, with line and column; a key
/// that stands twice in one object, with its line, as one of its values would be lost; or nesting beyond
/// max_json_depth.
nlohmann::json parse_json(std::string_view text, std::string_view name);

/// The same of a file. Throws Error(data).
nlohmann::json read_json(const std::filesystem::path& file);

/// A file that appears under its name only when it is complete: written beside it, flushed to disk, renamed; the name
/// is on the disk too when commit() returns. Destroyed without commit(), it leaves nothing. Replaces an older file of
/// that name. Throws Error(storage).
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void commit();
  /// Whether this is what an AtomicFile of a process that was killed has left.
  static bool is_partial(const std::filesystem::path& file);

 private:
  [[noreturn]] void fail(std::string_view action) const;
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

void write_text_atomically(const std::filesystem::path& file, std::string_view text);

/// Writes all of `bytes` to an open file. `name`: for the message. Throws Error(storage).
void write_all(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& name);

/// Has the disk know of files made, renamed or removed in `folder`. Throws Error(storage).
void sync_folder(const std::filesystem::path& folder);

/// A value as one line of text. What is not UTF-8 in it, as a peer's words may be, becomes a replacement character.
std::string to_line(const nlohmann::json& value);

/// Makes a folder that must not exist yet, which only its owner may enter, with its parents, which are as open as the
/// process makes folders. Throws Error(storage): exists, or cannot be made.
void make_new_folder(const std::filesystem::path& folder);

/// The same where it is missing; a folder that is there is left as it is. Throws Error(storage).
void make_private_folder(const std::filesystem::path& folder);

/// Appends whole lines, each flushed to the operating system before append() returns. A last line that was left
/// unfinished is ended first. Throws Error(storage).
class LineFile {
 public:
  explicit LineFile(std::filesystem::path file);
  void append(const nlohmann::json& line);

 private:
  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace headstart
