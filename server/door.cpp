#include "server/door.hpp"

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"

namespace headstart::server {

namespace {

constexpr std::size_t max_addresses = 4096;

/// "192.0.2.7:50312" and "[2001:db8::1]:50312" without the port.
std::string address_of(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

/// One place behind the door, as long as it lives.
class Place {
 public:
  Place(std::shared_ptr<DoorCount> count, std::string address)
      : count_(std::move(count)), address_(std::move(address)) {}
  ~Place() { count_->leave(address_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  std::shared_ptr<DoorCount> count_;
  std::string address_;
};

net::Task<> serve(net::PendingPeer pending, net::WebSocketOptions options, Federation& federation,
                  std::shared_ptr<DoorCount> count, std::shared_ptr<Place> /*held until it has joined or gone*/) {
  const std::string peer = pending.peer();
  std::unique_ptr<net::MessageChannel> channel;
  try {
    auto shaking = net::handshake(std::move(pending), options);
    channel = co_await std::move(shaking);
  } catch (const Error& error) {
    if (!count->count_failure(address_of(peer))) co_return;
    spdlog::warn("{}: {}", peer, error.what());
    federation.audit().handshake_failed(peer, error.what());
    co_return;
  }
  co_await federation.admit(std::move(channel));
}

}  // namespace

std::optional<std::string> DoorCount::enter(const std::string& address) {
  if (num_inside_ >= limit_) {
    ++num_refused_;
    return fmt::format("{} connections are in their handshakes (limits.handshakes)", limit_);
  }
  std::size_t& from_here = by_address_[address];
  if (from_here >= limit_per_address()) {
    ++num_refused_;
    return fmt::format("{} connections from {} are in their handshakes (a fourth of limits.handshakes)", from_here,
                       address);
  }
  ++from_here;
  ++num_inside_;
  return std::nullopt;
}

void DoorCount::leave(const std::string& address) {
  --num_inside_;
  const auto found = by_address_.find(address);
  if (--found->second == 0) by_address_.erase(found);
}

bool DoorCount::count_failure(const std::string& address) {
  ++num_failed_;
  // Beyond so many addresses they are counted together: memory stays bounded.
  const bool is_known = failures_.contains(address) || failures_.size() < max_addresses;
  return std::has_single_bit(++failures_[is_known ? address : std::string()]);
}

net::Task<> keep_door(net::asio::any_io_executor executor, net::Listener& listener, net::WebSocketOptions options,
                      std::shared_ptr<DoorCount> count, Federation& federation) {
  while (true) {
    net::PendingPeer pending = co_await listener.accept();
    const std::string peer = pending.peer();
    if (const auto reason = count->enter(address_of(peer))) {
      // A flood must not fill the log.
      if (std::has_single_bit(count->num_refused())) {
        spdlog::warn("{}: refused, {}; {} so far", peer, *reason, count->num_refused());
      }
      continue;
    }
    auto place = std::make_shared<Place>(count, address_of(peer));
    auto serving = serve(std::move(pending), options, federation, count, std::move(place));
    net::asio::co_spawn(executor, std::move(serving), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
  }
}

}  // namespace headstart::server
