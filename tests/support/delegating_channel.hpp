// A channel that does what another does; tests override what they change.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "shared/net/message_channel.hpp"

namespace headstart::test {

template <class Inner = net::MessageChannel>
class DelegatingChannel : public net::MessageChannel {
 public:
  explicit DelegatingChannel(std::unique_ptr<Inner> inner) : inner_(std::move(inner)) {}

  net::Task<> send(std::span<const std::byte> head, std::span<const std::byte> body) override {
    return inner_->send(head, body);
  }
  net::Task<std::span<const std::byte>> receive() override { return inner_->receive(); }
  void limit_messages(std::size_t bytes) noexcept override { inner_->limit_messages(bytes); }
  void limit_silence(std::chrono::milliseconds span) noexcept override { inner_->limit_silence(span); }
  net::Task<bool> answers(std::chrono::milliseconds limit) override { return inner_->answers(limit); }
  net::Task<> close(std::string reason) override { return inner_->close(std::move(reason)); }
  void abort() noexcept override { inner_->abort(); }
  [[nodiscard]] std::uint64_t bytes_sent() const noexcept override { return inner_->bytes_sent(); }
  [[nodiscard]] std::uint64_t bytes_received() const noexcept override { return inner_->bytes_received(); }
  [[nodiscard]] std::string peer() const override { return inner_->peer(); }
  [[nodiscard]] std::string identity() const override { return inner_->identity(); }
  [[nodiscard]] std::optional<SystemTime> identity_expires() const override { return inner_->identity_expires(); }

 protected:
  [[nodiscard]] const Inner& inner() const { return *inner_; }

 private:
  std::unique_ptr<Inner> inner_;
};

}  // namespace headstart::test
