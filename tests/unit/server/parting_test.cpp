// Time limits of a conversation's end, by manual time.
#include <chrono>
#include <memory>
#include <optional>

#include <boost/asio/co_spawn.hpp>
#include <doctest/doctest.h>

#include "server/sessions/client_session.hpp"
#include "shared/net/loopback.hpp"
#include "tests/support/manual_loop.hpp"

namespace headstart::server {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::seconds;

/// A server's conversation with a peer that a test speaks for.
struct Meeting {
  test::ManualLoop loop;
  net::LoopbackPair pair = net::make_loopback(loop.executor(), loop.executor(), "silo-0");
  std::shared_ptr<session::ServerConversation> conversation =
      std::make_shared<session::ServerConversation>(loop.executor(), std::move(pair.first));

  void spawn(net::Task<> task) {
    asio::co_spawn(loop.io, std::move(task), [](const std::exception_ptr& failure) { CHECK_FALSE(failure); });
  }
};

TEST_CASE("closing a conversation with a peer that takes nothing is over after three seconds") {
  Meeting meeting;
  meeting.conversation->start();
  for (int i = 0; i < 10; ++i) meeting.conversation->post(wire::Notice{"more than the channel holds"});
  const auto close = [&]() -> net::Task<> { co_await meeting.conversation->close("the run is over"); };
  meeting.spawn(close());
  meeting.loop.run();
  CHECK(meeting.loop.passed() == seconds(3));
}

/// What the server finds of a client that is told that the run is over, and hangs up `after` that: none, all is well.
std::optional<Errc> parting(Meeting& meeting, milliseconds limit, std::optional<milliseconds> after) {
  meeting.conversation->start();
  std::optional<Errc> found;
  const auto part = [&]() -> net::Task<> {
    try {
      auto saying = say_goodbye(meeting.conversation, wire::Finished{"done", false}, limit);
      co_await std::move(saying);
    } catch (const Error& error) {
      found = error.code();
    }
  };
  const auto hear = [&]() -> net::Task<> {
    (void)co_await meeting.pair.second->receive();
    if (!after) co_return;
    net::Timer waiting(meeting.loop.executor(), *after);
    co_await waiting.wait();
    co_await meeting.pair.second->close("done");
  };
  meeting.spawn(part());
  meeting.spawn(hear());
  meeting.loop.run();
  return found;
}

TEST_CASE("a client that was told that the run is over has timeouts.absence to hang up, and ten seconds at least") {
  for (const auto& [limit, expected] : {std::pair(seconds(2), seconds(10)), std::pair(seconds(60), seconds(60))}) {
    Meeting silent;
    CHECK(parting(silent, limit, std::nullopt) == Errc::protocol);
    CHECK(silent.loop.passed() == expected);
    Meeting slow;
    const milliseconds almost = expected - milliseconds(1);
    CHECK_FALSE(parting(slow, limit, almost).has_value());
    CHECK(slow.loop.passed() == almost);
  }
}

}  // namespace
}  // namespace headstart::server
