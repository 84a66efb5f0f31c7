#include "shared/session/byte_stream.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include <fmt/format.h>

#include "shared/base/error.hpp"

namespace headstart::session {

namespace {

[[noreturn]] void fail(const std::filesystem::path& where, std::string_view what) {
  throw Error(Errc::storage, fmt::format("{}: {} ({})", where.string(), what, std::generic_category().message(errno)));
}

void read_fully(int descriptor, std::uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t count = ::pread(descriptor, into.data(), into.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail("model file", "cannot be read back");
    into = into.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

class MemoryFlow final : public ByteSource, public ByteSink {
 public:
  explicit MemoryFlow(wire::PackedState state) : state_(std::move(state)) {}
  [[nodiscard]] std::uint64_t num_bytes() const override { return state_.bytes().size(); }
  std::span<const std::byte> read(std::uint64_t offset, std::size_t count) override {
    return std::as_const(state_).bytes().subspan(offset, count);
  }
  std::span<std::byte> place(std::uint64_t offset, std::size_t count) override {
    return state_.bytes().subspan(offset, count);
  }
  void write(std::uint64_t offset, std::span<const std::byte> data) override {
    std::memcpy(state_.bytes().data() + offset, data.data(), data.size());
  }

 private:
  wire::PackedState state_;
};

class ModelFileSource final : public ByteSource {
 public:
  ModelFileSource(const std::filesystem::path& file, std::uint64_t num_bytes)
      : descriptor_(::open(file.c_str(), O_RDONLY | O_CLOEXEC)), num_bytes_(num_bytes) {
    if (descriptor_ < 0) fail(file, "cannot be opened");
    const off_t size = ::lseek(descriptor_, 0, SEEK_END);
    if (size < 0 || static_cast<std::uint64_t>(size) < num_bytes + 8) fail(file, "is shorter than its model");
    // The tensors are the end of the file: a safetensors file has nothing behind them.
    start_ = static_cast<std::uint64_t>(size) - num_bytes;
  }
  ~ModelFileSource() override { ::close(descriptor_); }
  ModelFileSource(const ModelFileSource&) = delete;
  ModelFileSource& operator=(const ModelFileSource&) = delete;

  [[nodiscard]] std::uint64_t num_bytes() const override { return num_bytes_; }
  std::span<const std::byte> read(std::uint64_t offset, std::size_t count) override {
    block_.resize(count);
    read_fully(descriptor_, start_ + offset, block_);
    return block_;
  }

 private:
  int descriptor_;
  std::uint64_t num_bytes_;
  std::uint64_t start_ = 0;
  std::vector<std::byte> block_;
};

}  // namespace

std::unique_ptr<ByteSource> source_of(wire::PackedState state) {
  return std::make_unique<MemoryFlow>(std::move(state));
}

std::unique_ptr<ByteSource> source_of_model_file(const std::filesystem::path& file, std::uint64_t num_bytes) {
  return std::make_unique<ModelFileSource>(file, num_bytes);
}

std::unique_ptr<ByteSink> sink_into(wire::PackedState state) { return std::make_unique<MemoryFlow>(std::move(state)); }

int open_unlinked(const std::filesystem::path& folder) {
  std::string name = folder / "staged-XXXXXX";
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor >= 0) ::unlink(name.c_str());
  return descriptor;
}

StagingFile::StagingFile(const std::filesystem::path& folder, std::uint64_t num_bytes)
    : descriptor_(::open(folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600)), num_bytes_(num_bytes) {
  // The answers of file systems and kernels that do not know O_TMPFILE: open(2).
  if (descriptor_ < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) descriptor_ = open_unlinked(folder);
  if (descriptor_ < 0) fail(folder, "no file can be staged there");
}

StagingFile::~StagingFile() { ::close(descriptor_); }

void StagingFile::write(std::uint64_t offset, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t count = ::pwrite(descriptor_, data.data(), data.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("staged update", "cannot be written");
    data = data.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

std::span<const std::byte> StagingFile::read(std::uint64_t offset, std::size_t count) {
  block_.resize(count);
  read_fully(descriptor_, offset, block_);
  return block_;
}

}  // namespace headstart::session
