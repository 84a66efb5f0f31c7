#include "shared/base/journal.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <sys/file.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"

namespace headstart {

namespace {

constexpr std::size_t digest_digits = 64;

[[noreturn]] void fail(const std::filesystem::path& file, const char* action) {
  throw Error(Errc::storage, fmt::format("{}: {} ({})", file.string(), action, std::strerror(errno)));
}

/// The event of a line without its newline; discarded JSON where the line is damaged.
nlohmann::json event_of(std::string_view line) {
  const nlohmann::json damaged(nlohmann::json::value_t::discarded);
  if (line.size() <= digest_digits || line[digest_digits] != ' ') return damaged;
  const std::string_view text = line.substr(digest_digits + 1);
  if (sha256_hex(text) != line.substr(0, digest_digits)) return damaged;
  try {
    return parse_json(text, "journal");
  } catch (const Error&) {
    return damaged;
  }
}

bool has_whole_line(std::string_view text) {
  for (std::size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
    if (event_of(text.substr(0, end)).is_object()) return true;
    text.remove_prefix(end + 1);
  }
  return false;
}

}  // namespace

std::pair<std::vector<nlohmann::json>, std::size_t> Journal::parse(std::string_view text) {
  std::vector<nlohmann::json> events;
  std::size_t taken = 0;
  while (taken < text.size()) {
    const std::size_t end = text.find('\n', taken);
    if (end == std::string_view::npos) break;
    nlohmann::json event = event_of(text.substr(taken, end - taken));
    if (!event.is_object()) break;
    events.push_back(std::move(event));
    taken = end + 1;
  }
  return {std::move(events), taken};
}

Journal::Journal(std::filesystem::path file) : file_(std::move(file)) {
  descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(file_, "cannot be written");
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    ::close(descriptor_);
    throw Error(Errc::storage, file_.string() + ": another process is at work in this folder");
  }
  const std::string text = read_text(file_);
  std::size_t taken = 0;
  std::tie(earlier_, taken) = parse(text);
  if (taken == text.size()) return;
  if (has_whole_line(std::string_view(text).substr(taken))) {
    ::close(descriptor_);
    throw Error(Errc::data, fmt::format("{}: line {} is damaged, though whole lines follow it: something else than "
                                        "this program has changed it. Put a backup in its place; or delete that line, "
                                        "and the run goes on without what it said",
                                        file_.string(), earlier_.size() + 1));
  }
  damage_ = fmt::format("{}: line {} is damaged; what stands from there on ({} bytes) does not count", file_.string(),
                        earlier_.size() + 1, text.size() - taken);
  if (::ftruncate(descriptor_, static_cast<off_t>(taken)) != 0) {
    ::close(descriptor_);
    fail(file_, "cannot be cut");
  }
}

Journal::~Journal() { ::close(descriptor_); }

void Journal::append(const nlohmann::json& event) {
  const std::string text = to_line(event);
  const std::string line = sha256_hex(text) + " " + text + "\n";
  const std::lock_guard lock(mutex_);
  const off_t before = ::lseek(descriptor_, 0, SEEK_END);
  try {
    write_all(descriptor_, std::as_bytes(std::span(line)), file_);
    if (::fdatasync(descriptor_) != 0) fail(file_, "cannot be flushed to disk");
  } catch (const Error&) {
    // Half a line would take the next one with it.
    if (before < 0 || ::ftruncate(descriptor_, before) != 0) {
      throw Error(Errc::storage, file_.string() + ": cannot be written, nor cut back to its last whole line");
    }
    throw;
  }
}

}  // namespace headstart
