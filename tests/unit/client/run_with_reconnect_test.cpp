// How long a client tries again, by manual time.
#include "client/run_with_reconnect.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/thread_pool.hpp>
#include <doctest/doctest.h>

#include "shared/base/error.hpp"
#include "shared/net/loopback.hpp"
#include "shared/net/websocket.hpp"
#include "shared/session/conversation.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/manual_loop.hpp"

namespace headstart::client {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::seconds;

/// Joins without a model, and has pre-trained at once.
class IdleWorker final : public test::DelegatingWorker {
 public:
  IdleWorker() : DelegatingWorker(nullptr) {}
  wire::Join join(const plan::Terms&) override { return {}; }
  plan::Pretraining pretrain(const TaskContext&) override {
    if (fails) throw Error(Errc::run_failed, "training diverged");
    return {};
  }
  bool fails = false;
};

/// How one attempt of the client goes.
struct Attempt {
  enum class Ending { lost, refused_for_good, refused_for_now, run_over };

  seconds until_failure = seconds(0);  ///< Of the dial: its end where it fails, else until the server answers.
  std::optional<std::string> unreachable = std::nullopt;
  std::optional<std::string> refused_by_tls = std::nullopt;
  bool has_task = false;  ///< One is done, or fails.
  bool task_fails = false;
  seconds is_open = seconds(0);  ///< Once the client is in.
  Ending ending = Ending::lost;
};

Attempt unreachable_after(seconds span) { return {.until_failure = span, .unreachable = "no answer"}; }
Attempt refused_by_tls() { return {.until_failure = seconds(1), .refused_by_tls = "certificate expired"}; }
Attempt ended_by(Attempt::Ending ending) { return {.ending = ending}; }

struct Outcome {
  int num_dials = 0;
  std::optional<Errc> code;  ///< Of what ended it; none: the run was over.
  std::string message = {};
  TimePoint::duration passed{};  ///< From the first dial to the end.
};

/// The client's life where attempt n goes as attempts[n], all further ones as the last.
class Life {
 public:
  Life(net::RedialOptions redial, std::vector<Attempt> attempts) : redial_(redial), attempts_(std::move(attempts)) {}

  Outcome live() {
    auto living = run_with_reconnect(
        loop_.executor(), [this] { return dial(); }, {"silo", &worker_, &pool_, &observer_, loop_.time.clock(), {}},
        redial_);
    asio::co_spawn(loop_.io, std::move(living), [this](const std::exception_ptr& failure, const std::string&) {
      try {
        if (failure) std::rethrow_exception(failure);
      } catch (const Error& error) {
        outcome_.code = error.code();
        outcome_.message = error.what();
      }
    });
    loop_.run();
    pool_.join();
    outcome_.passed = loop_.passed();
    return outcome_;
  }

 private:
  /// More than any client here needs: one that never gives up ends here.
  static constexpr int most_dials = 50;

  net::Task<std::unique_ptr<net::MessageChannel>> dial() {
    if (outcome_.num_dials == most_dials) throw Error(Errc::internal, "it dials for ever");
    const auto number = static_cast<std::size_t>(outcome_.num_dials++);
    const Attempt& attempt = attempts_[std::min(number, attempts_.size() - 1)];
    worker_.fails = attempt.task_fails;
    net::Timer dialling(loop_.executor(), attempt.until_failure);
    co_await dialling.wait();
    if (attempt.unreachable) throw Error(Errc::network, *attempt.unreachable);
    if (attempt.refused_by_tls) throw net::TlsRefusal(*attempt.refused_by_tls);
    net::LoopbackPair pair = net::make_loopback(loop_.executor(), loop_.executor(), "silo");
    auto serving = serve(std::move(pair.first), attempt);
    asio::co_spawn(loop_.io, std::move(serving), [](const std::exception_ptr& failure) { CHECK_FALSE(failure); });
    co_return std::move(pair.second);
  }

  net::Task<> serve(std::unique_ptr<net::MessageChannel> channel, Attempt attempt) {
    const auto conversation = std::make_shared<session::ServerConversation>(loop_.executor(), std::move(channel));
    conversation->start();
    co_await conversation->next_message();  // Hello
    if (attempt.ending == Attempt::Ending::refused_for_good) {
      conversation->post(wire::Refused{"the run is over", false});
      co_await conversation->close("refused");
      co_return;
    }
    if (attempt.ending == Attempt::Ending::refused_for_now) {
      conversation->post(wire::Refused{"the run is full: all 3 clients are there", true});
      co_await conversation->close("refused");
      co_return;
    }
    conversation->post(wire::Welcome{wire::protocol_version, plan::to_json_text(plan::Terms{}), 0, 1000});
    co_await conversation->next_message();  // Join
    conversation->post(wire::Joined{1, 1});
    if (attempt.has_task) {
      wire::Task task{.task = 1, .kind = std::string(plan::task::pretrain)};
      conversation->post(task);
      co_await conversation->next_message();  // Result
    }
    net::Timer open(loop_.executor(), attempt.is_open);
    co_await open.wait();
    if (attempt.ending == Attempt::Ending::run_over) {
      conversation->post(wire::Finished{"done", false});
      co_await conversation->close("the run is over");
    } else {
      conversation->abort();
    }
  }

  test::ManualLoop loop_;
  asio::thread_pool pool_{1};
  IdleWorker worker_;
  ClientObserver observer_;
  net::RedialOptions redial_;
  std::vector<Attempt> attempts_;
  Outcome outcome_;
};

Outcome live(net::RedialOptions redial, std::vector<Attempt> attempts) {
  return Life(redial, std::move(attempts)).live();
}

/// Pauses that are short beside all else.
net::RedialOptions options(milliseconds patience, milliseconds patience_once_in) {
  return {.patience = patience,
          .patience_once_in = patience_once_in,
          .first_pause = milliseconds(2),
          .longest_pause = milliseconds(2)};
}

TEST_CASE("an address that swallows packets: patience runs on while a dial waits") {
  // Failures at 10 s and 20 s.
  const Outcome outcome = live(options(seconds(5), seconds(3600)), {unreachable_after(seconds(10))});
  CHECK(outcome.num_dials == 2);
  CHECK(outcome.code == Errc::network);
}

TEST_CASE("a client that a full run turns away tries to the end of its patience, and comes in when there is a place") {
  const Attempt full{.until_failure = seconds(1), .ending = Attempt::Ending::refused_for_now};
  // Failures at 1 s to 6 s.
  const Outcome outcome = live(options(seconds(5), seconds(3600)), {full});
  CHECK(outcome.num_dials == 6);
  CHECK(outcome.code == Errc::rejected);
  const Outcome lucky =
      live(options(seconds(5), seconds(3600)), {full, full, full, ended_by(Attempt::Ending::run_over)});
  CHECK(lucky.num_dials == 4);
  CHECK_FALSE(lucky.code.has_value());
}

TEST_CASE("the last attempt is at the end of the patience, however long the pause would be") {
  auto slow = options(seconds(20), seconds(3600));
  slow.first_pause = std::chrono::hours(1);
  slow.longest_pause = std::chrono::hours(1);
  const Outcome outside = live(slow, {unreachable_after(seconds(0))});
  CHECK(outside.passed == seconds(20));
  const Outcome inside = live(slow, {Attempt{}, unreachable_after(seconds(1))});
  CHECK(inside.num_dials == 3);
  CHECK(inside.passed == seconds(3601));
}

TEST_CASE("without patience there is one attempt") {
  const Outcome outcome = live(options(seconds(0), seconds(3600)), {unreachable_after(seconds(1))});
  CHECK(outcome.num_dials == 1);
  CHECK(outcome.code == Errc::network);
}

TEST_CASE("once in a run the other patience holds, for a server that is gone and for one that drops everybody") {
  const Attempt dropped{.until_failure = seconds(1)};
  for (const auto patience : {seconds(0), seconds(60)}) {
    for (const Attempt& then : {dropped, unreachable_after(seconds(1)), refused_by_tls()}) {
      // Failures at 1 s, when it was in, and at 2 s to 6 s.
      const Outcome outcome = live(options(patience, seconds(5)), {dropped, then});
      CHECK(outcome.num_dials == 6);
      CHECK(outcome.code == (then.refused_by_tls ? Errc::rejected : Errc::network));
    }
  }
}

TEST_CASE("a connection that lasted gives new patience; a shorter one does not, however long the dial") {
  const auto by_patience = options(seconds(4), seconds(6));
  auto by_pause = options(seconds(0), seconds(6));
  by_pause.longest_pause = seconds(4);
  by_pause.first_pause = milliseconds(1);
  for (const auto& redial : {by_patience, by_pause}) {
    std::vector<Attempt> attempts(8, Attempt{.is_open = seconds(4)});
    attempts.push_back(ended_by(Attempt::Ending::run_over));
    const Outcome lasting = live(redial, attempts);
    CHECK(lasting.num_dials == 9);
    CHECK_FALSE(lasting.code.has_value());
    // Failures at 4 s, 8 s and 12 s.
    const Outcome short_lived = live(redial, {{.until_failure = seconds(1), .is_open = seconds(3)}});
    CHECK(short_lived.num_dials == 3);
    CHECK(short_lived.code == Errc::network);
  }
}

TEST_CASE("a task that was done gives new patience, however short the connection") {
  std::vector<Attempt> attempts(8, Attempt{.until_failure = seconds(2), .has_task = true});
  attempts.push_back(ended_by(Attempt::Ending::run_over));
  const Outcome outcome = live(options(seconds(60), seconds(1)), attempts);
  CHECK(outcome.num_dials == 9);
  CHECK_FALSE(outcome.code.has_value());
}

TEST_CASE("a refusal by TLS is final for who was never in; who is in the run waits until it passes") {
  const Outcome stranger = live(options(seconds(60), seconds(3600)), {refused_by_tls()});
  CHECK(stranger.num_dials == 1);
  CHECK(stranger.code == Errc::rejected);
  const Outcome member = live(options(seconds(0), seconds(3600)),
                              {Attempt{}, refused_by_tls(), refused_by_tls(), ended_by(Attempt::Ending::run_over)});
  CHECK(member.num_dials == 4);
  CHECK_FALSE(member.code.has_value());
}

TEST_CASE("a refusal by the run is final, also for who was in it") {
  const Outcome outcome =
      live(options(seconds(60), seconds(3600)), {Attempt{}, ended_by(Attempt::Ending::refused_for_good), Attempt{}});
  CHECK(outcome.num_dials == 2);
  CHECK(outcome.code == Errc::rejected);
  CHECK(outcome.message == "the server refuses this client: \"the run is over\"");
}

TEST_CASE("a client of which nothing is in the run's model does not end as if all were well") {
  const auto over = [](bool has_task, bool task_fails) {
    return Attempt{.has_task = has_task, .task_fails = task_fails, .ending = Attempt::Ending::run_over};
  };
  const Outcome failed = live({}, {over(true, true)});
  CHECK(failed.code == Errc::run_failed);
  CHECK(failed.message.find("but all 1 tasks of this client failed") != std::string::npos);
  CHECK_FALSE(live({}, {over(true, false)}).code);
  CHECK_FALSE(live({}, {over(false, false)}).code);
  // One that counted is enough, also on an earlier connection.
  CHECK_FALSE(live({}, {{.has_task = true}, over(true, true)}).code);
}

}  // namespace
}  // namespace headstart::client
