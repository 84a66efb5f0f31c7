#include "server/uploads/upload_slots.hpp"

#include <algorithm>
#include <cstring>

#include "shared/learn/core/platform.hpp"
#include "shared/wire/codec.hpp"

namespace headstart::server {

class Upload::MemorySink final : public session::ByteSink {
 public:
  MemorySink(std::byte* memory, std::uint64_t num_bytes) : memory_(memory), num_bytes_(num_bytes) {}
  [[nodiscard]] std::uint64_t num_bytes() const override { return num_bytes_; }
  std::span<std::byte> place(std::uint64_t offset, std::size_t count) override { return {memory_ + offset, count}; }
  void write(std::uint64_t offset, std::span<const std::byte> data) override {
    std::memcpy(memory_ + offset, data.data(), data.size());
  }

 private:
  std::byte* memory_;
  std::uint64_t num_bytes_;
};

Upload::Upload(UploadSlots& slots, std::unique_ptr<std::byte[]> memory, std::uint64_t num_bytes)
    : slots_(&slots),
      num_bytes_(num_bytes),
      memory_(std::move(memory)),
      memory_sink_(std::make_unique<MemorySink>(memory_.get(), num_bytes)) {}

Upload::Upload(const std::filesystem::path& staging, std::uint64_t num_bytes)
    : num_bytes_(num_bytes), file_(std::make_unique<session::StagingFile>(staging, num_bytes)) {}

Upload::Upload(Upload&& other) noexcept
    : StoredUpdate(std::move(other)),
      slots_(std::exchange(other.slots_, nullptr)),
      num_bytes_(other.num_bytes_),
      memory_(std::move(other.memory_)),
      memory_sink_(std::move(other.memory_sink_)),
      file_(std::move(other.file_)) {}

Upload::~Upload() {
  if (slots_ != nullptr) slots_->release(std::move(memory_), num_bytes_);
}

session::ByteSink& Upload::sink() {
  if (file_) return *file_;
  return *memory_sink_;
}

void Upload::for_each_block(const Take& take) {
  for (std::uint64_t offset = 0; offset < num_bytes_;) {
    const std::size_t count = std::min<std::uint64_t>(wire::max_chunk_bytes, num_bytes_ - offset);
    const std::span<const std::byte> block =
        file_ ? file_->read(offset, count) : std::span<const std::byte>(memory_.get() + offset, count);
    if (!take(offset, block)) return;
    offset += count;
  }
}

void Upload::read(std::uint64_t offset, std::span<std::byte> target) {
  const std::span<const std::byte> bytes =
      file_ ? file_->read(offset, target.size()) : std::span<const std::byte>(memory_.get() + offset, target.size());
  std::memcpy(target.data(), bytes.data(), target.size());
}

UploadSlots::UploadSlots(net::asio::any_io_executor executor, std::uint64_t budget, std::filesystem::path staging)
    : executor_(std::move(executor)), budget_(budget), staging_(std::move(staging)) {}

net::Task<Upload> UploadSlots::acquire(std::uint64_t num_bytes, Place place) {
  if (num_bytes <= budget_ && place == Place::memory) {
    if (waiters_.empty() && used_ + num_bytes <= budget_) {
      used_ += num_bytes;
      co_return Upload(*this, memory_for(num_bytes), num_bytes);
    }
    const auto waiter = waiters_.emplace(waiters_.end(), executor_, num_bytes);
    for (auto waited = patience;; waited += patience) {
      const std::uint64_t seen = num_given_back_;
      co_await waiter->timer.wait();
      if (waiter->is_granted || num_given_back_ == seen || waited >= long_patience) break;
      waiter->timer.expires_after(patience);
    }
    const bool is_granted = waiter->is_granted;
    waiters_.erase(waiter);
    if (is_granted) co_return Upload(*this, memory_for(num_bytes), num_bytes);
  }
  ++num_staged_;
  co_return Upload(staging_, num_bytes);
}

std::unique_ptr<std::byte[]> UploadSlots::memory_for(std::uint64_t num_bytes) {
  if (num_bytes == spare_bytes_ && !spare_.empty()) {
    auto memory = std::move(spare_.back());
    spare_.pop_back();
    return memory;
  }
  spare_.clear();
  auto memory = std::make_unique_for_overwrite<std::byte[]>(num_bytes);
  learn::prefer_large_pages(memory.get(), num_bytes);
  return memory;
}

void UploadSlots::release(std::unique_ptr<std::byte[]> memory, std::uint64_t num_bytes) {
  if (num_bytes != spare_bytes_) spare_.clear();
  spare_bytes_ = num_bytes;
  spare_.push_back(std::move(memory));
  used_ -= num_bytes;
  ++num_given_back_;
  for (Waiter& waiter : waiters_) {
    if (waiter.is_granted) continue;
    if (used_ + waiter.num_bytes > budget_) break;
    used_ += waiter.num_bytes;
    waiter.is_granted = true;
    waiter.timer.cancel();
  }
  if (used_ == 0) spare_.clear();  // between phases the memory is wanted elsewhere
}

}  // namespace headstart::server
