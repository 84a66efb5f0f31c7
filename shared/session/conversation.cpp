#include "shared/session/conversation.hpp"

#include <algorithm>
#include <utility>

#include <boost/asio/co_spawn.hpp>

#include "shared/net/deadline.hpp"

namespace headstart::session {

namespace {

/// More waiting messages than any honest peer leaves: one task with its inputs, its grant, the end of the run.
constexpr std::size_t max_inbox = wire::max_inputs + 64;
constexpr std::size_t max_inbox_bytes = 4 * wire::max_control_bytes;

/// The receiver holds one chunk for each connection that sends.
constexpr std::size_t chunk_bytes = std::size_t{256} << 10;

/// For what is queued when the conversation is closed: a peer that takes nothing is left without it.
constexpr std::chrono::milliseconds flush_limit = std::chrono::seconds(3);

auto decode(std::span<const std::byte> frame, const wire::ClientMessage*) { return wire::decode_from_client(frame); }
auto decode(std::span<const std::byte> frame, const wire::ServerMessage*) { return wire::decode_from_server(frame); }
auto decode(std::span<const std::byte> frame, const wire::PeerMessage*) { return wire::decode_from_peer(frame); }

}  // namespace

template <class Incoming, class Outgoing>
Conversation<Incoming, Outgoing>::Conversation(net::asio::any_io_executor executor,
                                               std::unique_ptr<net::MessageChannel> channel)
    : executor_(std::move(executor)),
      channel_(std::move(channel)),
      outbox_changed_(executor_),
      inbox_changed_(executor_),
      sink_changed_(executor_) {}

template <class Incoming, class Outgoing>
void Conversation<Incoming, Outgoing>::start(Hooks hooks) {
  hooks_ = std::move(hooks);
  channel_->limit_messages(wire::max_control_bytes);
  // Each loop ends by recording why; its handler keeps the conversation alive until then.
  const auto on_end = [self = this->shared_from_this()](std::exception_ptr failure) {
    self->end(failure ? failure
                      : std::make_exception_ptr(
                            Error(Errc::peer_closed, "the conversation with " + self->peer() + " is over")));
  };
  net::asio::co_spawn(executor_, read_loop(), on_end);
  net::asio::co_spawn(executor_, write_loop(), on_end);
}

template <class Incoming, class Outgoing>
void Conversation<Incoming, Outgoing>::post(const Outgoing& message) {
  if (has_ended()) return;
  outbox_.push_back(wire::encode(message));
  outbox_changed_.notify();
}

template <class Incoming, class Outgoing>
void Conversation<Incoming, Outgoing>::post_attachment(std::shared_ptr<ByteSource> source) {
  const std::uint32_t id = attachments_sent_++;
  post(wire::Attachment{id, source->num_bytes()});
  if (has_ended()) return;
  outbox_.push_back(Outflow{id, std::move(source)});
  outbox_changed_.notify();
}

template <class Incoming, class Outgoing>
net::Task<> Conversation<Incoming, Outgoing>::flush() {
  while (!is_flushed()) {
    rethrow_if_ended();
    co_await outbox_changed_.wait();
  }
}

template <class Incoming, class Outgoing>
net::Task<Incoming> Conversation<Incoming, Outgoing>::next_message() {
  // What was said before the connection ended still counts.
  while (inbox_.empty()) {
    rethrow_if_ended();
    is_awaited_ = true;
    if (is_parked_) sink_changed_.notify();
    co_await inbox_changed_.wait();
    is_awaited_ = false;
    if (interruption_) std::rethrow_exception(std::exchange(interruption_, nullptr));
  }
  Incoming message = std::move(inbox_.front().message);
  inbox_bytes_ -= inbox_.front().num_bytes;
  inbox_.pop_front();
  co_return message;
}

template <class Incoming, class Outgoing>
void Conversation<Incoming, Outgoing>::interrupt(std::exception_ptr failure) {
  if (!is_awaited_) return;
  interruption_ = std::move(failure);
  inbox_changed_.notify();
}

template <class Incoming, class Outgoing>
net::Task<> Conversation<Incoming, Outgoing>::receive_attachment(ByteSink& sink) {
  sink_ = &sink;
  sink_changed_.notify();
  while (sink_ != nullptr) {
    if (has_ended() && !is_placing_) {
      sink_ = nullptr;
      rethrow_if_ended();
    }
    co_await sink_changed_.wait();
  }
  if (abandonment_) std::rethrow_exception(std::exchange(abandonment_, nullptr));
}

template <class Incoming, class Outgoing>
void Conversation<Incoming, Outgoing>::abandon_attachment(std::exception_ptr failure) {
  if (sink_ == nullptr || is_filling_) return;
  abandonment_ = std::move(failure);
  sink_ = nullptr;
  sink_changed_.notify();
}

template <class Incoming, class Outgoing>
net::Task<> Conversation<Incoming, Outgoing>::close(std::string reason) {
  const auto self = this->shared_from_this();
  try {
    const net::Deadline deadline(executor_, flush_limit, [self] { self->abort(); });
    auto flushing = flush();
    co_await std::move(flushing);
  } catch (const std::exception&) {
    // Lost in the meantime: there is nobody left to say goodbye to.
  }
  co_await channel_->close(std::move(reason));
  end(std::make_exception_ptr(Error(Errc::peer_closed, "the conversation with " + peer() + " is over")));
}

template <class Incoming, class Outgoing>
void Conversation<Incoming, Outgoing>::abort() {
  end(std::make_exception_ptr(Error(Errc::network, "the connection to " + peer() + " was ended on this side")));
}

template <class Incoming, class Outgoing>
void Conversation<Incoming, Outgoing>::abort(const Error& why) {
  end(std::make_exception_ptr(why));
}

template <class Incoming, class Outgoing>
net::Task<> Conversation<Incoming, Outgoing>::read_loop() {
  while (!has_ended()) {
    const std::span<const std::byte> frame = co_await channel_->receive();
    auto decoded = decode(frame, static_cast<const Incoming*>(nullptr));
    if (std::holds_alternative<wire::Chunk>(decoded)) {
      throw Error(Errc::protocol, peer() + " sent a chunk that belongs to no attachment");
    }
    auto& message = std::get<Incoming>(decoded);
    if (const auto* announced = std::get_if<wire::Attachment>(&message)) {
      co_await read_attachment(*announced);
    } else if (!hooks_.intercept || !hooks_.intercept(message)) {
      inbox_bytes_ += frame.size();
      if (inbox_.size() >= max_inbox || inbox_bytes_ > max_inbox_bytes) {
        throw Error(Errc::protocol, peer() + " sends more messages than any task needs");
      }
      inbox_.push_back({std::move(message), frame.size()});
      inbox_changed_.notify();
    }
  }
}

/// While the channel may write into the sink's memory.
template <class Incoming, class Outgoing>
class Conversation<Incoming, Outgoing>::Placing {
 public:
  explicit Placing(Conversation& conversation) : conversation_(conversation) { conversation_.is_placing_ = true; }
  ~Placing() {
    conversation_.is_placing_ = false;
    if (conversation_.has_ended()) conversation_.sink_changed_.notify();
  }
  Placing(const Placing&) = delete;
  Placing& operator=(const Placing&) = delete;

 private:
  Conversation& conversation_;
};

template <class Incoming, class Outgoing>
net::Task<std::variant<Incoming, wire::Chunk>> Conversation<Incoming, Outgoing>::read_in_attachment(
    std::uint64_t offset) {
  rethrow_if_ended();  // the sink may be gone then
  const std::uint64_t left = sink_->num_bytes() - offset;
  std::span<std::byte> place;
  // Any message must fit there.
  if (left >= wire::max_control_bytes) {
    place = sink_->place(offset, std::min<std::uint64_t>(left, wire::max_chunk_bytes));
  }
  if (place.empty()) co_return decode(co_await channel_->receive(), static_cast<const Incoming*>(nullptr));
  net::SplitMessage frame;
  {
    const Placing placing(*this);
    auto receiving = channel_->receive_into(wire::chunk_head_bytes, place);
    frame = co_await std::move(receiving);
  }
  if (const auto chunk = wire::chunk_of(frame.head, frame.body)) co_return *chunk;
  std::vector<std::byte> whole(frame.head.begin(), frame.head.end());
  whole.insert(whole.end(), frame.body.begin(), frame.body.end());
  // No chunk, or decode() throws: what it returns does not refer to `whole`.
  co_return decode(whole, static_cast<const Incoming*>(nullptr));
}

template <class Incoming, class Outgoing>
net::Task<> Conversation<Incoming, Outgoing>::read_attachment(wire::Attachment announced) {
  // Not reading while nobody has said where the bytes go holds the peer back. Who waits for a message instead would
  // wait for ever; and who asks for each attachment, as servers and peers do, has the sink ready then.
  constexpr bool asks_first = !std::is_same_v<Incoming, wire::ServerMessage>;
  is_parked_ = true;
  while (sink_ == nullptr) {
    rethrow_if_ended();
    if (asks_first || (is_awaited_ && inbox_.empty())) {
      throw Error(Errc::protocol, peer() + " sends an attachment that nobody asked for");
    }
    co_await sink_changed_.wait();
  }
  is_parked_ = false;
  if (announced.id != attachments_received_ || announced.num_bytes != sink_->num_bytes()) {
    throw Error(Errc::protocol, peer() + " announces attachment " + std::to_string(announced.id) + " of " +
                                    std::to_string(announced.num_bytes) + " bytes; expected attachment " +
                                    std::to_string(attachments_received_) + " of " +
                                    std::to_string(sink_->num_bytes()) + " bytes");
  }
  ++attachments_received_;
  is_filling_ = true;
  channel_->limit_messages(net::max_message_bytes);
  for (std::uint64_t received = 0; received < announced.num_bytes;) {
    auto reading = read_in_attachment(received);
    const auto decoded = co_await std::move(reading);
    const auto* chunk = std::get_if<wire::Chunk>(&decoded);
    if (chunk == nullptr) {
      const auto& message = std::get<Incoming>(decoded);
      if (!hooks_.intercept || !hooks_.intercept(message)) {
        throw Error(Errc::protocol, peer() + " sent a message in the middle of an attachment");
      }
      continue;
    }
    if (chunk->attachment != announced.id || chunk->offset != received ||
        chunk->data.size() > announced.num_bytes - received) {
      throw Error(Errc::protocol, peer() + " sent a chunk out of place: attachment " +
                                      std::to_string(chunk->attachment) + ", offset " + std::to_string(chunk->offset) +
                                      ", expected offset " + std::to_string(received) + " of attachment " +
                                      std::to_string(announced.id));
    }
    rethrow_if_ended();
    const std::span<const std::byte> place = sink_->place(received, chunk->data.size());
    if (place.data() != chunk->data.data()) sink_->write(received, chunk->data);
    received += chunk->data.size();
  }
  channel_->limit_messages(wire::max_control_bytes);
  is_filling_ = false;
  sink_ = nullptr;
  sink_changed_.notify();
}

template <class Incoming, class Outgoing>
net::Task<> Conversation<Incoming, Outgoing>::write_loop() {
  while (!has_ended()) {
    if (outbox_.empty()) {
      co_await outbox_changed_.wait();
      continue;
    }
    const std::variant<Frame, Outflow> item = std::move(outbox_.front());
    outbox_.pop_front();
    is_writing_ = true;
    if (const auto* frame = std::get_if<Frame>(&item)) {
      co_await channel_->send(*frame, {});
    } else {
      co_await send_chunks(std::get<Outflow>(item));
    }
    is_writing_ = false;
    if (outbox_.empty()) outbox_changed_.notify();
  }
}

template <class Incoming, class Outgoing>
net::Task<> Conversation<Incoming, Outgoing>::send_chunks(const Outflow& outflow) {
  const std::uint64_t size = outflow.source->num_bytes();
  for (std::uint64_t offset = 0; offset < size;) {
    const std::size_t count = std::min<std::uint64_t>(chunk_bytes, size - offset);
    const wire::ChunkHead head = wire::encode_chunk_head(outflow.attachment, offset);
    co_await channel_->send(head, outflow.source->read(offset, count));
    offset += count;
  }
}

template <class Incoming, class Outgoing>
void Conversation<Incoming, Outgoing>::end(std::exception_ptr failure) {
  if (has_ended()) return;
  failure_ = std::move(failure);
  outbox_.clear();
  channel_->abort();
  outbox_changed_.notify();
  inbox_changed_.notify();
  sink_changed_.notify();
  if (hooks_.on_end) hooks_.on_end();
}

template <class Incoming, class Outgoing>
void Conversation<Incoming, Outgoing>::rethrow_if_ended() const {
  if (failure_) std::rethrow_exception(failure_);
}

template <class Incoming, class Outgoing>
std::string Conversation<Incoming, Outgoing>::ending() const {
  try {
    rethrow_if_ended();
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

template <class Incoming, class Outgoing>
std::optional<std::string> Conversation<Incoming, Outgoing>::violation() const {
  try {
    rethrow_if_ended();
  } catch (const Error& error) {
    if (error.code() == Errc::protocol) return error.what();
  } catch (const std::exception&) {
    // The network's doing, or a bug of ours.
  }
  return std::nullopt;
}

template class Conversation<wire::ClientMessage, wire::ServerMessage>;
template class Conversation<wire::ServerMessage, wire::ClientMessage>;
template class Conversation<wire::PeerMessage, wire::PeerMessage>;

}  // namespace headstart::session
