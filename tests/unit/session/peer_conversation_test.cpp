// Two peers over a loopback: who may send an attachment, and what becomes of one that is waited for.
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include <boost/asio/co_spawn.hpp>
#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/net/loopback.hpp"
#include "shared/session/conversation.hpp"
#include "tests/support/manual_loop.hpp"

namespace headstart::session {
namespace {

namespace asio = boost::asio;

wire::PackedState message_of(std::int64_t num_values, double value) {
  return wire::PackedState::of_tensor("x", torch::full({num_values}, value, torch::kDouble));
}
/// Several chunks, and more than a loopback holds at a time.
constexpr std::int64_t many_values = 1'000'000;
constexpr std::int64_t few_values = 4;

struct NotKept : Error {
  NotKept() : Error(Errc::interrupted, "not kept") {}
};

/// `mine` asks and `theirs` answers, as tests have it. A test ends when all that it has spawned is over.
struct Meeting {
  test::ManualLoop loop;
  net::LoopbackPair pair = net::make_loopback(loop.executor(), loop.executor(), "silo-1");
  std::shared_ptr<PeerConversation> mine = std::make_shared<PeerConversation>(loop.executor(), std::move(pair.first));
  std::shared_ptr<PeerConversation> theirs =
      std::make_shared<PeerConversation>(loop.executor(), std::move(pair.second));
  std::list<std::function<net::Task<>()>> tasks;  ///< What a coroutine captured lives in its lambda.
  int num_running = 0;

  Meeting() {
    mine->start();
    theirs->start();
  }

  void spawn(std::function<net::Task<>()> task) {
    ++num_running;
    auto running = tasks.emplace_back(std::move(task))();
    asio::co_spawn(loop.io, std::move(running), [this](const std::exception_ptr& failure) {
      CHECK_FALSE(failure);
      if (--num_running > 0) return;
      mine->abort();
      theirs->abort();
    });
  }
  void run() {
    loop.run();
    CHECK(num_running == 0);
  }
};

/// Asks for the message of `round` and returns its digest.
net::Task<std::string> pull(PeerConversation& from, std::uint32_t round, std::int64_t num_values) {
  wire::PackedState message = message_of(num_values, 0);
  const auto sink = sink_into(message);
  from.post(wire::Pull{round});
  auto receiving = from.receive_attachment(*sink);
  co_await std::move(receiving);
  co_return message.digest();
}

template <class Message>
net::Task<Message> next(PeerConversation& conversation) {
  wire::PeerMessage message = co_await conversation.next_message();
  REQUIRE(std::holds_alternative<Message>(message));
  co_return std::get<Message>(message);
}

TEST_CASE("an attachment that nobody asked for ends the conversation of peers, whether or not somebody listens") {
  for (const bool listens : {true, false}) {
    CAPTURE(listens);
    Meeting meeting;
    meeting.theirs->post_attachment(source_of(message_of(few_values, 1)));
    if (listens) {
      const auto listen = [&]() -> net::Task<> {
        std::optional<Errc> found;
        try {
          (void)co_await meeting.mine->next_message();
        } catch (const Error& error) {
          found = error.code();
        }
        CHECK(found == Errc::protocol);
      };
      meeting.spawn(listen);
    }
    meeting.run();
    CHECK(meeting.mine->violation().value_or("").find("sends an attachment that nobody asked for") !=
          std::string::npos);
    CHECK(meeting.theirs->has_ended());
  }
}

TEST_CASE("a Pull is answered by an attachment, both ways at once, and messages behind it arrive") {
  for (const std::int64_t num_values : {few_values, many_values}) {
    CAPTURE(num_values);
    Meeting meeting;
    const auto exchange = [&](PeerConversation& conversation, double own, double other) {
      meeting.spawn([&conversation, num_values, other]() -> net::Task<> {
        auto pulling = pull(conversation, 3, num_values);
        const std::string digest = co_await std::move(pulling);
        CHECK(digest == message_of(num_values, other).digest());
      });
      meeting.spawn([&conversation, num_values, own]() -> net::Task<> {
        auto asked = next<wire::Pull>(conversation);
        CHECK((co_await std::move(asked)).round == 3);
        conversation.post_attachment(source_of(message_of(num_values, own)));
        conversation.post(wire::Ready{4, 8, std::string(64, 'a')});
        auto heard = next<wire::Ready>(conversation);
        CHECK((co_await std::move(heard)).round == 4);
      });
    };
    exchange(*meeting.mine, 1.5, 2.5);
    exchange(*meeting.theirs, 2.5, 1.5);
    meeting.run();
  }
}

TEST_CASE("Gone ends the wait for a message, and the next one arrives over the same connection") {
  Meeting meeting;
  const auto ask = [&]() -> net::Task<> {
    bool is_gone = false;
    try {
      auto pulling = pull(*meeting.mine, 1, few_values);
      (void)co_await std::move(pulling);
    } catch (const NotKept&) {
      is_gone = true;
    }
    CHECK(is_gone);
    auto pulling = pull(*meeting.mine, 2, few_values);
    const std::string digest = co_await std::move(pulling);
    CHECK(digest == message_of(few_values, 2).digest());
  };
  const auto listen = [&]() -> net::Task<> {
    // Of what nobody waits for it means nothing.
    meeting.mine->abandon_attachment(std::make_exception_ptr(NotKept()));
    auto hearing = next<wire::Gone>(*meeting.mine);
    CHECK((co_await std::move(hearing)).round == 1);
    meeting.mine->abandon_attachment(std::make_exception_ptr(NotKept()));
  };
  const auto answer = [&]() -> net::Task<> {
    auto first = next<wire::Pull>(*meeting.theirs);
    meeting.theirs->post(wire::Gone{(co_await std::move(first)).round});
    auto second = next<wire::Pull>(*meeting.theirs);
    CHECK((co_await std::move(second)).round == 2);
    meeting.theirs->post_attachment(source_of(message_of(few_values, 2)));
  };
  meeting.spawn(listen);
  meeting.spawn(ask);
  meeting.spawn(answer);
  meeting.run();
}

TEST_CASE("a message that comes although it was said to be gone is one that nobody asked for") {
  Meeting meeting;
  const auto ask = [&]() -> net::Task<> {
    bool is_gone = false;
    try {
      auto pulling = pull(*meeting.mine, 1, few_values);
      (void)co_await std::move(pulling);
    } catch (const NotKept&) {
      is_gone = true;
    }
    CHECK(is_gone);
  };
  const auto listen = [&]() -> net::Task<> {
    auto hearing = next<wire::Gone>(*meeting.mine);
    (void)co_await std::move(hearing);
    meeting.mine->abandon_attachment(std::make_exception_ptr(NotKept()));
    std::optional<Errc> found;
    try {
      (void)co_await meeting.mine->next_message();
    } catch (const Error& error) {
      found = error.code();
    }
    CHECK(found == Errc::protocol);
  };
  const auto answer = [&]() -> net::Task<> {
    auto asked = next<wire::Pull>(*meeting.theirs);
    (void)co_await std::move(asked);
    meeting.theirs->post(wire::Gone{1});
    // The other side hears of it before the attachment is announced.
    net::Timer later(meeting.loop.executor(), std::chrono::seconds(1));
    co_await later.wait();
    meeting.theirs->post_attachment(source_of(message_of(few_values, 1)));
  };
  meeting.spawn(listen);
  meeting.spawn(ask);
  meeting.spawn(answer);
  meeting.run();
}

/// Has a word with the test at its first bytes.
class TellingSink final : public ByteSink {
 public:
  explicit TellingSink(std::function<void()> on_begin) : on_begin_(std::move(on_begin)) {}
  [[nodiscard]] std::uint64_t num_bytes() const override { return many_values * sizeof(double); }
  void write(std::uint64_t offset, std::span<const std::byte> data) override {
    if (offset == 0) on_begin_();
    written_ += data.size();
  }
  [[nodiscard]] bool is_whole() const { return written_ == num_bytes(); }

 private:
  std::function<void()> on_begin_;
  std::uint64_t written_ = 0;
};

TEST_CASE("an attachment that has begun to come is not abandoned") {
  Meeting meeting;
  TellingSink sink([&] { meeting.mine->abandon_attachment(std::make_exception_ptr(NotKept())); });
  const auto receive = [&]() -> net::Task<> {
    meeting.mine->post(wire::Pull{1});
    auto receiving = meeting.mine->receive_attachment(sink);
    co_await std::move(receiving);
  };
  const auto answer = [&]() -> net::Task<> {
    auto asked = next<wire::Pull>(*meeting.theirs);
    (void)co_await std::move(asked);
    meeting.theirs->post_attachment(source_of(message_of(many_values, 1)));
  };
  meeting.spawn(receive);
  meeting.spawn(answer);
  meeting.run();
  CHECK(sink.is_whole());
}

}  // namespace
}  // namespace headstart::session
