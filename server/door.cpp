#include "server/door.hpp"

#include <algorithm>
#include <optional>

#include <boost/asio/co_spawn.hpp>
#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"

namespace headstart::server {

namespace {

/// One guest's place, as long as it lives.
class Place {
 public:
  Place(std::shared_ptr<DoorRecord> record, DoorCount::Guest guest) : record_(std::move(record)), guest_(guest) {}
  ~Place() { record_->count.leave(guest_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  void shake_hands() { record_->count.shake_hands(guest_); }
  [[nodiscard]] DoorRecord& record() { return *record_; }

 private:
  std::shared_ptr<DoorRecord> record_;
  DoorCount::Guest guest_;
};

net::Task<> serve(net::PendingPeer pending, net::WebSocketOptions options, Federation& federation,
                  std::shared_ptr<Place> place /*held until it has joined or gone*/) {
  const std::string peer = pending.peer();
  std::unique_ptr<net::MessageChannel> channel;
  try {
    auto shaking = net::handshake(std::move(pending), options);
    channel = co_await std::move(shaking);
  } catch (const Error& error) {
    if (!place->record().failures.count(net::address_of(peer))) co_return;
    spdlog::warn("{}", error.what());
    federation.audit().handshake_failed(peer, error.what());
    co_return;
  }
  place->shake_hands();
  co_await federation.admit(std::move(channel));
}

}  // namespace

std::variant<DoorCount::Guest, std::string> DoorCount::enter(const std::string& address, PutOut end) {
  const auto found = by_address_.find(address);
  const std::size_t num_from_here = found == by_address_.end() ? 0 : found->second.size();
  if (num_from_here >= limit_per_address()) {
    const auto oldest = oldest_of(found->second);
    if (!oldest) {
      return fmt::format("{} connections from {} are joining (a fourth of limits.handshakes)", num_from_here, address);
    }
    put_out(*oldest, fmt::format("its place was given to a newer connection from its address, which holds {} (a fourth "
                                 "of limits.handshakes)",
                                 num_from_here));
  } else if (num_inside_ >= limit_) {
    const auto oldest = oldest_of_the_most(num_from_here + 1);
    if (!oldest) return fmt::format("{} connections are in their handshakes (limits.handshakes)", num_inside_);
    put_out(*oldest,
            fmt::format("its place was given to a newer connection, as all {} are taken (limits.handshakes)", limit_));
  }
  const Guest guest = next_++;
  by_address_[address].emplace(guest, std::move(end));
  address_of_.emplace(guest, address);
  ++num_inside_;
  return guest;
}

std::optional<DoorCount::Guest> DoorCount::oldest_of(const Guests& guests) {
  const auto first = std::ranges::find_if(guests, [](const auto& guest) { return static_cast<bool>(guest.second); });
  return first == guests.end() ? std::nullopt : std::optional(first->first);
}

std::optional<DoorCount::Guest> DoorCount::oldest_of_the_most(std::size_t num_from_newcomer) const {
  std::size_t most = 0;
  std::optional<Guest> oldest;
  for (const auto& [address, guests] : by_address_) {
    const auto first = oldest_of(guests);
    if (!first || guests.size() < num_from_newcomer) continue;
    if (oldest && (guests.size() < most || (guests.size() == most && *first > *oldest))) continue;
    most = guests.size();
    oldest = first;
  }
  return oldest;
}

void DoorCount::put_out(Guest guest, const std::string& reason) {
  const PutOut end = by_address_.at(address_of_.at(guest)).at(guest);
  leave(guest);
  end(reason);
}

void DoorCount::shake_hands(Guest guest) {
  const auto address = address_of_.find(guest);
  if (address != address_of_.end()) by_address_.at(address->second).at(guest) = nullptr;
}

void DoorCount::leave(Guest guest) {
  const auto address = address_of_.find(guest);
  if (address == address_of_.end()) return;  // it was put out
  const auto guests = by_address_.find(address->second);
  guests->second.erase(guest);
  if (guests->second.empty()) by_address_.erase(guests);
  address_of_.erase(address);
  --num_inside_;
}

net::Task<> keep_door(net::asio::any_io_executor executor, net::Listener& listener, net::WebSocketOptions options,
                      std::shared_ptr<DoorRecord> record, Federation& federation) {
  while (true) {
    net::PendingPeer pending = co_await listener.accept();
    const std::string peer = pending.peer();
    const auto entered = record->count.enter(net::address_of(peer), pending.ender());
    if (const auto* reason = std::get_if<std::string>(&entered)) {
      if (Told& told = record->refusals; told.count()) {
        spdlog::warn("{}: refused, {}{}", peer, *reason,
                     told.is_thinned_out() ? fmt::format("; {} so far", told.so_far()) : "");
      }
      continue;
    }
    auto place = std::make_shared<Place>(record, std::get<DoorCount::Guest>(entered));
    auto serving = serve(std::move(pending), options, federation, std::move(place));
    net::asio::co_spawn(executor, std::move(serving), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
  }
}

}  // namespace headstart::server
