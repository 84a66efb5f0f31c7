// What every message channel promises, asked of each kind and of both ends of a WebSocket.
#include <algorithm>
#include <random>
#include <thread>

#include <boost/asio/post.hpp>

#include "tests/contract/channel_support.hpp"

namespace headstart::net {
namespace {

using asio::experimental::awaitable_operators::operator&&;

#define ALL_CHANNELS Loopback, WebSocketClient, WebSocketServer, TlsClient, TlsServer

Bytes random_bytes(std::mt19937& generator, std::size_t size) {
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(generator());
  return bytes;
}

/// Sizes around every border that the implementations know: empty, header lengths, first read, limit.
std::vector<std::size_t> border_sizes() {
  return {0, 1, 125, 126, 127, 1535, 1536, 1537, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, max_message_bytes};
}

Task<> send_each(MessageChannel& channel, const std::vector<Bytes>& messages) {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const View whole(messages[i]);
    const std::size_t split = whole.size() * (i % 3) / 2;
    co_await channel.send(whole.first(split), whole.subspan(split));
  }
}

Task<> expect_each(MessageChannel& channel, const std::vector<Bytes>& messages) {
  for (const Bytes& expected : messages) {
    const View received = co_await channel.receive();
    REQUIRE(received.size() == expected.size());
    REQUIRE(std::equal(received.begin(), received.end(), expected.begin()));
  }
}

/// Runs `body` on a fresh pair.
template <class Kind>
void with_pair(Task<> (*body)(MessageChannel& near, MessageChannel& far)) {
  const auto conversation = [](Task<> (*part)(MessageChannel&, MessageChannel&)) -> Task<> {
    auto pair = co_await Kind::connect();
    co_await part(*pair.near, *pair.far);
  };
  run(conversation(body));
}

TEST_CASE_TEMPLATE("messages arrive whole, in order, with every size and split", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    std::mt19937 generator(1);
    std::vector<Bytes> messages;
    for (int repeat = 0; repeat < 2; ++repeat) {
      for (const auto size : border_sizes()) messages.push_back(random_bytes(generator, size));
    }
    std::shuffle(messages.begin(), messages.end(), generator);
    std::size_t total = 0;
    for (const auto& message : messages) total += message.size();

    auto both = send_each(near, messages) && expect_each(far, messages);
    co_await std::move(both);
    CHECK(near.bytes_sent() == total);
    CHECK(far.bytes_received() == total);
    CHECK(near.bytes_received() == 0);
    CHECK(far.bytes_sent() == 0);
  });
}

TEST_CASE_TEMPLATE("both directions at once, more than any buffer holds, do not block each other", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    std::mt19937 generator(2);
    std::vector<Bytes> up;
    std::vector<Bytes> down;
    for (int i = 0; i < 24; ++i) {
      up.push_back(random_bytes(generator, 1 << 20));
      down.push_back(random_bytes(generator, (1 << 20) - 7));
    }
    auto all = send_each(near, up) && send_each(far, down) && expect_each(near, down) && expect_each(far, up);
    co_await std::move(all);
    CHECK(near.bytes_sent() == far.bytes_received());
    CHECK(near.bytes_received() == far.bytes_sent());
  });
}

TEST_CASE_TEMPLATE("thousands of small messages", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    std::mt19937 generator(3);
    std::vector<Bytes> messages;
    for (int i = 0; i < 5000; ++i) messages.push_back(random_bytes(generator, generator() % 300));
    auto both = send_each(near, messages) && expect_each(far, messages);
    co_await std::move(both);
  });
}

Task<> expect_each_in_place(MessageChannel& channel, const std::vector<Bytes>& messages, bool is_in_place) {
  constexpr std::size_t head_bytes = 16;
  Bytes place(std::size_t{1} << 20);
  for (const Bytes& expected : messages) {
    const SplitMessage received = co_await channel.receive_into(head_bytes, place);
    const std::size_t split = std::min(head_bytes, expected.size());
    REQUIRE(received.head.size() == split);
    REQUIRE(received.body.size() == expected.size() - split);
    REQUIRE(std::ranges::equal(received.head, View(expected).first(split)));
    REQUIRE(std::ranges::equal(received.body, View(expected).subspan(split)));
    if (is_in_place) CHECK(received.body.data() == place.data());
  }
}

TEST_CASE_TEMPLATE("messages are received in two parts, the body in its place where the channel can", Kind,
                   ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    std::mt19937 generator(5);
    std::vector<Bytes> messages;
    std::size_t total = 0;
    for (const std::size_t size : {0, 1, 15, 16, 17, 4095, 4096, 4097, 65536, (1 << 20) + 16, 300}) {
      messages.push_back(random_bytes(generator, size));
      total += size;
    }
    auto both = send_each(near, messages) && expect_each_in_place(far, messages, !std::is_same_v<Kind, Loopback>);
    co_await std::move(both);
    CHECK(far.bytes_received() == total);
    auto plain = near.send(bytes_of("plain"), {}) && far.receive();
    const View next = co_await std::move(plain);
    CHECK(text_of(next) == "plain");
  });
}

TEST_CASE_TEMPLATE("abort ends a pending receive in two parts", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    Bytes place(100'000);
    const auto abort = [](MessageChannel& channel) -> Task<> {
      channel.abort();
      co_return;
    };
    auto both = failure_of(far.receive_into(16, place)) && abort(far);
    const Failure failure = co_await std::move(both);
    CHECK(failure.code == Errc::network);
    near.abort();
  });
}

Task<> send_until_lost(MessageChannel& channel, int& sent) {
  const Bytes message(1 << 20);
  for (;;) {
    co_await channel.send({}, message);
    ++sent;
  }
}

Task<> abort_after_turns(MessageChannel& channel, const int& sent) {
  const auto executor = co_await asio::this_coro::executor;
  for (int turn = 0; turn < 5000; ++turn) co_await asio::post(executor, asio::use_awaitable);
  // 64 MiB are more than the kernel takes for a receiver that does not read.
  CHECK(sent < 64);
  channel.abort();
}

TEST_CASE_TEMPLATE("send waits for a receiver, and ends when the peer does", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    int sent = 0;
    auto both = failure_of(send_until_lost(near, sent)) && abort_after_turns(far, sent);
    const Failure failure = co_await std::move(both);
    CHECK(failure.code == Errc::network);
    CHECK(near.bytes_sent() == static_cast<std::uint64_t>(sent) << 20);
  });
}

TEST_CASE_TEMPLATE("a message above the limit is refused, and the channel goes on", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    const Bytes largest(max_message_bytes);
    const Failure failure = co_await failure_of(near.send(bytes_of("x"), largest));
    CHECK(failure.code == Errc::internal);
    CHECK(failure.message.find(std::to_string(max_message_bytes + 1)) != std::string::npos);
    CHECK(near.bytes_sent() == 0);
    auto both = near.send(bytes_of("next"), {}) && far.receive();
    const View next = co_await std::move(both);
    CHECK(text_of(next) == "next");
  });
}

TEST_CASE_TEMPLATE("an orderly close delivers what was sent, then its reason", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    co_await near.send(bytes_of("la"), bytes_of("st"));
    auto draining = [](MessageChannel& channel) -> Task<Failure> {
      const View last = co_await channel.receive();
      CHECK(text_of(last) == "last");
      co_return co_await failure_of(channel.receive());
    };
    auto both = near.close("the name 'ada' is taken") && draining(far);
    const Failure failure = co_await std::move(both);
    CHECK(failure.code == Errc::peer_closed);
    CHECK(failure.message.find("the name 'ada' is taken") != std::string::npos);
    CHECK(failure.message.find(far.peer()) != std::string::npos);

    for (MessageChannel* channel : {&near, &far}) {
      const Failure receiving = co_await failure_of(channel->receive());
      CHECK(receiving.code == Errc::peer_closed);
      const Failure sending = co_await failure_of(channel->send(bytes_of("late"), {}));
      CHECK(sending.code == Errc::network);
    }
    co_await near.close("again");
    co_await far.close("and the other side");
  });
}

TEST_CASE_TEMPLATE("close ends a receive of its own side", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    auto all = failure_of(near.receive()) && near.close("done") && failure_of(far.receive());
    const auto [own, others] = co_await std::move(all);
    CHECK(own.code == Errc::peer_closed);
    CHECK(others.code == Errc::peer_closed);
  });
}

TEST_CASE_TEMPLATE("both sides may close at once", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    auto both = near.close("one") && far.close("two");
    co_await std::move(both);
    for (MessageChannel* channel : {&near, &far}) {
      const Failure failure = co_await failure_of(channel->receive());
      CHECK(failure.has_failed);
    }
  });
}

TEST_CASE_TEMPLATE("a long or odd reason of a close still closes in order", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    auto both = near.close("\xff\n" + std::string(1000, 'r')) && failure_of(far.receive());
    const Failure failure = co_await std::move(both);
    CHECK(failure.code == Errc::peer_closed);
    CHECK(failure.message.find(std::string(118, 'r')) != std::string::npos);
    CHECK(failure.message.find(std::string(119, 'r')) == std::string::npos);
  });
}

Task<> abort_now(MessageChannel& channel) {
  channel.abort();
  channel.abort();
  co_return;
}

TEST_CASE_TEMPLATE("abort ends the pending calls of both sides", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    auto all = failure_of(near.receive()) && (failure_of(far.receive()) && abort_now(near));
    const auto [own, others] = co_await std::move(all);
    CHECK(own.code == Errc::network);
    CHECK(others.code == Errc::network);
    const Failure sending = co_await failure_of(near.send(bytes_of("x"), {}));
    CHECK(sending.code == Errc::network);
    const Failure receiving = co_await failure_of(far.receive());
    CHECK(receiving.code == Errc::network);
    co_await near.close("after the end");
    co_await far.close("after the end");
  });
}

TEST_CASE_TEMPLATE("a second receive while one pends is a bug that is told, and harms nothing", Kind, ALL_CHANNELS) {
  with_pair<Kind>([](MessageChannel& near, MessageChannel& far) -> Task<> {
    auto all = far.receive() && (failure_of(far.receive()) && near.send(bytes_of("one"), {}));
    const auto [first, second] = co_await std::move(all);
    CHECK(text_of(first) == "one");
    CHECK(second.code == Errc::internal);
  });
}

Task<> destroy(Channel& channel) {
  channel.reset();
  co_return;
}

TEST_CASE_TEMPLATE("a channel may be destroyed while its calls are pending", Kind, ALL_CHANNELS) {
  const auto conversation = []() -> Task<> {
    auto pair = co_await Kind::connect();
    int sent = 0;
    auto all =
        failure_of(pair.near->receive()) && (failure_of(send_until_lost(*pair.near, sent)) && destroy(pair.near));
    const auto [receiving, sending] = co_await std::move(all);
    CHECK(receiving.code == Errc::network);
    CHECK(sending.code == Errc::network);
    const Failure others = co_await failure_of([](MessageChannel& far) -> Task<> {
      for (;;) co_await far.receive();
    }(*pair.far));
    CHECK(others.code == Errc::network);
  };
  run(conversation());
}

TEST_CASE_TEMPLATE("a context that is destroyed with calls pending destroys them", Kind, ALL_CHANNELS) {
  struct Watch {
    explicit Watch(bool& gone) : is_gone(gone) {}
    ~Watch() { is_gone = true; }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    bool& is_gone;
  };
  bool is_gone = false;
  {
    asio::io_context context(1);
    const auto stuck = [](asio::io_context& owner, bool& gone) -> Task<> {
      const Watch watch(gone);
      auto pair = co_await Kind::connect();
      owner.stop();
      auto both = pair.near->receive() && pair.far->receive();
      co_await std::move(both);
    };
    asio::co_spawn(context, stuck(context, is_gone), [](std::exception_ptr) {});
    context.run();
    CHECK_FALSE(is_gone);
  }
  CHECK(is_gone);
}

Task<> echo(Channel channel) {
  for (int i = 0; i < 300; ++i) {
    const View message = co_await channel->receive();
    const Bytes copy(message.begin(), message.end());
    co_await channel->send({}, copy);
  }
  co_await failure_of(channel->receive());
}

Task<> ask(Channel channel, int& answers) {
  std::mt19937 generator(4);
  for (int i = 0; i < 300; ++i) {
    const Bytes question = random_bytes(generator, generator() % 100'000);
    co_await channel->send(question, {});
    const View answer = co_await channel->receive();
    if (std::equal(answer.begin(), answer.end(), question.begin(), question.end())) ++answers;
  }
  co_await channel->close("thanks");
}

TEST_CASE("the ends of a loopback live on threads of their own") {
  asio::io_context one(1);
  asio::io_context other(1);
  auto pair = make_loopback(one.get_executor(), other.get_executor(), "threads");
  CHECK(pair.first->peer() == "loopback:threads");
  int answers = 0;
  std::exception_ptr failures[2];
  asio::co_spawn(one, echo(std::move(pair.first)), [&](std::exception_ptr error) { failures[0] = error; });
  asio::co_spawn(other, ask(std::move(pair.second), answers), [&](std::exception_ptr error) { failures[1] = error; });
  std::thread thread([&one] { one.run(); });
  other.run();
  thread.join();
  CHECK(failures[0] == nullptr);
  CHECK(failures[1] == nullptr);
  CHECK(answers == 300);
}

}  // namespace
}  // namespace headstart::net
