// One round over real sessions and real clients, with a method that exists in this file alone: it sends a part beside
// the model, and its updates hold another.
#include "server/phases/round.hpp"

#include <array>
#include <functional>
#include <map>
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
#include "client/tasks/task_handler.hpp"
#include "shared/base/files.hpp"
#include "shared/net/loopback.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

namespace asio = boost::asio;
using learn::NamedTensor;
using learn::StateDict;
using learn::Tensor;

/// Of the parameters of `schema`.
learn::Schema parameters_of(const learn::Schema& schema) {
  std::vector<learn::TensorSpec> parameters = schema.tensors();
  std::erase_if(parameters, [&schema](const auto& spec) { return schema.role_of(spec) != learn::Role::parameter; });
  return learn::Schema(std::move(parameters));
}

/// Sends the mean drift of the last round's updates as `anchor`; an update holds its own as `drift`.
class Drifting final : public Strategy {
 public:
  [[nodiscard]] std::map<std::string, wire::PackedState> sent_parts(const RoundPlan& plan) const override {
    if (!plan.state.memory.is_empty()) return {{"anchor", wire::PackedState(plan.state.memory)}};
    wire::PackedState zeros(parameters_of(plan.schema));
    for (const NamedTensor& named : zeros.state().tensors()) named.tensor.zero_();
    return {{"anchor", zeros}};
  }
  [[nodiscard]] learn::PartSchemas returned_parts(const learn::Schema& model) const override {
    return {{"drift", parameters_of(model)}};
  }
  [[nodiscard]] ServerState finish(const RoundPlan& plan, std::unique_ptr<learn::Aggregator> aggregator,
                                   nlohmann::json&) const override {
    learn::ModelWithParts mean = learn::split(std::move(*aggregator).report(), returned_parts(plan.schema));
    return {wire::PackedState(mean.model), mean.parts.at("drift")};
  }
};

/// Pulls against the anchor, and returns where its parameters went.
class Drift final : public learn::LocalObjective {
 public:
  explicit Drift(const learn::ObjectiveInputs& inputs) {
    for (const auto& [name, tensor] : inputs.received) {
      names_.push_back(name);
      received_.push_back(tensor.detach().clone());
      anchor_.push_back(inputs.sent.at("anchor").at(name));
    }
  }
  void correct_gradients(const std::vector<Tensor>& parameters) override {
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].mutable_grad().add_(anchor_[i]);
  }
  [[nodiscard]] learn::Parts returned(const std::vector<Tensor>& trained) const override {
    std::vector<NamedTensor> drift;
    for (std::size_t i = 0; i < trained.size(); ++i) {
      drift.push_back({names_[i], trained[i].detach() - received_[i]});
    }
    return {{"drift", StateDict(std::move(drift))}};
  }

 private:
  std::vector<std::string> names_;
  std::vector<Tensor> received_, anchor_;
};

constexpr std::array<std::string_view, 1> drift_takes = {"anchor"};
constexpr learn::LocalObjectiveRow drift_row = {
    "drift",
    [](const learn::ObjectiveInputs& inputs) -> std::unique_ptr<learn::LocalObjective> {
      return std::make_unique<Drift>(inputs);
    },
    drift_takes};
/// Takes the part, and returns none.
constexpr learn::LocalObjectiveRow forgetful_row = {
    "forgetful",
    [](const learn::ObjectiveInputs&) -> std::unique_ptr<learn::LocalObjective> {
      class Forgetful final : public learn::LocalObjective {
        void correct_gradients(const std::vector<Tensor>&) override {}
      };
      return std::make_unique<Forgetful>();
    },
    drift_takes};

std::unique_ptr<client::TaskHandler> train_with_drift() {
  static constexpr std::array rows = {drift_row};
  return client::make_train_with(rows);
}
std::unique_ptr<client::TaskHandler> train_forgetfully() {
  static constexpr std::array rows = {forgetful_row};
  return client::make_train_with(rows);
}

using MakeTrain = std::unique_ptr<client::TaskHandler> (*)();

/// Silos that have joined a run, each with its own way of training, and a server that does what a test says.
class Federation {
 public:
  using Script = std::function<net::Task<>(const RunContext&)>;

  void run(const std::vector<MakeTrain>& trainings, Script script) {
    num_expected_ = trainings.size();
    for (std::size_t i = 0; i < trainings.size(); ++i) rows_.push_back({plan::task::train, trainings[i]});
    for (std::size_t i = 0; i < trainings.size(); ++i) {
      net::LoopbackPair pair =
          net::make_loopback(io_.get_executor(), io_.get_executor(), test::small_name(static_cast<std::int64_t>(i)));
      spawn(serve(std::move(pair.first), i, script), true);
      spawn(join(std::move(pair.second), i), false);
    }
    io_.run();
    CHECK(is_over_);
    pool_.join();
  }

  /// Of the states that the server sent: what the audit log calls them.
  [[nodiscard]] std::map<std::string, int> sent() const {
    std::map<std::string, int> counts;
    std::istringstream lines(read_text(folder_ / "run/audit.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto event = nlohmann::json::parse(line);
      if (event["event"] == "sent") ++counts[event["what"]];
    }
    return counts;
  }

 private:
  void spawn(net::Task<> task, bool must_succeed) {
    asio::co_spawn(io_, std::move(task), [this, must_succeed](const std::exception_ptr& failure) {
      if (!must_succeed || !failure) return;
      CHECK(test::error_of([&failure] { std::rethrow_exception(failure); }) == "(no error)");
      roster_.abort_all();
    });
  }

  net::Task<> join(std::unique_ptr<net::MessageChannel> channel, std::size_t index) {
    const learn::Samples samples = test::small_samples(static_cast<std::int64_t>(index));
    learn::Dataset data{.name = "small", .images = samples.x, .labels = samples.y, .num_classes = 3};
    const std::string name = test::small_name(static_cast<std::int64_t>(index));
    client::LocalWorker worker({.name = name}, std::move(data), std::span(&rows_[index], 1));
    client::ClientObserver silent;
    client::ClientState state(io_.get_executor(), pool_, std::chrono::steady_clock::now);
    const client::ClientContext context{name, &worker, &pool_, &silent, std::chrono::steady_clock::now, {}};
    auto running = client::run_client(io_.get_executor(), std::move(channel), context, state);
    (void)co_await std::move(running);
  }

  net::Task<> serve(std::unique_ptr<net::MessageChannel> channel, std::size_t index, const Script& script) {
    const auto conversation = std::make_shared<session::ServerConversation>(io_.get_executor(), std::move(channel));
    conversation->start({.intercept = [](const wire::ClientMessage& message) {
      return std::holds_alternative<wire::ProgressReport>(message);
    }});
    (void)co_await conversation->next_message();
    conversation->post(wire::Welcome{wire::protocol_version, plan::to_json_text(config_.terms), 0, 30'000});
    const wire::ClientMessage said = co_await conversation->next_message();
    const auto& joining = std::get<wire::Join>(said);
    conversation->post(wire::Joined{1, 1});
    // A lost client is not waited for.
    const Patience patience{.absence = std::chrono::milliseconds(0)};
    ClientInfo info{.name = test::small_name(static_cast<std::int64_t>(index)),
                    .num_examples = static_cast<std::int64_t>(joining.num_examples)};
    roster_.add(std::make_shared<ClientSession>(conversation, std::move(info), 3, schema_.num_bytes(), slots_,
                                                record_.audit(), patience, std::chrono::steady_clock::now));
    if (roster_.all().size() < num_expected_) co_return;
    auto doing = script(context_);
    co_await std::move(doing);
    is_over_ = true;
    roster_.abort_all();
  }

  test::TemporaryFolder folder_;
  ServerConfig config_ = test::small_config(folder_ / "run");
  CentralData data_ = test::small_central_data();
  learn::Schema schema_ = learn::make_model(config_.terms.model, data_.task, Seed(1))->schema();
  RunFolder record_{folder_ / "run", {}, std::chrono::system_clock::now};
  asio::io_context io_{1};
  asio::thread_pool pool_{1};
  Roster roster_{io_.get_executor(), Patience{}, std::chrono::steady_clock::now};
  UploadSlots slots_{io_.get_executor(), 1 << 20, folder_ / "run"};
  RunObserver silent_;
  std::vector<LeftOut> left_out_;
  RunContext context_{
      io_.get_executor(), pool_, config_,  data_, schema_, record_, roster_, silent_, std::chrono::steady_clock::now,
      c10::kCPU,          {},    left_out_};
  std::vector<client::TaskRow> rows_;
  std::size_t num_expected_ = 0;
  bool is_over_ = false;
};

DigestedState digested(const wire::PackedState& state) { return {state.digest(), state}; }

ServerState start_of(const RunContext& context) {
  return {wire::PackedState(context.make_global_model()->state()), {}};
}

net::Task<ServerState> round_of(const RunContext& context, const Strategy& strategy, const ServerState& before,
                                std::uint32_t round) {
  const DigestedState global = digested(before.model);
  const std::map<std::string, std::int64_t> counted;
  auto running = run_round(context, strategy, before, global, round, counted, {});
  RoundOutcome outcome = co_await std::move(running);
  co_return std::move(outcome.state);
}

TEST_CASE("a method's parts go down and up beside the model, and their mean is the strategy's") {
  Federation federation;
  federation.run({train_with_drift, train_with_drift}, [](const RunContext& context) -> net::Task<> {
    const Drifting strategy;
    const ServerState start = start_of(context);
    auto first = round_of(context, strategy, start, 1);
    const ServerState after = co_await std::move(first);
    CHECK(after.model.state().schema() == context.global_schema);
    CHECK(after.memory.schema() == parameters_of(context.global_schema));
    for (const auto& [name, drift] : after.memory.tensors()) {
      // The mean of where the updates went is where their mean went.
      const Tensor moved = after.model.state().at(name) - start.model.state().at(name);
      CHECK(at::allclose(drift, moved, 1e-4, 1e-6));
      CHECK(drift.abs().max().item<double>() > 0);
    }
    auto second = round_of(context, strategy, after, 2);
    const ServerState forgotten{after.model, {}};
    auto plain = round_of(context, strategy, forgotten, 2);
    const ServerState pulled = co_await std::move(second);
    const ServerState free = co_await std::move(plain);
    CHECK_FALSE(learn::bitwise_equal(pulled.model.state(), free.model.state()));  // the anchor was not zero any more
  });
  CHECK(federation.sent()["the round's anchor"] == 6);
}

TEST_CASE("a part that no objective takes, and an update without its part: a sentence each, and the round goes on") {
  Federation federation;
  federation.run({train_with_drift, train_with_drift, client::make_train},
                 [](const RunContext& context) -> net::Task<> {
                   const Drifting strategy;
                   const ServerState start = start_of(context);
                   auto running = round_of(context, strategy, start, 1);
                   (void)co_await std::move(running);
                   REQUIRE(context.left_out.size() == 1);
                   CHECK(context.left_out.front().client == "silo-2");
                   CHECK(context.left_out.front().reason.find("its settings do not allow what the task asks for") !=
                         std::string::npos);
                 });

  Federation forgetful;
  forgetful.run({train_with_drift, train_with_drift, train_forgetfully}, [](const RunContext& context) -> net::Task<> {
    const Drifting strategy;
    const ServerState start = start_of(context);
    auto running = round_of(context, strategy, start, 1);
    (void)co_await std::move(running);
    REQUIRE(context.left_out.size() == 1);
    CHECK(context.left_out.front().reason.find("the agreed schema has") != std::string::npos);
  });
}

}  // namespace
}  // namespace headstart::server
