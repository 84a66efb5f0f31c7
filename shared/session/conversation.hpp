// One conversation with one peer: typed messages and attachments over a message channel. The same code serves server,
// client and peers without a server, network and simulation.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "shared/net/message_channel.hpp"
#include "shared/net/signal.hpp"
#include "shared/session/byte_stream.hpp"
#include "shared/wire/codec.hpp"

namespace headstart::session {

/// Always reads, so that heartbeats are answered while the program computes; writes from a queue, so that nobody waits
/// for a slow peer who does not want to.
///
/// Lifetime: shared; start() keeps the object alive until the connection has ended, which close(), abort() or the peer
/// brings about. Thread rule: all calls on the channel's executor, at most one next_message() and one
/// receive_attachment() at a time. After the connection has ended every waiting call throws what ended it.
template <class Incoming, class Outgoing>
class Conversation : public std::enable_shared_from_this<Conversation<Incoming, Outgoing>> {
 public:
  Conversation(net::asio::any_io_executor executor, std::unique_ptr<net::MessageChannel> channel);

  struct Hooks {
    /// Sees each message first and returns true to keep it (progress reports, whose number must not fill the inbox).
    std::function<bool(const Incoming&)> intercept;
    /// Called once, when the connection has ended.
    std::function<void()> on_end;
  };
  /// Starts reading and writing.
  void start(Hooks hooks = {});

  /// Queues a message. Does nothing once the connection has ended.
  void post(const Outgoing& message);
  /// Queues an attachment's announcement and chunks.
  void post_attachment(std::shared_ptr<ByteSource> source);
  /// Resumes when everything queued so far has been handed to the transport.
  net::Task<> flush();

  /// The next message that is neither intercepted nor an attachment's announcement.
  net::Task<Incoming> next_message();
  /// Has the waiting next_message(), if one waits, throw `failure`; the conversation goes on.
  void interrupt(std::exception_ptr failure);

  /// Takes the next attachment, which must have exactly the sink's size; chunks must come in order.
  /// Throws Error(protocol) otherwise, and the connection is ended. The sink is not used once this has ended.
  net::Task<> receive_attachment(ByteSink& sink);
  /// Has the waiting receive_attachment() throw `failure`, if one waits whose attachment has not begun to come.
  void abandon_attachment(std::exception_ptr failure);

  /// See MessageChannel.
  net::Task<bool> answers(std::chrono::milliseconds limit) { return channel_->answers(limit); }
  void limit_silence(std::chrono::milliseconds span) { channel_->limit_silence(span); }

  /// Flushes, says goodbye, ends the connection, each within a few seconds whatever the peer does. Never throws.
  net::Task<> close(std::string reason);
  /// Ends the connection now; `why`, where it is the peer's fault.
  void abort();
  void abort(const Error& why);

  [[nodiscard]] bool has_ended() const { return failure_ != nullptr; }
  /// Throws what ended the connection.
  void rethrow_if_ended() const;
  /// What ended the connection, in words; empty: it has not ended.
  [[nodiscard]] std::string ending() const;
  /// The same, where the peer broke the protocol.
  [[nodiscard]] std::optional<std::string> violation() const;
  /// Whether everything queued so far has been handed to the transport.
  [[nodiscard]] bool is_flushed() const { return outbox_.empty() && !is_writing_; }
  [[nodiscard]] std::uint64_t bytes_sent() const { return channel_->bytes_sent(); }
  [[nodiscard]] std::uint64_t bytes_received() const { return channel_->bytes_received(); }
  [[nodiscard]] std::string peer() const { return channel_->peer(); }
  /// What the peer's certificate proves; empty in the clear.
  [[nodiscard]] std::string identity() const { return channel_->identity(); }
  [[nodiscard]] const net::asio::any_io_executor& executor() const { return executor_; }

 private:
  class Placing;
  using Frame = std::vector<std::byte>;
  struct Outflow {
    std::uint32_t attachment;
    std::shared_ptr<ByteSource> source;
  };

  net::Task<> read_loop();
  net::Task<> write_loop();
  net::Task<> read_attachment(wire::Attachment announced);
  /// The next chunk, read into the sink where that has a place for it, or message.
  net::Task<std::variant<Incoming, wire::Chunk>> read_in_attachment(std::uint64_t offset);
  net::Task<> send_chunks(const Outflow& outflow);
  void end(std::exception_ptr failure);

  net::asio::any_io_executor executor_;
  std::unique_ptr<net::MessageChannel> channel_;
  Hooks hooks_;

  std::deque<std::variant<Frame, Outflow>> outbox_;
  bool is_writing_ = false;
  std::uint32_t attachments_sent_ = 0;
  net::Signal outbox_changed_;

  struct Waiting {
    Incoming message;
    std::size_t num_bytes;  ///< Of its frame.
  };
  std::deque<Waiting> inbox_;
  std::size_t inbox_bytes_ = 0;
  bool is_awaited_ = false;  ///< next_message() waits.
  bool is_parked_ = false;   ///< An attachment was announced and has no sink yet.
  std::exception_ptr interruption_;
  ByteSink* sink_ = nullptr;  ///< Set while receive_attachment() waits.
  bool is_filling_ = false;   ///< The sink's attachment has begun to come.
  std::exception_ptr abandonment_;
  bool is_placing_ = false;  ///< The channel may write into the sink's memory.
  std::uint32_t attachments_received_ = 0;
  net::Signal inbox_changed_;
  net::Signal sink_changed_;

  std::exception_ptr failure_;
};

using ServerConversation = Conversation<wire::ClientMessage, wire::ServerMessage>;
using ClientConversation = Conversation<wire::ServerMessage, wire::ClientMessage>;
using PeerConversation = Conversation<wire::PeerMessage, wire::PeerMessage>;

extern template class Conversation<wire::ClientMessage, wire::ServerMessage>;
extern template class Conversation<wire::ServerMessage, wire::ClientMessage>;
extern template class Conversation<wire::PeerMessage, wire::PeerMessage>;

}  // namespace headstart::session
