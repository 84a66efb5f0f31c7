// What the readers of data sets share: files, lengths and labels that are checked. Private to data/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shared/learn/data/data_set.hpp"

namespace headstart::learn {

/// A data file read from front to back, plain or gzip (told by its first bytes, not its name).
/// Every failure is an Error(data) that names the file and the offset in its uncompressed bytes.
class InputFile {
 public:
  explicit InputFile(std::filesystem::path file);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  void read(void* target, std::uint64_t num_bytes);
  /// Throws where the file cannot hold `num_bytes` more: call it before allocating what a header promises.
  void require_room(std::uint64_t num_bytes);
  void require_end();
  /// Throws Error(data): "FILE, offset N: " and what is wrong there.
  [[noreturn]] void fail(std::uint64_t offset, const std::string& what) const;
  [[nodiscard]] std::uint64_t offset() const { return offset_; }

 private:
  [[noreturn]] void fail_damaged() const;

  struct Handle;
  std::filesystem::path file_;
  std::uint64_t stored_bytes_ = 0;
  std::uint64_t offset_ = 0;
  std::unique_ptr<Handle> handle_;
};

/// Images as stored and their labels, one row each.
struct RawSplit {
  Tensor images;
  Tensor labels;
};

/// Throws Error(data) where the two differ in length.
void require_same_length(const RawSplit& split, const std::string& images_file, const std::string& labels_file);

/// Throws Error(data) naming the first of `labels` that is not in 0..num_classes-1; `place` says where it stands.
void require_labels_within(const Tensor& labels, std::int64_t num_classes,
                           const std::function<std::string(std::int64_t index)>& place);

/// The product, or nothing where it does not fit.
std::optional<std::uint64_t> product(std::span<const std::uint64_t> factors);

}  // namespace headstart::learn
