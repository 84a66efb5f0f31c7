// A session and a client over a loopback: tasks as data, with a kind of task that exists in this file alone.
#include "server/sessions/client_session.hpp"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <doctest/doctest.h>
#include <torch/types.h>

#include "client/client_loop.hpp"
#include "server/phases/disclosure.hpp"
#include "server/sessions/client_tasks.hpp"
#include "shared/base/files.hpp"
#include "shared/net/loopback.hpp"
#include "shared/wire/codec.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

namespace asio = boost::asio;

/// The sum of a tensor that the server sends, and that tensor doubled.
class SumTask final : public client::TaskHandler {
 public:
  client::TaskResult perform(client::Silo&, const client::Assignment& assignment, const client::TaskContext&) override {
    const at::Tensor x = assignment.input("numbers").state.state().tensors().front().tensor;
    return {.figures = nlohmann::json{{"sum", x.sum().item<double>()}, {"asked", assignment.settings}}.dump(),
            .state = wire::PackedState::of_tensor("doubled", 2 * x)};
  }
};

std::unique_ptr<client::TaskHandler> make_sum() { return std::make_unique<SumTask>(); }

DigestedState numbers(double value) {
  const auto state = wire::PackedState::of_tensor("numbers", torch::full({4}, value, torch::kDouble));
  return {state.digest(), state};
}

TaskOrder order_of(std::string_view kind, const std::vector<DigestedState>& inputs, bool keeps = false) {
  TaskOrder order{.kind = kind, .settings = "{}", .keeps_inputs = keeps, .result_bytes = 4 * sizeof(double)};
  for (const DigestedState& input : inputs) {
    order.add("numbers", DisclosurePolicy::release_tensors("numbers", input));
  }
  return order;
}

/// One session, which does what a test says; and its client.
class Meeting {
 public:
  using Script = std::function<net::Task<>(ClientSession&)>;

  /// The client is this program's, and can do `sum` besides.
  void with_client(Script script) {
    static constexpr client::TaskRow rows[] = {{"sum", make_sum}};
    learn::Dataset data{
        .name = "small", .images = test::small_samples(0).x, .labels = test::small_samples(0).y, .num_classes = 3};
    client::LocalWorker worker({.name = "silo-0"}, std::move(data), rows);
    client::ClientObserver silent;
    client::ClientState state(io_.get_executor(), pool_, std::chrono::steady_clock::now);
    meet(std::move(script), [&](std::unique_ptr<net::MessageChannel> channel) -> net::Task<> {
      const client::ClientContext context{"silo-0", &worker, &pool_, &silent, std::chrono::steady_clock::now, {}};
      auto running = client::run_client(io_.get_executor(), std::move(channel), context, state);
      (void)co_await std::move(running);
    });
  }

  /// The client joins, and then says what `speak` has it say.
  void with_script(Script script, std::function<net::Task<>(session::ClientConversation&)> speak) {
    meet(std::move(script), [&](std::unique_ptr<net::MessageChannel> channel) -> net::Task<> {
      const auto conversation = std::make_shared<session::ClientConversation>(io_.get_executor(), std::move(channel));
      conversation->start();
      conversation->post(wire::Hello{});
      (void)co_await conversation->next_message();
      conversation->post(wire::Join{});
      (void)co_await conversation->next_message();
      auto speaking = speak(*conversation);
      co_await std::move(speaking);
    });
  }

  /// The server's side of the connection, while a script runs.
  [[nodiscard]] session::ServerConversation& server() const { return *server_; }

  /// What the audit log says was sent, by digest.
  [[nodiscard]] std::vector<std::string> sent() const {
    std::vector<std::string> digests;
    std::istringstream lines(read_text(folder_ / "run/audit.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto event = nlohmann::json::parse(line);
      if (event["event"] == "sent") digests.push_back(event["sha256"]);
    }
    return digests;
  }

 private:
  void meet(Script script, const std::function<net::Task<>(std::unique_ptr<net::MessageChannel>)>& client) {
    net::LoopbackPair pair = net::make_loopback(io_.get_executor(), io_.get_executor(), "silo-0");
    bool is_over = false;
    auto serving = serve(std::move(pair.first), std::move(script), is_over);
    asio::co_spawn(io_, std::move(serving), [](const std::exception_ptr& failure) { CHECK_FALSE(failure); });
    auto running = client(std::move(pair.second));
    asio::co_spawn(io_, std::move(running), [](const std::exception_ptr&) {});
    io_.run();
    CHECK(is_over);
    pool_.join();
  }

  net::Task<> serve(std::unique_ptr<net::MessageChannel> channel, Script script, bool& is_over) {
    const auto conversation = std::make_shared<session::ServerConversation>(io_.get_executor(), std::move(channel));
    server_ = conversation;
    conversation->start({.intercept = [](const wire::ClientMessage& message) {
      return std::holds_alternative<wire::ProgressReport>(message);
    }});
    (void)co_await conversation->next_message();
    plan::Terms terms = test::small_config("").terms;
    conversation->post(wire::Welcome{wire::protocol_version, plan::to_json_text(terms), 0, 30'000});
    (void)co_await conversation->next_message();
    conversation->post(wire::Joined{1, 1});
    ClientSession session(conversation, {.name = "silo-0", .num_examples = 18, .num_held_out = 2}, 3, 32, slots_,
                          folder_of_run_.audit(), Patience{}, std::chrono::steady_clock::now);
    auto doing = script(session);
    co_await std::move(doing);
    is_over = true;
    conversation->abort();
  }

  test::TemporaryFolder folder_;
  RunFolder folder_of_run_{folder_ / "run", {}, std::chrono::system_clock::now};
  asio::io_context io_{1};
  asio::thread_pool pool_{1};
  std::shared_ptr<session::ServerConversation> server_;
  UploadSlots slots_{io_.get_executor(), 1 << 20, folder_ / "run"};
};

net::Task<Outcome> perform(ClientSession& session, TaskOrder order) { return session.perform(std::move(order)); }

TEST_CASE("a kind of task that a program adds: settings and inputs arrive, figures and a state come back") {
  Meeting meeting;
  meeting.with_client([](ClientSession& session) -> net::Task<> {
    auto asking = perform(session, order_of("sum", {numbers(1.5)}));
    Outcome outcome = co_await std::move(asking);
    const auto figures = nlohmann::json::parse(outcome.figures);
    CHECK(figures["sum"] == 6);
    CHECK(figures["asked"] == "{}");
    REQUIRE(outcome.state);
    std::vector<double> doubled(4);
    outcome.state->read(0, std::as_writable_bytes(std::span(doubled)));
    CHECK(doubled == std::vector<double>(4, 3));
  });
  CHECK(meeting.sent() == std::vector<std::string>{numbers(1.5).digest});
}

TEST_CASE("a state is sent where the client does not hold it, and only then") {
  Meeting meeting;
  meeting.with_client([](ClientSession& session) -> net::Task<> {
    for (const auto& [value, keeps] : {std::pair(1.0, true), {1.0, false}, {2.0, false}, {1.0, false}, {2.0, false}}) {
      auto asking = perform(session, order_of("sum", {numbers(value)}, keeps));
      (void)co_await std::move(asking);
    }
  });
  CHECK(meeting.sent() == std::vector{numbers(1).digest, numbers(2).digest, numbers(2).digest});
}

TEST_CASE("what samples are normalised by comes with each task that works on them, and is sent once") {
  const auto state = wire::PackedState::of_tensor("normalisation", torch::tensor({1.0, 2.0}, torch::kDouble));
  Meeting meeting;
  meeting.with_client([&state](ClientSession& session) -> net::Task<> {
    session.normalise_by(DisclosurePolicy::release_tensors("normalisation", {state.digest(), state}));
    for (int i = 0; i < 2; ++i) {
      auto asking = perform(session, order_of("sum", {numbers(1)}, true));
      Outcome outcome = co_await std::move(asking);
      CHECK(nlohmann::json::parse(outcome.figures)["sum"] == 4);
    }
  });
  CHECK(meeting.sent() == std::vector{numbers(1).digest, state.digest()});
}

TEST_CASE("a kind that the client does not know is a task that failed by its settings; the client stays") {
  Meeting meeting;
  meeting.with_client([](ClientSession& session) -> net::Task<> {
    std::string failure;
    try {
      auto asking = perform(session, order_of("product", {}));
      (void)co_await std::move(asking);
    } catch (const Error& error) {
      CHECK(error.code() == Errc::run_failed);
      failure = error.what();
    }
    CHECK(failure.find("(settings)") != std::string::npos);
    auto asking = perform(session, order_of("sum", {numbers(1)}));
    CHECK(nlohmann::json::parse((co_await std::move(asking)).figures)["sum"] == 4);
  });
}

TEST_CASE("a client that waits for an input and is told that the task is over does the next one") {
  Meeting meeting;
  meeting.with_client([&meeting](ClientSession&) -> net::Task<> {
    // As where the time of a task runs out between its Fetch and the answer: the fetched state never comes.
    session::ServerConversation& server = meeting.server();
    const auto ask = [&server](wire::TaskId id, const DigestedState& input) {
      server.post(wire::Task{.task = id, .kind = "sum", .num_inputs = 1});
      const plan::Form form{.model = {}, .tensors = input.state.state().schema().tensors()};
      server.post(wire::Input{"numbers", input.digest, "", plan::to_json_text(form)});
    };
    ask(1, numbers(1));
    const wire::ClientMessage fetch = co_await server.next_message();
    CHECK(std::holds_alternative<wire::Fetch>(fetch));
    server.post(wire::ResultRefused{1, "late: no progress for 1 s"});
    ask(2, numbers(2));
    const wire::ClientMessage again = co_await server.next_message();
    REQUIRE(std::holds_alternative<wire::Fetch>(again));
    CHECK(std::get<wire::Fetch>(again).task == 2);
    server.post_attachment(session::source_of(numbers(2).state));
    const wire::ClientMessage result = co_await server.next_message();
    REQUIRE(std::holds_alternative<wire::Result>(result));
    CHECK(nlohmann::json::parse(std::get<wire::Result>(result).figures.value)["sum"] == 8);
  });
}

TEST_CASE("what breaks the protocol ends the connection and counts as a violation") {
  using Speak = std::function<net::Task<>(session::ClientConversation&)>;
  const auto violation_of = [](const Speak& speak) {
    Meeting meeting;
    std::string words;
    meeting.with_script(
        [&words](ClientSession& session) -> net::Task<> {
          try {
            auto asking = perform(session, order_of("sum", {numbers(1)}));
            (void)co_await std::move(asking);
          } catch (const Error& error) {
            CHECK(error.code() == Errc::protocol);
            words = error.what();
          }
          session.on_lost();
          CHECK(session.num_violations() == 1);
        },
        speak);
    return words;
  };
  CHECK(violation_of([](session::ClientConversation& client) -> net::Task<> {
          client.post(wire::Fetch{1, {{1}}});
          (void)co_await client.next_message();
        }).find("fetches input 1 of a task that has 1") != std::string::npos);
  CHECK(violation_of([](session::ClientConversation& client) -> net::Task<> {
          client.post(wire::Result{1, {}, 7});
          (void)co_await client.next_message();
        }).find("offers a result of 7 bytes") != std::string::npos);
}

}  // namespace
}  // namespace headstart::server
