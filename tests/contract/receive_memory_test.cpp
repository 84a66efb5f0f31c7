// Memory that connections share for large messages: who waits, who makes room, and what may not be sent at all.
#include "shared/net/receive_memory.hpp"

#include <boost/asio/post.hpp>

#include "tests/contract/channel_support.hpp"
#include "tests/support/manual_loop.hpp"

namespace headstart::net {
namespace {

using asio::experimental::awaitable_operators::operator&&;
using Block = std::unique_ptr<ReceiveMemory::Block>;

constexpr std::chrono::hours for_ever{24};
constexpr std::chrono::seconds a_while{3};
constexpr std::chrono::milliseconds at_once{1};

/// Runs one coroutine by manual time; how much of it that took.
TimePoint::duration run_by_manual_time(Task<> task) {
  test::ManualLoop loop;
  asio::co_spawn(loop.io, std::move(task), [](const std::exception_ptr& failure) { CHECK_FALSE(failure); });
  loop.run();
  return loop.passed();
}

Task<> yield() {
  auto posting = asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
  co_await std::move(posting);
}

TEST_CASE("shared memory: who finds none waits in order, and is lent what comes back") {
  const auto body = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    const auto memory = std::make_shared<ReceiveMemory>(1, for_ever);
    CHECK(memory->num_blocks() == 1);
    Timer timers[3] = {Timer(executor), Timer(executor), Timer(executor)};
    Block held = co_await memory->take(timers[0], [] {});
    REQUIRE(held);
    std::string order;
    for (const char name : {'a', 'b'}) {
      const auto wait = [](ReceiveMemory& from, Timer& timer, std::string& said, char mine) -> Task<> {
        const Block block = co_await from.take(timer, [] {});
        said += block ? mine : '-';
      };
      asio::co_spawn(executor, wait(*memory, timers[name == 'a' ? 1 : 2], order, name), [](std::exception_ptr) {});
    }
    while (memory->num_waiting() < 2) co_await yield();
    CHECK(order.empty());
    CHECK(memory->num_lent() == 1);
    held.reset();
    while (memory->num_waiting() > 0) co_await yield();
    CHECK(order == "ab");
    CHECK(memory->num_lent() == 0);
  };
  CHECK(run_by_manual_time(body()) == TimePoint::duration::zero());
}

TEST_CASE("shared memory: a wait that is given up leaves no trace") {
  const auto body = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    const auto memory = std::make_shared<ReceiveMemory>(1, for_ever);
    Timer first(executor);
    Timer second(executor);
    const Block held = co_await memory->take(first, [] {});
    asio::post(executor, [&second] { second.end(); });
    CHECK_FALSE(co_await memory->take(second, [] {}));
    CHECK(memory->num_waiting() == 0);
    CHECK(memory->num_lent() == 1);
  };
  CHECK(run_by_manual_time(body()) == TimePoint::duration::zero());
}

TEST_CASE("shared memory: who holds a block for longer than another has waited is asked for it, once") {
  const auto body = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    const auto memory = std::make_shared<ReceiveMemory>(2 * ReceiveMemory::Block::capacity, a_while);
    Timer timers[3] = {Timer(executor), Timer(executor), Timer(executor)};
    std::string asked;
    Block oldest = co_await memory->take(timers[0], [&] {
      asked += "oldest ";
      asio::post(executor, [&oldest] { oldest.reset(); });
    });
    const Block other = co_await memory->take(timers[1], [&] { asked += "other "; });
    CHECK(co_await memory->take(timers[2], [] {}));
    CHECK(asked == "oldest ");
  };
  CHECK(run_by_manual_time(body()) == a_while);
}

TEST_CASE("a connection that is slow with a large message gives way to others that wait for its memory") {
  const auto body = []() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    WebSocketOptions server;
    server.memory = std::make_shared<ReceiveMemory>(1, at_once);
    auto connecting_slow = connect_websockets({}, server);
    auto slow = co_await std::move(connecting_slow);
    auto connecting_honest = connect_websockets({}, server);
    auto honest = co_await std::move(connecting_honest);
    const Bytes large(max_message_bytes);
    // The slow one's message has been read, and nobody asks for the next one: its block is not given back.
    co_await (slow.near->send(large, {}) && slow.far->receive());
    CHECK(server.memory->num_lent() == 1);
    co_await (honest.near->send(large, {}) && honest.far->receive());
    const Failure failure = co_await failure_of(slow.far->receive());
    CHECK(failure.code == Errc::network);
    CHECK(failure.message.find("whose memory others waited for") != std::string::npos);
    CHECK(server.memory->num_lent() == 1);
    honest.far->abort();
    CHECK(server.memory->num_lent() == 0);
    slow.near->abort();
    honest.near->abort();
  };
  run(body());
}

TEST_CASE_TEMPLATE("a message above the receiver's own limit is a violation", Kind, Loopback, WebSocketClient,
                   WebSocketServer, TlsClient, TlsServer) {
  const auto body = []() -> Task<> {
    auto pair = co_await Kind::connect();
    const Bytes message(5000);
    co_await (pair.near->send(message, {}) && pair.far->receive());
    pair.far->limit_messages(4999);
    auto sending = pair.near->send(message, {});
    auto receiving = failure_of(pair.far->receive());
    co_await std::move(sending);
    // The offender answers the goodbye only where somebody reads there.
    auto both = failure_of(pair.near->receive()) && std::move(receiving);
    const auto [told, failure] = co_await std::move(both);
    CHECK(told.has_failed);
    CHECK(failure.code == Errc::protocol);
    CHECK(failure.message.find("above 4999 bytes") != std::string::npos);
  };
  run(body());
}

}  // namespace
}  // namespace headstart::net
