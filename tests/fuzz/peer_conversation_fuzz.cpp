// Everything that a neighbour sends after it has greeted, to a peer that pulls each message that is ready, hands out
// its own, and gives up one that is gone. Promised: this side ends when the neighbour's does; each pull ends, with a
// whole message or a reason; none is given up as gone that has begun to come.
#include <array>
#include <optional>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "shared/session/conversation.hpp"
#include "tests/fuzz/scripted_peer.hpp"

namespace {

using namespace headstart;
using fuzz::ScriptedPeer, fuzz::Sink;
using session::PeerConversation;

struct NotKept : Error {
  NotKept() : Error(Errc::interrupted, "the message is not kept any more") {}
};

class OwnMessage final : public session::ByteSource {
 public:
  [[nodiscard]] std::uint64_t num_bytes() const override { return bytes_.size(); }
  std::span<const std::byte> read(std::uint64_t offset, std::size_t count) override {
    return std::span(bytes_).subspan(offset, count);
  }

 private:
  std::array<std::byte, 24> bytes_{};
};

/// As client/peer does over one connection.
class Listener {
 public:
  explicit Listener(PeerConversation& conversation) : conversation_(conversation) {}

  net::Task<> listen() {
    while (true) {
      const wire::PeerMessage message = co_await conversation_.next_message();
      if (const auto* ready = std::get_if<wire::Ready>(&message)) {
        if (ready->num_bytes == Sink().num_bytes() && !is_pulling_) begin_pull(ready->round);
      } else if (const auto* pull = std::get_if<wire::Pull>(&message)) {
        if (pull->round > 2) {
          conversation_.post(wire::Gone{pull->round});
        } else {
          conversation_.post_attachment(std::make_shared<OwnMessage>());
        }
      } else if (std::holds_alternative<wire::Gone>(message)) {
        conversation_.abandon_attachment(std::make_exception_ptr(NotKept()));
      } else if (!std::holds_alternative<wire::Done>(message)) {
        throw Error(Errc::protocol, "a message out of turn");
      }
    }
  }
  [[nodiscard]] bool is_pulling() const { return is_pulling_; }

 private:
  void begin_pull(std::uint32_t round) {
    is_pulling_ = true;
    auto pulling = pull(round);
    net::asio::co_spawn(conversation_.executor(), std::move(pulling), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
  }
  net::Task<> pull(std::uint32_t round) {
    Sink sink;
    conversation_.post(wire::Pull{round});
    try {
      auto receiving = conversation_.receive_attachment(sink);
      co_await std::move(receiving);
      fuzz::require(sink.is_whole(), "a message that was received is whole");
    } catch (const NotKept&) {
      fuzz::require(sink.is_empty(), "what has begun to come is not given up");
    } catch (const Error& error) {
      fuzz::require(conversation_.has_ended() && error.code() != Errc::internal, "a pull fails with its connection");
    }
    is_pulling_ = false;
  }

  PeerConversation& conversation_;
  bool is_pulling_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  net::asio::io_context io(1);
  const auto conversation =
      std::make_shared<PeerConversation>(io.get_executor(), std::make_unique<ScriptedPeer>(fuzz::bytes_of(data, size)));
  int num_ends = 0;
  std::optional<std::exception_ptr> ended;
  conversation->start({.intercept = {}, .on_end = [&num_ends] { ++num_ends; }});
  Listener listener(*conversation);
  net::asio::co_spawn(io, listener.listen(), [&](std::exception_ptr failure) {
    ended = failure;
    conversation->abort();
  });
  io.run();
  fuzz::require(conversation->has_ended() && num_ends == 1, "a conversation ends once");
  fuzz::require(ended.has_value(), "whoever waits for a message learns of the end");
  fuzz::require(!listener.is_pulling(), "whoever waits for an attachment learns of the end");
  fuzz::is_refused([&] { std::rethrow_exception(*ended); });
  return 0;
}
