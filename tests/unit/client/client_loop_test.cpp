// A client before a server of a later version, frame by frame.
#include "client/client_loop.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "client/check.hpp"
#include "shared/net/loopback.hpp"
#include "shared/wire/codec.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/throws.hpp"

namespace headstart::client {
namespace {

namespace asio = boost::asio;
using Frames = std::vector<std::vector<std::byte>>;

/// Joins without a model.
class IdleWorker final : public test::DelegatingWorker {
 public:
  IdleWorker() : DelegatingWorker(nullptr) {}
  wire::Join join(const plan::Terms& terms) override {
    terms_ = terms;
    return {};
  }
  [[nodiscard]] const std::optional<plan::Terms>& terms() const { return terms_; }

 private:
  std::optional<plan::Terms> terms_;
};

/// One client and a server that says what it is told to.
class Meeting {
 public:
  /// `answers`: one after each message of the client; then the server only waits. Returns what ended the client.
  std::exception_ptr join(Frames answers) {
    ClientState state(io_.get_executor(), pool_, std::chrono::steady_clock::now);
    return meet(std::move(answers), [&] { return run_client(io_.get_executor(), std::move(near_), context(), state); });
  }

  /// The same of a check, which says its lines to `told`.
  std::exception_ptr check(Frames answers, std::vector<std::string>& told) {
    const auto dial = [this]() -> net::Task<std::unique_ptr<net::MessageChannel>> { co_return std::move(near_); };
    const auto check = [&]() -> net::Task<std::string> {
      auto checking = check_run(io_.get_executor(), dial, context(), std::chrono::system_clock::now,
                                [&told](const std::string& words) { told.push_back(words); });
      co_await std::move(checking);
      co_return std::string();
    };
    return meet(std::move(answers), check);
  }

  /// What the client said, decoded.
  std::vector<wire::ClientMessage> heard;
  IdleWorker worker;

 private:
  ClientContext context() { return {"silo-0", &worker, &pool_, &observer_, std::chrono::steady_clock::now, {}}; }

  template <class Client>
  std::exception_ptr meet(Frames answers, Client client) {
    net::LoopbackPair pair = net::make_loopback(io_.get_executor(), io_.get_executor(), "silo-0");
    near_ = std::move(pair.second);
    std::exception_ptr ended;
    asio::co_spawn(io_, client(),
                   [&ended](std::exception_ptr failure, const std::string&) { ended = std::move(failure); });
    asio::co_spawn(io_, serve(std::move(pair.first), std::move(answers)), [](const std::exception_ptr&) {});
    io_.run();
    pool_.join();
    return ended;
  }

  net::Task<> serve(std::unique_ptr<net::MessageChannel> channel, Frames answers) {
    for (std::size_t n = 0;; ++n) {
      heard.push_back(std::get<wire::ClientMessage>(wire::decode_from_client(co_await channel->receive())));
      if (n < answers.size()) co_await channel->send(answers[n], {});
    }
  }

  asio::io_context io_{1};
  asio::thread_pool pool_{1};
  ClientObserver observer_;
  std::unique_ptr<net::MessageChannel> near_;
};

std::vector<std::byte> welcome_with(const nlohmann::json& changes) {
  auto terms = nlohmann::json::parse(plan::to_json_text(plan::Terms{}));
  terms.update(changes);
  const auto now = std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch());
  return wire::encode(wire::Welcome{wire::protocol_version, terms.dump(), now.count(), 30'000});
}

TEST_CASE("a client says which versions it speaks and which tasks it can do") {
  Meeting meeting;
  (void)meeting.join({wire::encode(wire::Refused{"not today", false})});
  const auto& hello = std::get<wire::Hello>(meeting.heard.at(0));
  CHECK(hello.newest == wire::protocol_version);
  CHECK(hello.oldest == wire::spoken_versions.oldest);
  std::vector<std::string> kinds;
  for (const auto& kind : hello.tasks.values) kinds.push_back(kind.value);
  CHECK(kinds == meeting.worker.kinds());
}

TEST_CASE("a task of an unknown id ends the conversation with that id") {
  const std::vector<std::byte> task{std::byte{1}, std::byte{0}, std::byte{77}, std::byte{0}, std::byte{1}};
  Meeting meeting;
  // It is the answer to Join, in the place of Joined: what cannot be read has no turn.
  const std::exception_ptr ended = meeting.join({welcome_with(nlohmann::json::object()), task});
  REQUIRE(ended);
  CHECK(test::error_of(Errc::protocol, [&] {
          std::rethrow_exception(ended);
        }).starts_with("unknown message 77 from the server"));
}

TEST_CASE("a server that chooses a version that the client does not speak breaks the protocol") {
  Meeting meeting;
  const std::exception_ptr ended = meeting.join({wire::encode(wire::Welcome{9, "{}", 0, 30'000})});
  REQUIRE(ended);
  CHECK(test::error_of(Errc::protocol, [&] { std::rethrow_exception(ended); }) ==
        "the server chose protocol version 9; this client speaks versions 7 to 8");
}

TEST_CASE("terms of a later version: what a client need not know keeps it out of no run, and --check says so") {
  const nlohmann::json later = {{"privacy", {{"noise", 1}}}};
  {
    Meeting meeting;
    (void)meeting.join({welcome_with(later), wire::encode(wire::Refused{"not today", false})});
    REQUIRE(meeting.heard.size() >= 2);
    CHECK(std::holds_alternative<wire::Join>(meeting.heard[1]));
    REQUIRE(meeting.worker.terms());
    CHECK(meeting.worker.terms()->unknown_sections == std::vector<std::string>{"privacy"});
  }
  Meeting meeting;
  std::vector<std::string> told;
  (void)meeting.check({welcome_with(later)}, told);
  CHECK(std::ranges::count(told,
                           "note        the run has terms that this client does not know and need not, and leaves "
                           "aside: \"privacy\"") == 1);
}

TEST_CASE("terms that a client must know and does not: it gives up at once, and names them") {
  const nlohmann::json later = {{"privacy", {{"noise", 1}}}, {"required", {"run", "privacy"}}};
  const std::string expected =
      "the run has terms that this client does not know and must: \"privacy\"; use the server's version of headstart "
      "here";
  {
    Meeting meeting;
    const std::exception_ptr ended = meeting.join({welcome_with(later)});
    REQUIRE(ended);
    CHECK(test::error_of(Errc::rejected, [&] { std::rethrow_exception(ended); }) == expected);
    CHECK_FALSE(meeting.worker.terms().has_value());
  }
  Meeting meeting;
  std::vector<std::string> told;
  const std::exception_ptr ended = meeting.check({welcome_with(later)}, told);
  REQUIRE(ended);
  CHECK(test::error_of(Errc::rejected, [&] { std::rethrow_exception(ended); }) == expected);
}

}  // namespace
}  // namespace headstart::client
