#include "shared/net/faulty_channel.hpp"

#include <optional>
#include <utility>
#include <vector>

#include "shared/base/error.hpp"

namespace headstart::net {

using Bytes = std::vector<std::byte>;
using View = std::span<const std::byte>;

// The coroutines share the state's ownership, so that the channel may be destroyed while one is pending.
struct FaultyChannel::State {
  std::unique_ptr<MessageChannel> inner;
  FaultPlan plan;
  std::uint64_t operations = 0;
  Bytes damaged;
  std::optional<Bytes> repeated;  ///< Received, to be delivered before anything else is received.
  std::optional<Bytes> held;      ///< To be sent, behind the next message.

  static Task<> send(std::shared_ptr<State> self, View head, View body);
  static Task<View> receive(std::shared_ptr<State> self);

  Fault next_fault() { return operations++ == plan.operation ? plan.fault : Fault::none; }
  void damage(Fault fault);
  [[noreturn]] void fail();
};

void FaultyChannel::State::damage(Fault fault) {
  if (damaged.empty()) return;
  if (fault == Fault::truncate) {
    damaged.resize(damaged.size() / 2);
  } else {
    const auto bit = plan.bit % (damaged.size() * 8);
    damaged[bit / 8] ^= std::byte{1} << (bit % 8);
  }
}

void FaultyChannel::State::fail() {
  inner->abort();
  throw Error(Errc::network,
              "connection to " + inner->peer() + " lost: injected at operation " + std::to_string(plan.operation));
}

Task<> FaultyChannel::State::send(std::shared_ptr<State> self, View head, View body) {
  const Fault fault = self->next_fault();
  if (fault == Fault::fail) self->fail();
  if (fault == Fault::delay && self->plan.delay) co_await self->plan.delay();
  if (fault == Fault::truncate || fault == Fault::flip_bit) {
    self->damaged.assign(head.begin(), head.end());
    self->damaged.insert(self->damaged.end(), body.begin(), body.end());
    self->damage(fault);
    co_await self->inner->send(self->damaged, {});
    co_return;
  }
  if (fault == Fault::reorder) {
    self->held.emplace(head.begin(), head.end());
    self->held->insert(self->held->end(), body.begin(), body.end());
    co_return;
  }
  if (fault == Fault::duplicate) co_await self->inner->send(head, body);
  co_await self->inner->send(head, body);
  if (self->held) {
    self->damaged = std::move(*self->held);
    self->held.reset();
    co_await self->inner->send(self->damaged, {});
  }
}

Task<View> FaultyChannel::State::receive(std::shared_ptr<State> self) {
  const Fault fault = self->next_fault();
  if (fault == Fault::fail) self->fail();
  if (self->repeated) {
    self->damaged = std::move(*self->repeated);
    self->repeated.reset();
  } else {
    const View message = co_await self->inner->receive();
    if (fault == Fault::none) co_return message;
    self->damaged.assign(message.begin(), message.end());
  }
  if (fault == Fault::delay && self->plan.delay) co_await self->plan.delay();
  if (fault == Fault::truncate || fault == Fault::flip_bit) self->damage(fault);
  if (fault == Fault::duplicate) self->repeated = self->damaged;
  if (fault == Fault::reorder) {
    self->repeated = std::move(self->damaged);
    const View next = co_await self->inner->receive();
    self->damaged.assign(next.begin(), next.end());
  }
  co_return self->damaged;
}

FaultyChannel::FaultyChannel(std::unique_ptr<MessageChannel> inner, FaultPlan plan)
    : state_(std::make_shared<State>()) {
  state_->inner = std::move(inner);
  state_->plan = std::move(plan);
}

FaultyChannel::~FaultyChannel() { abort(); }

Task<> FaultyChannel::send(View head, View body) { return State::send(state_, head, body); }
Task<View> FaultyChannel::receive() { return State::receive(state_); }
void FaultyChannel::limit_messages(std::size_t bytes) noexcept { state_->inner->limit_messages(bytes); }
Task<bool> FaultyChannel::answers(std::chrono::milliseconds limit) { return state_->inner->answers(limit); }
void FaultyChannel::limit_silence(std::chrono::milliseconds span) noexcept { state_->inner->limit_silence(span); }
Task<> FaultyChannel::close(std::string reason) { return state_->inner->close(std::move(reason)); }
void FaultyChannel::abort() noexcept { state_->inner->abort(); }
std::uint64_t FaultyChannel::bytes_sent() const noexcept { return state_->inner->bytes_sent(); }
std::uint64_t FaultyChannel::bytes_received() const noexcept { return state_->inner->bytes_received(); }
std::string FaultyChannel::peer() const { return state_->inner->peer(); }
std::string FaultyChannel::identity() const { return state_->inner->identity(); }
std::optional<SystemTime> FaultyChannel::identity_expires() const { return state_->inner->identity_expires(); }
std::uint64_t FaultyChannel::operations() const noexcept { return state_->operations; }

}  // namespace headstart::net
