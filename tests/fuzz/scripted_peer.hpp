// What the targets of conversations share: a channel that the input speaks on, and where attachments go. The input is
// frames, each behind its length (two bytes, little-endian).
#pragma once

#include <algorithm>
#include <string>

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "shared/net/message_channel.hpp"
#include "shared/session/byte_stream.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace headstart::fuzz {

/// The other side: says what is in the input and then closes. Each frame comes when this side has done what it can, as
/// if the other side were slow: else all of the input would be read before anybody had asked for an attachment.
class ScriptedPeer final : public net::MessageChannel {
 public:
  explicit ScriptedPeer(std::span<const std::byte> script) : script_(script) {}

  net::Task<> send(std::span<const std::byte> head, std::span<const std::byte> body) override {
    sent_ += head.size() + body.size();
    co_return;
  }
  net::Task<std::span<const std::byte>> receive() override {
    co_await net::asio::post(co_await net::asio::this_coro::executor, net::asio::use_awaitable);
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
    require(offset == written_ && data.size() <= num_bytes() - offset, "chunks come in order and fit");
    written_ += data.size();
  }
  [[nodiscard]] bool is_whole() const { return written_ == num_bytes(); }
  [[nodiscard]] bool is_empty() const { return written_ == 0; }

 private:
  std::uint64_t written_ = 0;
};

}  // namespace headstart::fuzz
