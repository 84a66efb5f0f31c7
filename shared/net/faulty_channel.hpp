// A channel that misbehaves once, on request: tests visit every step of a conversation with it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "shared/net/message_channel.hpp"

namespace headstart::net {

enum class Fault {
  none,       ///< Counts only.
  fail,       ///< The connection is lost.
  truncate,   ///< Half of the message is missing.
  duplicate,  ///< The message comes twice.
  flip_bit,   ///< One bit is wrong.
  reorder,    ///< The message comes after the next one of its direction; where none follows, it never comes.
  delay,      ///< The message waits for `FaultPlan::delay`.
};

struct FaultPlan {
  Fault fault = Fault::none;
  std::uint64_t operation = 0;  ///< Where: each send and each receive is one operation, counted from 0 as they start.
  std::uint64_t bit = 0;        ///< flip_bit: which, counted modulo the message's bits.
  std::function<Task<>()> delay = {};  ///< Awaited before the message is sent, or after it was received.
};

/// Decorates any channel; for the rest of the contract the decorated channel answers.
class FaultyChannel final : public MessageChannel {
 public:
  FaultyChannel(std::unique_ptr<MessageChannel> inner, FaultPlan plan);
  ~FaultyChannel() override;

  Task<> send(std::span<const std::byte> head, std::span<const std::byte> body) override;
  Task<std::span<const std::byte>> receive() override;
  void limit_messages(std::size_t bytes) noexcept override;
  void limit_silence(std::chrono::milliseconds span) noexcept override;
  Task<bool> answers(std::chrono::milliseconds limit) override;
  Task<> close(std::string reason) override;
  void abort() noexcept override;
  [[nodiscard]] std::uint64_t bytes_sent() const noexcept override;
  [[nodiscard]] std::uint64_t bytes_received() const noexcept override;
  [[nodiscard]] std::string peer() const override;
  [[nodiscard]] std::string identity() const override;
  [[nodiscard]] std::optional<SystemTime> identity_expires() const override;

  /// Sends and receives begun so far.
  [[nodiscard]] std::uint64_t operations() const noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace headstart::net
