#include "shared/net/loopback.hpp"

#include <array>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "shared/base/error.hpp"
#include "shared/net/single_flight.hpp"

namespace headstart::net {
namespace {

using Bytes = std::vector<std::byte>;
using View = std::span<const std::byte>;

constexpr std::size_t max_waiting_messages = 4;

/// One way of a connection.
struct Way {
  enum class State { open, closed, broken };
  State state = State::open;
  std::string reason;
  std::deque<Bytes> waiting;
  std::size_t waiting_bytes = 0;

  [[nodiscard]] bool has_room_for(std::size_t bytes) const {
    return waiting.empty() || (waiting.size() < max_waiting_messages && waiting_bytes + bytes <= max_message_bytes);
  }
  void end(State how) {
    if (state != State::open) return;
    state = how;
    if (how == State::broken) waiting.clear();
  }
};

/// What belongs to one side's executor. `changed` never expires: cancelling it wakes who waits for the peer.
struct End {
  explicit End(const asio::any_io_executor& executor) : changed(executor, asio::steady_timer::time_point::max()) {}

  asio::steady_timer changed;
  bool is_sending = false;
  bool is_receiving = false;
  bool is_aborted = false;
  bool is_closed = false;
  Bytes received;
  std::size_t message_limit = max_message_bytes;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
};

/// What the two sides share. An end that is gone is not in `ends`: its executor may be gone with it.
struct Link {
  std::mutex mutex;
  std::array<Way, 2> ways;  // ways[i] leads to end i.
  std::array<std::shared_ptr<End>, 2> ends;

  void wake(std::size_t side) {
    if (const auto& end = ends[side]) asio::post(end->changed.get_executor(), [end] { end->changed.cancel(); });
  }
};

/// One side of a link. The coroutines hold a copy, so that the channel may be destroyed while one is pending.
class Side {
 public:
  Side(std::shared_ptr<Link> link, std::size_t index, std::string name)
      : link_(std::move(link)), end_(link_->ends[index]), index_(index), name_(std::move(name)) {}

  [[nodiscard]] End& end() const { return *end_; }
  [[nodiscard]] const std::string& name() const { return name_; }

  bool try_send(View head, View body) const;
  [[nodiscard]] std::optional<Bytes> try_receive() const;
  void close(const std::string& reason) const;
  void abort() const;
  void leave() const;
  [[nodiscard]] Task<> wait_for_change() const;

 private:
  [[nodiscard]] Way& incoming() const { return link_->ways[index_]; }
  [[nodiscard]] Way& outgoing() const { return link_->ways[1 - index_]; }
  [[noreturn]] void lost(const std::string& why) const {
    throw Error(Errc::network, "connection to " + name_ + " lost: " + why);
  }

  std::shared_ptr<Link> link_;
  std::shared_ptr<End> end_;
  std::size_t index_;
  std::string name_;
};

bool Side::try_send(View head, View body) const {
  const std::lock_guard lock(link_->mutex);
  if (end_->is_aborted) lost("aborted");
  if (end_->is_closed) lost("closed on this side");
  Way& way = outgoing();
  if (way.state == Way::State::broken) lost("the peer has ended it");
  const auto bytes = head.size() + body.size();
  if (!way.has_room_for(bytes)) return false;
  Bytes message;
  message.reserve(bytes);
  message.insert(message.end(), head.begin(), head.end());
  message.insert(message.end(), body.begin(), body.end());
  way.waiting.push_back(std::move(message));
  way.waiting_bytes += bytes;
  link_->wake(1 - index_);
  return true;
}

std::optional<Bytes> Side::try_receive() const {
  const std::lock_guard lock(link_->mutex);
  if (end_->is_aborted) lost("aborted");
  if (end_->is_closed) throw Error(Errc::peer_closed, "connection to " + name_ + " was closed on this side");
  Way& way = incoming();
  if (!way.waiting.empty()) {
    Bytes message = std::move(way.waiting.front());
    way.waiting.pop_front();
    way.waiting_bytes -= message.size();
    link_->wake(1 - index_);
    return message;
  }
  if (way.state == Way::State::broken) lost("the peer has ended it");
  if (way.state == Way::State::closed) {
    throw Error(Errc::peer_closed, name_ + " closed the connection" + (way.reason.empty() ? "" : ": " + way.reason));
  }
  return std::nullopt;
}

void Side::close(const std::string& reason) const {
  const std::lock_guard lock(link_->mutex);
  if (end_->is_aborted || end_->is_closed) return;
  end_->is_closed = true;
  end_->changed.cancel();
  if (outgoing().state == Way::State::open) outgoing().reason = reason.substr(0, 120);
  outgoing().end(Way::State::closed);
  incoming().end(Way::State::broken);
  link_->wake(1 - index_);
}

void Side::abort() const {
  const std::lock_guard lock(link_->mutex);
  end_->is_aborted = true;
  end_->changed.cancel();
  for (Way& way : link_->ways) way.end(Way::State::broken);
  link_->wake(1 - index_);
}

void Side::leave() const {
  abort();
  const std::lock_guard lock(link_->mutex);
  link_->ends[index_].reset();
}

Task<> Side::wait_for_change() const {
  // No change is missed between the look and the wait: who wakes posts to this very executor.
  boost::system::error_code cancelled;
  auto waiting = end_->changed.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  co_await std::move(waiting);
}

Task<> send_from(Side side, View head, View body) {
  check_message_size(head.size() + body.size());
  const SingleFlight turn(side.end().is_sending, "send");
  while (!side.try_send(head, body)) co_await side.wait_for_change();
  side.end().bytes_sent += head.size() + body.size();
}

Task<View> receive_at(Side side) {
  End& end = side.end();
  const SingleFlight turn(end.is_receiving, "receive");
  auto message = side.try_receive();
  while (!message) {
    co_await side.wait_for_change();
    message = side.try_receive();
  }
  if (message->size() > end.message_limit) {
    side.abort();
    throw Error(Errc::protocol, side.name() + " sent a message above " + std::to_string(end.message_limit) + " bytes");
  }
  end.received = std::move(*message);
  end.bytes_received += end.received.size();
  co_return View(end.received);
}

Task<> close_from(Side side, std::string reason) {
  side.close(reason);
  co_return;
}

class LoopbackChannel final : public MessageChannel {
 public:
  explicit LoopbackChannel(Side side) : side_(std::move(side)) {}
  ~LoopbackChannel() override { side_.leave(); }

  Task<> send(View head, View body) override { return send_from(side_, head, body); }
  Task<View> receive() override { return receive_at(side_); }
  void limit_messages(std::size_t bytes) noexcept override { side_.end().message_limit = bytes; }
  void limit_silence(std::chrono::milliseconds /*span*/) noexcept override {}
  Task<> close(std::string reason) override { return close_from(side_, std::move(reason)); }
  void abort() noexcept override { side_.abort(); }
  [[nodiscard]] std::uint64_t bytes_sent() const noexcept override { return side_.end().bytes_sent; }
  [[nodiscard]] std::uint64_t bytes_received() const noexcept override { return side_.end().bytes_received; }
  [[nodiscard]] std::string peer() const override { return side_.name(); }

 private:
  Side side_;
};

}  // namespace

LoopbackPair make_loopback(asio::any_io_executor first, asio::any_io_executor second, const std::string& name) {
  auto link = std::make_shared<Link>();
  link->ends = {std::make_shared<End>(first), std::make_shared<End>(second)};
  const std::string peer = "loopback:" + name;
  return {std::make_unique<LoopbackChannel>(Side(link, 0, peer)),
          std::make_unique<LoopbackChannel>(Side(link, 1, peer))};
}

}  // namespace headstart::net
