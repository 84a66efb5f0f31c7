// The one interface between those who speak and how bytes travel.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "shared/base/clock.hpp"
#include "shared/net/task.hpp"

namespace headstart::net {

/// A message in two parts: its first bytes, and those that follow.
struct SplitMessage {
  std::span<const std::byte> head;
  std::span<const std::byte> body;
};

/// An ordered, reliable stream of whole messages to one peer.
/// Thread rule: all calls on the channel's executor. One send and one receive may be pending at a time.
class MessageChannel {
 public:
  virtual ~MessageChannel() = default;

  /// Sends `head` followed by `body` as one message; both must outlive the call. Resumes when the transport has taken
  /// the bytes (back-pressure). Throws Error(network) when the connection is lost, Error(internal) above
  /// max_message_bytes.
  virtual Task<> send(std::span<const std::byte> head, std::span<const std::byte> body) = 0;

  /// The next message; the view is valid until the next receive() or the channel's end.
  /// Throws Error(peer_closed) on an orderly end, Error(network) on a lost connection, Error(protocol) on a message
  /// above the limit or of the wrong kind (the channel is then closed).
  virtual Task<std::span<const std::byte>> receive() = 0;

  /// The next message in two parts, the head of `head_bytes` (512 at most), fewer where the message is shorter. The
  /// body lies in `place` where the channel can receive into it, which spares a copy; else, as the head, it is valid
  /// until the next receive. `place` stays valid until this ends, and its content is undefined then beyond the body.
  /// Throws as receive(); a message above `head_bytes` and place.size() together may count as above the limit.
  virtual Task<SplitMessage> receive_into(std::size_t head_bytes, std::span<std::byte> place);

  /// From the next receive() on, a message of the peer above `bytes` is a violation; max_message_bytes until then.
  virtual void limit_messages(std::size_t bytes) noexcept = 0;

  /// From now on a peer from whom nothing was heard for `span` is lost. Without effect where silence is no loss.
  virtual void limit_silence(std::chrono::milliseconds span) noexcept = 0;

  /// Whether the peer gives a sign of life within `limit`: answers a ping, or sends or takes anything. True at once
  /// where silence is no loss, or nobody here waits in receive() and could hear it.
  virtual Task<bool> answers(std::chrono::milliseconds limit);

  /// Says goodbye, waiting at most a few seconds for the peer. Never throws. `reason`: at most 120 bytes are sent.
  virtual Task<> close(std::string reason) = 0;

  /// Ends the connection now: pending calls throw. May be called at any time, also twice.
  virtual void abort() noexcept = 0;

  /// Payload bytes of whole messages, as handed to send() and returned by receive().
  [[nodiscard]] virtual std::uint64_t bytes_sent() const noexcept = 0;
  [[nodiscard]] virtual std::uint64_t bytes_received() const noexcept = 0;

  /// For logs: "127.0.0.1:50312", "loopback:silo-3".
  [[nodiscard]] virtual std::string peer() const = 0;

  /// The name that the peer's certificate proves; empty where the channel proves none.
  [[nodiscard]] virtual std::string identity() const { return {}; }

  /// When that certificate ends; empty without one.
  [[nodiscard]] virtual std::optional<SystemTime> identity_expires() const { return std::nullopt; }
};

inline Task<SplitMessage> MessageChannel::receive_into(std::size_t head_bytes, std::span<std::byte> /*place*/) {
  const std::span<const std::byte> message = co_await receive();
  const std::size_t split = std::min(head_bytes, message.size());
  co_return SplitMessage{message.first(split), message.subspan(split)};
}

inline Task<bool> MessageChannel::answers(std::chrono::milliseconds /*limit*/) { co_return true; }

/// No message is larger: a 1 MiB chunk and its head.
inline constexpr std::size_t max_message_bytes = (std::size_t{1} << 20) + 64;

}  // namespace headstart::net
