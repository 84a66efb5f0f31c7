#include "shared/net/receive_memory.hpp"

#include <algorithm>
#include <utility>

namespace headstart::net {

namespace {

constexpr std::size_t max_spare_blocks = 16;

}  // namespace

ReceiveMemory::Block::Block(std::shared_ptr<ReceiveMemory> memory, std::list<Holder>::iterator holder,
                            std::unique_ptr<std::byte[]> bytes)
    : memory_(std::move(memory)), holder_(holder), bytes_(std::move(bytes)) {}

ReceiveMemory::Block::~Block() { memory_->give_back(holder_, std::move(bytes_)); }

/// Where one waits. It ends with the wait, also where that is destroyed instead of resumed.
class ReceiveMemory::Place {
 public:
  Place(Waiters& waiters, Waiter waiter)
      : waiters_(waiters), place_(waiters.insert(waiters.end(), std::move(waiter))) {}
  ~Place() {
    const auto granted = std::move(place_->granted);  // given back when the place is gone
    waiters_.erase(place_);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  std::unique_ptr<Block>& granted() { return place_->granted; }

 private:
  Waiters& waiters_;
  Waiters::iterator place_;
};

ReceiveMemory::ReceiveMemory(std::size_t bytes, std::chrono::milliseconds patience)
    : num_blocks_(std::max<std::size_t>(1, bytes / Block::capacity)), patience_(patience) {}

Task<std::unique_ptr<ReceiveMemory::Block>> ReceiveMemory::take(Timer& timer, std::function<void()> evict) {
  if (waiters_.empty() && holders_.size() < num_blocks_) co_return lend(std::move(evict));
  const auto self = shared_from_this();
  const std::uint64_t came_before = num_lent_ever_;
  Place place(waiters_, {timer, std::move(evict), nullptr});
  while (place.granted() == nullptr) {
    timer.expires_after(patience_);
    auto waiting = timer.wait();
    co_await std::move(waiting);
    if (timer.has_ended()) break;
    // Who was lent a block before this wait began has held it throughout.
    if (place.granted() == nullptr) evict_one_lent_before(came_before);
  }
  co_return std::move(place.granted());
}

void ReceiveMemory::evict_one_lent_before(std::uint64_t number) {
  const auto oldest =
      std::ranges::find_if(holders_, [](const Holder& holder) { return static_cast<bool>(holder.evict); });
  if (oldest == holders_.end() || oldest->number >= number) return;
  const auto evict = std::exchange(oldest->evict, nullptr);
  evict();
}

std::unique_ptr<ReceiveMemory::Block> ReceiveMemory::lend(std::function<void()> evict) {
  std::unique_ptr<std::byte[]> bytes;
  if (spare_.empty()) {
    bytes = std::make_unique_for_overwrite<std::byte[]>(Block::capacity);
  } else {
    bytes = std::move(spare_.back());
    spare_.pop_back();
  }
  const auto holder = holders_.insert(holders_.end(), {num_lent_ever_++, std::move(evict)});
  return std::make_unique<Block>(shared_from_this(), holder, std::move(bytes));
}

void ReceiveMemory::give_back(std::list<Holder>::iterator holder, std::unique_ptr<std::byte[]> bytes) {
  holders_.erase(holder);
  if (spare_.size() < max_spare_blocks) spare_.push_back(std::move(bytes));
  const auto next = std::ranges::find_if(waiters_, [](const Waiter& waiter) { return waiter.granted == nullptr; });
  if (next == waiters_.end()) return;
  next->granted = lend(std::move(next->evict));
  next->timer.cancel();
}

}  // namespace headstart::net
