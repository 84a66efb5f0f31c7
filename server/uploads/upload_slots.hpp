// Memory for results in flight: bounded, and a slow sender delays nobody.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "shared/learn/aggregate/aggregator.hpp"
#include "shared/net/time.hpp"
#include "shared/session/byte_stream.hpp"

namespace headstart::server {

class UploadSlots;

/// A result being received or received: in memory, or staged on disk. Gives its memory back when destroyed, which must
/// happen on the executor of its slots.
class Upload final : public learn::StoredUpdate {
 public:
  ~Upload() override;
  Upload(Upload&& other) noexcept;
  Upload& operator=(Upload&&) = delete;

  [[nodiscard]] session::ByteSink& sink();
  [[nodiscard]] std::uint64_t num_bytes() const override { return num_bytes_; }
  /// These two on any one thread.
  void for_each_block(const Take& take) override;
  void read(std::uint64_t offset, std::span<std::byte> target) override;

 private:
  friend class UploadSlots;
  class MemorySink;
  Upload(UploadSlots& slots, std::unique_ptr<std::byte[]> memory, std::uint64_t num_bytes);
  Upload(const std::filesystem::path& staging, std::uint64_t num_bytes);

  UploadSlots* slots_ = nullptr;
  std::uint64_t num_bytes_;
  std::unique_ptr<std::byte[]> memory_;
  std::unique_ptr<session::ByteSink> memory_sink_;
  std::unique_ptr<session::StagingFile> file_;
};

/// All calls on one executor; outlives its uploads.
class UploadSlots {
 public:
  /// `budget`: bytes of memory for all uploads together. `staging`: folder for what exceeds it.
  UploadSlots(net::asio::any_io_executor executor, std::uint64_t budget, std::filesystem::path staging);

  /// Where an upload is to be: one that is kept beside others goes to disk at once, so that it holds up nobody.
  enum class Place { memory, disk };
  /// Memory as soon as there is some, in order of asking. Who has waited for `patience`, and in that time none was
  /// given back, is given room on disk instead: the senders before it are slow. So is who has waited for
  /// `long_patience`. What is larger than the budget goes to disk at once.
  net::Task<Upload> acquire(std::uint64_t num_bytes, Place place = Place::memory);

  /// Bytes of memory that uploads hold or were granted.
  [[nodiscard]] std::uint64_t used() const { return used_; }
  [[nodiscard]] std::uint64_t num_staged() const { return num_staged_; }

  static constexpr std::chrono::milliseconds patience{2000};
  static constexpr std::chrono::milliseconds long_patience = 5 * patience;

 private:
  friend class Upload;
  struct Waiter {
    Waiter(const net::asio::any_io_executor& executor, std::uint64_t size)
        : timer(executor, patience), num_bytes(size) {}
    net::Timer timer;
    std::uint64_t num_bytes;
    bool is_granted = false;
  };
  std::unique_ptr<std::byte[]> memory_for(std::uint64_t num_bytes);
  void release(std::unique_ptr<std::byte[]> memory, std::uint64_t num_bytes);

  net::asio::any_io_executor executor_;
  std::uint64_t budget_;
  std::uint64_t used_ = 0;  ///< By uploads that hold memory or were granted it.
  std::uint64_t num_staged_ = 0;
  std::uint64_t num_given_back_ = 0;  ///< Uploads whose memory was.
  std::filesystem::path staging_;
  std::list<Waiter> waiters_;
  /// Blocks given back, all of `spare_bytes_`: a run's uploads have one size, and fresh pages cost more than the copy.
  std::vector<std::unique_ptr<std::byte[]>> spare_;
  std::uint64_t spare_bytes_ = 0;
};

}  // namespace headstart::server
