// Everything that a client sends after it has joined: messages, announcements and chunks in any order. The input is
// frames, each behind its length (two bytes, little-endian). Promised: the server's side ends when the client's does,
// and what it took for an attachment is whole.
#include <array>
#include <optional>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "shared/session/conversation.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace headstart;

/// A peer that says what is in the input and then closes.
class ScriptedPeer final : public net::MessageChannel {
 public:
  explicit ScriptedPeer(std::span<const std::byte> script) : script_(script) {}

  net::Task<> send(std::span<const std::byte> head, std::span<const std::byte> body) override {
    sent_ += head.size() + body.size();
    co_return;
  }
  net::Task<std::span<const std::byte>> receive() override {
    if (is_aborted_ || script_.size() < 2) throw Error(Errc::peer_closed, "the input is over");
    const std::size_t length = std::min(
        std::to_integer<std::size_t>(script_[0]) | std::to_integer<std::size_t>(script_[1]) << 8U, script_.size() - 2);
    const auto frame = script_.subspan(2, length);
    script_ = script_.subspan(2 + length);
    received_ += length;
    if (length > limit_) throw Error(Errc::protocol, "a message above the limit");
    co_return frame;
  }
  void limit_messages(std::size_t bytes) noexcept override { limit_ = bytes; }
  void limit_silence(std::chrono::milliseconds /*span*/) noexcept override {}
  net::Task<> close(std::string /*reason*/) override {
    abort();
    co_return;
  }
  void abort() noexcept override { is_aborted_ = true; }
  [[nodiscard]] std::uint64_t bytes_sent() const noexcept override { return sent_; }
  [[nodiscard]] std::uint64_t bytes_received() const noexcept override { return received_; }
  [[nodiscard]] std::string peer() const override { return "input"; }

 private:
  std::span<const std::byte> script_;
  std::size_t limit_ = net::max_message_bytes;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  bool is_aborted_ = false;
};

/// Small enough for the input to fill, and not in one chunk.
class Sink final : public session::ByteSink {
 public:
  [[nodiscard]] std::uint64_t num_bytes() const override { return 24; }
  void write(std::uint64_t offset, std::span<const std::byte> data) override {
    fuzz::require(offset == written_ && data.size() <= num_bytes() - offset, "chunks come in order and fit");
    written_ += data.size();
  }
  [[nodiscard]] bool is_whole() const { return written_ == num_bytes(); }

 private:
  std::uint64_t written_ = 0;
};

/// As a client's session does: a result with a state is granted and taken.
net::Task<> serve(session::ServerConversation& conversation) {
  while (true) {
    const wire::ClientMessage message = co_await conversation.next_message();
    const auto* result = std::get_if<wire::Result>(&message);
    if (result == nullptr || result->num_bytes != Sink().num_bytes()) continue;
    conversation.post(wire::Grant{result->task});
    Sink sink;
    co_await conversation.receive_attachment(sink);
    fuzz::require(sink.is_whole(), "an attachment that was received is whole");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  net::asio::io_context io(1);
  const auto conversation = std::make_shared<session::ServerConversation>(
      io.get_executor(), std::make_unique<ScriptedPeer>(fuzz::bytes_of(data, size)));
  int num_ends = 0;
  std::optional<std::exception_ptr> ended;
  conversation->start(
      {.intercept =
           [](const wire::ClientMessage& message) { return std::holds_alternative<wire::ProgressReport>(message); },
       .on_end = [&num_ends] { ++num_ends; }});
  net::asio::co_spawn(io, serve(*conversation), [&ended](std::exception_ptr failure) { ended = failure; });
  io.run();
  fuzz::require(conversation->has_ended() && num_ends == 1, "a conversation ends once");
  fuzz::require(ended.has_value(), "whoever waits for a message learns of the end");
  fuzz::is_refused([&] { std::rethrow_exception(*ended); });
  return 0;
}
