// Where the bytes of an attachment come from and where they go: memory or a file, the same to the conversation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "shared/wire/packed_state.hpp"

namespace headstart::session {

/// Bytes to be sent. Reading is sequential in use but not by contract.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  [[nodiscard]] virtual std::uint64_t num_bytes() const = 0;
  /// `count` bytes from `offset`; the view is valid until the next call. Throws Error(storage) when a file fails.
  virtual std::span<const std::byte> read(std::uint64_t offset, std::size_t count) = 0;
};

/// Bytes being received.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  [[nodiscard]] virtual std::uint64_t num_bytes() const = 0;
  /// Where the `count` bytes from `offset` on may be written in place of write(): memory that lives as long as the
  /// sink. Empty: there is none.
  virtual std::span<std::byte> place(std::uint64_t /*offset*/, std::size_t /*count*/) { return {}; }
  /// Throws Error(storage) when a file fails.
  virtual void write(std::uint64_t offset, std::span<const std::byte> data) = 0;
};

/// Shares the state's memory.
std::unique_ptr<ByteSource> source_of(wire::PackedState state);
/// The tensors of a safetensors file that was written by save_safetensors(), without loading it.
/// Throws Error(storage) where the file is not there or not so long.
std::unique_ptr<ByteSource> source_of_model_file(const std::filesystem::path& file, std::uint64_t num_bytes);

/// Writes into the state's memory.
std::unique_ptr<ByteSink> sink_into(wire::PackedState state);

/// Opens a file in `folder` that has lost its name again: where a file system makes none without a name, as NFS. The
/// descriptor, or -1 and errno.
int open_unlinked(const std::filesystem::path& folder);

/// A file without a name in `folder`, of `num_bytes`: gone when the object is.
class StagingFile final : public ByteSink, public ByteSource {
 public:
  StagingFile(const std::filesystem::path& folder, std::uint64_t num_bytes);
  ~StagingFile() override;
  StagingFile(const StagingFile&) = delete;
  StagingFile& operator=(const StagingFile&) = delete;

  [[nodiscard]] std::uint64_t num_bytes() const override { return num_bytes_; }
  void write(std::uint64_t offset, std::span<const std::byte> data) override;
  std::span<const std::byte> read(std::uint64_t offset, std::size_t count) override;

 private:
  int descriptor_;
  std::uint64_t num_bytes_;
  std::vector<std::byte> block_;
};

}  // namespace headstart::session
