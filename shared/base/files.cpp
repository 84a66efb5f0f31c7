#include "shared/base/files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <system_error>

#include <sys/stat.h>

#include "shared/base/error.hpp"

namespace headstart {

namespace {

std::string reason() { return std::generic_category().message(errno); }

}  // namespace

std::string read_text(const std::filesystem::path& file) {
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) {
    throw Error(Errc::data, file.string() + ": cannot be read (" + (errno != 0 ? reason() : "not a file") + ")");
  }
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

nlohmann::json parse_json(std::string_view text, std::string_view name) {
  const auto refuse_depth = [name](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) {
    if (depth <= max_json_depth) return true;
    throw Error(Errc::data, std::string(name) + ": nested more than " + std::to_string(max_json_depth) + " deep");
  };
  try {
    return nlohmann::json::parse(text, refuse_depth);
  } catch (const nlohmann::json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 3, column 5: ..." without its prefix.
    const std::string what = error.what();
    const std::size_t prefix = what.find("] ");
    throw Error(Errc::data, std::string(name) + ": " + (prefix == std::string::npos ? what : what.substr(prefix + 2)));
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
