#include "shared/net/faulty_channel.hpp"

#include "tests/contract/channel_support.hpp"

namespace headstart::net {
namespace {

using asio::experimental::awaitable_operators::operator&&;

/// What a conversation of four operations left behind on the faulty side and on the other.
struct Account {
  std::vector<std::string> near;
  std::vector<std::string> far;
  Failure failure;
  std::uint64_t operations = 0;
  int delays = 0;
};

Task<> speak(MessageChannel& channel, std::vector<std::string>& heard) {
  for (const char* word : {"one ", "two "}) {
    co_await channel.send(bytes_of(word), bytes_of("more"));
    heard.push_back(text_of(co_await channel.receive()));
  }
}

Task<> listen(MessageChannel& channel, std::vector<std::string>& heard) {
  try {
    for (;;) {
      heard.push_back(text_of(co_await channel.receive()));
      co_await channel.send(bytes_of("answer"), {});
    }
  } catch (const Error&) {
    co_return;
  }
}

Task<> leave(FaultyChannel& channel, Account& account) {
  account.failure = co_await failure_of(speak(channel, account.near));
  account.operations = channel.operations();
  co_await channel.close("done");
}

Task<> count_delay(int& delays) {
  ++delays;
  co_return;
}

Account converse(FaultPlan plan) {
  Account account;
  plan.delay = [&account] { return count_delay(account.delays); };
  const auto task = [](const FaultPlan& faults, Account& book) -> Task<> {
    auto pair = co_await Loopback::connect();
    FaultyChannel channel(std::move(pair.near), faults);
    auto both = leave(channel, book) && listen(*pair.far, book.far);
    co_await std::move(both);
  };
  run(task(plan, account));
  return account;
}

using Words = std::vector<std::string>;

TEST_CASE("a faulty channel without a fault only counts") {
  const auto clean = converse({});
  CHECK_FALSE(clean.failure.has_failed);
  CHECK(clean.operations == 4);
  CHECK(clean.far == Words{"one more", "two more"});
  CHECK(clean.near == Words{"answer", "answer"});
  CHECK(clean.delays == 0);
}

TEST_CASE("fail loses the connection at each operation") {
  const auto steps = converse({}).operations;
  for (std::uint64_t step = 0; step < steps; ++step) {
    CAPTURE(step);
    const auto account = converse({.fault = Fault::fail, .operation = step});
    CHECK(account.failure.code == Errc::network);
    CHECK(account.failure.message.find("operation " + std::to_string(step)) != std::string::npos);
    CHECK(account.operations == step + 1);
    CHECK(account.near.size() == step / 2);
  }
  CHECK_FALSE(converse({.fault = Fault::fail, .operation = steps}).failure.has_failed);
}

TEST_CASE("truncate, flip_bit, duplicate and delay touch the one message of their operation") {
  const auto truncated = [](std::uint64_t step) { return converse({.fault = Fault::truncate, .operation = step}); };
  CHECK(truncated(0).far == Words{"one ", "two more"});
  CHECK(truncated(1).near == Words{"ans", "answer"});
  CHECK(truncated(2).far == Words{"one more", "two "});
  CHECK(truncated(3).near == Words{"answer", "ans"});

  const auto flipped = [](std::uint64_t step, std::uint64_t bit) {
    return converse({.fault = Fault::flip_bit, .operation = step, .bit = bit});
  };
  CHECK(flipped(0, 0).far == Words{"nne more", "two more"});
  CHECK(flipped(1, 47).near == Words{"answe\xf2", "answer"});
  CHECK(flipped(2, 64 + 9).far == Words{"one more", "tuo more"});
  CHECK(flipped(3, 1).near == Words{"answer", "cnswer"});

  const auto doubled = [](std::uint64_t step) { return converse({.fault = Fault::duplicate, .operation = step}); };
  CHECK(doubled(0).far == Words{"one more", "one more", "two more"});
  CHECK(doubled(1).near == Words{"answer", "answer"});
  CHECK(doubled(2).far == Words{"one more", "two more", "two more"});

  for (std::uint64_t step = 0; step < 4; ++step) {
    const auto account = converse({.fault = Fault::delay, .operation = step});
    CHECK(account.delays == 1);
    CHECK(account.far == Words{"one more", "two more"});
    CHECK(account.near == Words{"answer", "answer"});
  }
}

TEST_CASE("a received duplicate comes again before the next message") {
  const auto task = []() -> Task<> {
    auto pair = co_await Loopback::connect();
    FaultyChannel channel(std::move(pair.near), {.fault = Fault::duplicate, .operation = 1});
    for (const char* word : {"a", "b", "c"}) co_await pair.far->send(bytes_of(word), {});
    std::string heard;
    for (int i = 0; i < 4; ++i) heard += text_of(co_await channel.receive());
    CHECK(heard == "abbc");
    CHECK(channel.bytes_received() == 3);
  };
  run(task());
}

TEST_CASE("reorder: a message changes places with the next one of its direction") {
  const auto task = []() -> Task<> {
    auto sending = co_await Loopback::connect();
    FaultyChannel sender(std::move(sending.near), {.fault = Fault::reorder, .operation = 1});
    for (const char* word : {"a", "b", "c", "d"}) co_await sender.send(bytes_of(word), {});
    std::string sent;
    for (int i = 0; i < 4; ++i) sent += text_of(co_await sending.far->receive());
    CHECK(sent == "acbd");

    auto receiving = co_await Loopback::connect();
    FaultyChannel receiver(std::move(receiving.near), {.fault = Fault::reorder, .operation = 1});
    for (const char* word : {"a", "b", "c", "d"}) co_await receiving.far->send(bytes_of(word), {});
    std::string received;
    for (int i = 0; i < 4; ++i) received += text_of(co_await receiver.receive());
    CHECK(received == "acbd");
  };
  run(task());
}

}  // namespace
}  // namespace headstart::net
