#include "shared/base/files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <iterator>
#include <set>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <sys/stat.h>

#include "shared/base/printable.hpp"

namespace headstart {

namespace {

std::string reason() { return std::generic_category().message(errno); }

}  // namespace

namespace {

[[noreturn]] void fail(const std::filesystem::path& path, Errc code, std::string_view action, const std::string& why) {
  throw Error(code, fmt::format("{}: {} ({})", path.string(), action, why));
}

/// Of what the path leads to; not_found where it leads nowhere.
std::filesystem::file_type type_of(const std::filesystem::path& path, Errc code) {
  std::error_code reason;
  const std::filesystem::file_type type = std::filesystem::status(path, reason).type();
  if (type == std::filesystem::file_type::none) fail(path, code, "cannot be read", reason.message());
  return type;
}

}  // namespace

bool is_there(const std::filesystem::path& path, Errc code) {
  if (type_of(path, code) != std::filesystem::file_type::not_found) return true;
  std::error_code ignored;
  return std::filesystem::symlink_status(path, ignored).type() == std::filesystem::file_type::symlink;
}

bool is_folder(const std::filesystem::path& path, Errc code) {
  return type_of(path, code) == std::filesystem::file_type::directory;
}

std::vector<std::filesystem::path> entries_in(const std::filesystem::path& folder, Errc code) {
  std::error_code reason;
  std::vector<std::filesystem::path> entries;
  std::filesystem::directory_iterator i(folder, reason);
  for (const std::filesystem::directory_iterator end; !reason && i != end; i.increment(reason)) {
    entries.push_back(i->path());
  }
  if (reason) fail(folder, code, "cannot be read", reason.message());
  std::ranges::sort(entries, {}, [](const std::filesystem::path& path) { return path.native(); });
  return entries;
}

std::uint64_t size_of_file(const std::filesystem::path& file, Errc code) {
  std::error_code reason;
  const std::uintmax_t size = std::filesystem::file_size(file, reason);
  if (reason) fail(file, code, "cannot be read", reason.message());
  return size;
}

void make_folders(const std::filesystem::path& folder) {
  std::error_code reason;
  std::filesystem::create_directories(folder, reason);
  if (reason) fail(folder, Errc::storage, "cannot be made", reason.message());
}

void remove_file(const std::filesystem::path& file) {
  std::error_code reason;
  std::filesystem::remove(file, reason);
  if (reason) fail(file, Errc::storage, "cannot be removed", reason.message());
}

std::string read_text(const std::filesystem::path& file) {
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  std::string text;
  std::array<char, 1 << 16> block;
  while (in.read(block.data(), block.size()) || in.gcount() > 0) {
    text.append(block.data(), static_cast<std::size_t>(in.gcount()));
  }
  if (!in.is_open() || in.bad()) fail(file, Errc::data, "cannot be read", errno != 0 ? reason() : "not a file");
  return text;
}

namespace {

/// Hands out text and notes how far it was read, which the parser itself tells nobody.
class Reading {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Reading(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
  reference operator*() const { return *at_; }
  Reading& operator++() {
    *furthest_ = ++at_;
    return *this;
  }
  Reading operator++(int) { return std::exchange(*this, Reading(at_ + 1, furthest_)); }
  bool operator==(const Reading& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  const char** furthest_;
};

}  // namespace

nlohmann::json parse_json(std::string_view text, std::string_view name) {
  const char* furthest = text.data();
  std::vector<std::set<std::string, std::less<>>> keys;  // of the objects that are open
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > max_json_depth) {
      throw Error(Errc::data, fmt::format("{}: nested more than {} deep", name, max_json_depth));
    }
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw Error(Errc::data, fmt::format("{}: line {}: the key {} stands twice in one object, and one of its values "
                                          "would be lost; join the two",
                                          name, 1 + std::count(text.data(), furthest, '\n'),
                                          printable(to_line(parsed), max_quoted_bytes)));
    }
    return true;
  };
  try {
    return nlohmann::json::parse(Reading(text.data(), &furthest), Reading(text.data() + text.size(), &furthest), watch);
  } catch (const nlohmann::json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 3, column 5: ..." without its prefix.
    const std::string what = error.what();
    const std::size_t prefix = what.find("] ");
    const std::string words = prefix == std::string::npos ? what : what.substr(prefix + 2);
    throw Error(Errc::data, std::string(name) + ": " + printable(words, 300));  // it quotes what it could not read
  }
}

nlohmann::json read_json(const std::filesystem::path& file) { return parse_json(read_text(file), file.string()); }

void write_all(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& name) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw Error(Errc::storage, name.string() + ": cannot be written (" + reason() + ")");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void sync_folder(const std::filesystem::path& folder) {
  const std::filesystem::path name = folder.empty() ? "." : folder;
  const int descriptor = ::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool is_synced = descriptor >= 0 && ::fsync(descriptor) == 0;
  if (descriptor >= 0) ::close(descriptor);
  if (!is_synced) throw Error(Errc::storage, name.string() + ": cannot be flushed to disk (" + reason() + ")");
}

std::string to_line(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

namespace {

constexpr std::string_view partial_mark = ".part-";

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path target)
    : target_(std::move(target)),
      temporary_(target_.string() + std::string(partial_mark) + std::to_string(::getpid())) {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail("cannot be written");
}

bool AtomicFile::is_partial(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  const std::size_t mark = name.rfind(partial_mark);
  if (mark == std::string::npos || mark == 0) return false;
  const std::string_view process = std::string_view(name).substr(mark + partial_mark.size());
  return !process.empty() && process.find_first_not_of("0123456789") == std::string_view::npos;
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) { write_all(descriptor_, bytes, target_); }

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail("cannot be flushed to disk");
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("cannot be put in place");
  ::close(descriptor_);
  descriptor_ = -1;
  sync_folder(target_.parent_path());
}

void AtomicFile::fail(std::string_view action) const {
  throw Error(Errc::storage, target_.string() + ": " + std::string(action) + " (" + reason() + ")");
}

void write_text_atomically(const std::filesystem::path& file, std::string_view text) {
  AtomicFile out(file);
  out.write(text);
  out.commit();
}

namespace {

/// With its parents; whether it was not there before. Only the owner may enter it from the first moment on.
bool make_folder_of_owner(const std::filesystem::path& path) {
  // A separator at the end would make the folder its own parent.
  const std::filesystem::path folder = path.has_filename() ? path : path.parent_path();
  std::error_code code;
  if (folder.has_parent_path()) std::filesystem::create_directories(folder.parent_path(), code);
  if (!code && ::mkdir(folder.c_str(), S_IRWXU) == 0) return true;
  if (!code) code.assign(errno, std::generic_category());
  std::error_code ignored;
  if (code == std::errc::file_exists && std::filesystem::is_directory(folder, ignored)) return false;
  throw Error(Errc::storage, folder.string() + ": cannot be made (" + code.message() + ")");
}

}  // namespace

void make_new_folder(const std::filesystem::path& folder) {
  if (make_folder_of_owner(folder)) return;
  throw Error(Errc::storage, folder.string() + ": exists already and is never overwritten; choose another folder");
}

void make_private_folder(const std::filesystem::path& folder) { (void)make_folder_of_owner(folder); }

LineFile::LineFile(std::filesystem::path file) : path_(std::move(file)), out_(path_, std::ios::binary | std::ios::app) {
  std::ifstream before(path_, std::ios::binary);
  if (before.seekg(-1, std::ios::end) && before.get() != '\n') out_ << '\n' << std::flush;
  if (!out_) throw Error(Errc::storage, path_.string() + ": cannot be written (" + reason() + ")");
}

void LineFile::append(const nlohmann::json& line) {
  out_ << to_line(line) << '\n' << std::flush;
  if (!out_) throw Error(Errc::storage, path_.string() + ": cannot be written (" + reason() + ")");
}

}  // namespace headstart
