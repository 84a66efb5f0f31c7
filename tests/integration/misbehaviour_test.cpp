// What a broken or hostile client costs: itself.

#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <stop_token>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "client/check.hpp"
#include "experiments/lab/simulation.hpp"
#include "shared/base/files.hpp"
#include "shared/base/printable.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/net/loopback.hpp"
#include "shared/session/conversation.hpp"
#include "tests/support/delegating_channel.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/manual_loop.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"
#include "tests/support/unhurried_worker.hpp"

namespace headstart {
namespace {

namespace asio = boost::asio;
using server::RefusalCode;

/// Trains like the others, then spoils the update.
class SpoilingWorker final : public test::DelegatingWorker {
 public:
  enum class How { not_a_number, far_away, fail };
  SpoilingWorker(std::int64_t index, How how) : DelegatingWorker(test::small_worker(index)), how_(how) {}

  wire::PackedState train(const wire::PackedState& global, std::uint32_t round,
                          const client::TaskContext& context) override {
    if (how_ == How::fail) throw Error(Errc::run_failed, "the disk is on fire\x1b[2J\n");
    wire::PackedState update = DelegatingWorker::train(global, round, context);
    learn::Tensor tensor = update.state().at("fc1.weight");
    tensor.view({-1})[5] = how_ == How::far_away ? 1000.0F : NAN;
    return update;
  }

 private:
  How how_;
};

class Notes final : public server::RunObserver {
 public:
  void on_note(const std::string& text) override { all += text + "\n"; }
  void on_refusal(RefusalCode code) override { refusals.insert(code); }
  std::string all;
  std::set<RefusalCode> refusals;
};

nlohmann::json simulate(const server::ServerConfig& config, std::vector<lab::SimulatedClient> clients, Notes& notes,
                        net::Time& time, server::CentralData data) {
  learn::use_threads(1);  // more of them would mostly wait for each other: the models are small
  server::RunFolder folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  return lab::simulate(config, std::move(data), folder, notes, std::move(clients), 2, time);
}

nlohmann::json simulate(const server::ServerConfig& config, std::vector<lab::SimulatedClient> clients, Notes& notes,
                        server::CentralData data = test::small_central_data()) {
  net::ManualTime time;
  return simulate(config, std::move(clients), notes, time, std::move(data));
}

/// The greeting of a client that can do every task.
wire::Hello hello_of(const std::string& name) {
  wire::Hello hello{.name = name, .software = "test"};
  for (const client::TaskRow& row : client::local_tasks()) hello.tasks.values.emplace_back(std::string(row.kind));
  return hello;
}

std::vector<lab::SimulatedClient> honest_clients(std::int64_t count, client::SiloOptions options = {}) {
  std::vector<lab::SimulatedClient> clients;
  for (std::int64_t i = 0; i < count; ++i) clients.push_back({test::small_name(i), test::small_worker(i, options), {}});
  return clients;
}

std::vector<lab::SimulatedClient> sharing_clients(std::int64_t count) {
  return honest_clients(count, {.name = {}, .own_model = {}, .script = {}, .store = {}, .shares_with_peers = true});
}

TEST_CASE("NaN in an update: refused by tensor and index, the client stays, the others' average stands") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.num_rounds = 1;
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3), std::make_unique<SpoilingWorker>(3, SpoilingWorker::How::not_a_number), {}});
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes);
  CHECK(summary["rounds"] == 1);
  CHECK(notes.all.find("round 1 without silo-3: update refused") != std::string::npos);
  CHECK(notes.all.find("fc1.weight") != std::string::npos);

  auto without = test::small_config(folder / "without");
  without.federation.num_rounds = 1;
  auto failing = honest_clients(3);
  failing.push_back({test::small_name(3), std::make_unique<SpoilingWorker>(3, SpoilingWorker::How::fail), {}});
  const auto same = simulate(without, std::move(failing), notes);
  // What the silo's program says of its failure, files' names and all, stays in the silo's log.
  CHECK(notes.all.find("round 1 without silo-3: client silo-3: its training or distillation diverged") !=
        std::string::npos);
  CHECK(notes.all.find("(training); its own log says more") != std::string::npos);
  CHECK((notes.all + same.dump() + read_text(folder / "without/audit.jsonl") + read_text(folder / "without/journal"))
            .find("fire") == std::string::npos);
  CHECK(same["model_digest"] == summary["model_digest"]);
}

TEST_CASE("an update beyond the norm bound is refused with its norm; within it nothing changes") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.num_rounds = 1;
  config.max_update_norm = 100;
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3), std::make_unique<SpoilingWorker>(3, SpoilingWorker::How::far_away), {}});
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes);
  CHECK(notes.all.find("update refused: the update's L2 norm is 1000") != std::string::npos);
  CHECK(notes.all.find("limits.update_norm allows 100") != std::string::npos);
  const std::string audit = read_text(folder / "run/audit.jsonl");
  CHECK(audit.find("\"accepted\":false") != std::string::npos);
  CHECK(audit.find("\"norm\":100") != std::string::npos);

  auto unbounded = test::small_config(folder / "unbounded");
  unbounded.federation.num_rounds = 1;
  auto failing = honest_clients(3);
  failing.push_back({test::small_name(3), std::make_unique<SpoilingWorker>(3, SpoilingWorker::How::fail), {}});
  CHECK(simulate(unbounded, std::move(failing), notes)["model_digest"] == summary["model_digest"]);
}

/// Announces more samples than it has.
class AnnouncingWorker final : public test::DelegatingWorker {
 public:
  AnnouncingWorker(std::unique_ptr<client::Worker> inner, std::uint64_t num_examples)
      : DelegatingWorker(std::move(inner)), num_examples_(num_examples) {}
  wire::Join join(const plan::Terms& terms) override {
    wire::Join join = DelegatingWorker::join(terms);
    join.num_examples = num_examples_;
    return join;
  }

 private:
  std::uint64_t num_examples_;
};

TEST_CASE("who announces an enormous number of samples and fails changes no bit of the others' model") {
  const test::TemporaryFolder folder;
  Notes notes;
  std::set<std::string> digests;
  for (const int power : {0, 20, 36, 40}) {
    auto config = test::small_config(folder / std::to_string(power));
    config.terms.max_examples = std::int64_t{1} << 40;
    auto clients = honest_clients(3);
    auto failing = std::make_unique<SpoilingWorker>(3, SpoilingWorker::How::fail);
    clients.push_back(
        {test::small_name(3), std::make_unique<AnnouncingWorker>(std::move(failing), std::uint64_t{1} << power), {}});
    digests.insert(simulate(config, std::move(clients), notes)["model_digest"].get<std::string>());
  }
  CHECK(digests.size() == 1);
}

TEST_CASE("a client that brings most of the examples is named before round 1 and in the summary") {
  const test::TemporaryFolder folder;
  const auto config = test::small_config(folder / "run");
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3), std::make_unique<AnnouncingWorker>(test::small_worker(3), 800), {}});
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes);
  CHECK(notes.all.find("silo-3 brings 800 of 872 examples, 91.7%") != std::string::npos);
  REQUIRE(summary["dominant"].size() == 1);
  CHECK(summary["dominant"]["silo-3"]["examples"] == 800);
  CHECK(summary["dominant"]["silo-3"]["share"].get<double>() == doctest::Approx(800.0 / 872));
}

TEST_CASE("an average that is mostly one silo's model takes that silo's consent") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.start = server::StartModel::average;
  config.terms.pretrain.max_epochs = 1;
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3), std::make_unique<AnnouncingWorker>(test::small_worker(3), 800), {}});
  Notes notes;
  const std::string refusal = test::error_of(Errc::run_failed, [&] { simulate(config, std::move(clients), notes); });
  CHECK(refusal.find("91.7% of the average of 4 pre-trained models would be silo-3's") != std::string::npos);
}

TEST_CASE("the norms of all updates stand in the audit log and in rounds.jsonl, also without a bound") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.num_rounds = 1;
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3), std::make_unique<SpoilingWorker>(3, SpoilingWorker::How::far_away), {}});
  Notes notes;
  simulate(config, std::move(clients), notes);
  std::map<std::string, int> recorded;
  std::istringstream audit(read_text(folder / "run/audit.jsonl"));
  for (std::string line; std::getline(audit, line);) {
    const auto event = nlohmann::json::parse(line);
    if (event["event"] == "received" && event.contains("norm")) ++recorded[event["client"]];
  }
  CHECK(recorded == std::map<std::string, int>{{"silo-0", 1}, {"silo-1", 1}, {"silo-2", 1}, {"silo-3", 1}});
  std::istringstream rounds(read_text(folder / "run/rounds.jsonl"));
  for (std::string line; std::getline(rounds, line);) {
    const auto norms = nlohmann::json::parse(line)["norms"];
    if (norms.empty()) continue;  // of round 0
    CHECK(norms["silo-3"].get<double>() > 100);
    CHECK(norms["silo-0"].get<double>() < 10);
  }
}

/// Sends finite values from which nobody can train on.
class PoisoningWorker final : public test::DelegatingWorker {
 public:
  PoisoningWorker(std::int64_t index, std::uint32_t round)
      : DelegatingWorker(test::small_worker(index)), round_(round) {}
  wire::PackedState train(const wire::PackedState& global, std::uint32_t round,
                          const client::TaskContext& context) override {
    wire::PackedState update = DelegatingWorker::train(global, round, context);
    if (round != round_) return update;
    for (const learn::NamedTensor& named : update.state().tensors()) {
      if (at::isFloatingType(named.tensor.scalar_type())) named.tensor.fill_(learn::max_magnitude);
    }
    return update;
  }

 private:
  std::uint32_t round_;
};

std::vector<lab::SimulatedClient> with_poison(std::uint32_t round) {
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3), std::make_unique<PoisoningWorker>(3, round), {}});
  return clients;
}

TEST_CASE(
    "a finite poison ends the run: the message names whose it was; gone back, bounded, the run goes on to its end") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.num_rounds = 5;
  Notes notes;
  const std::string message = test::error_of(Errc::run_failed, [&] { simulate(config, with_poison(3), notes); });
  CHECK(message.find("the largest update in the model of round 3 is silo-3's, of L2 norm") != std::string::npos);
  CHECK(message.find("--back-to-round 2 goes back before it") != std::string::npos);
  CHECK(message.find("the model that it was trained from may be at fault, silo-3's update stands out in it") !=
        std::string::npos);
  CHECK(notes.all.find("round 3: the model has collapsed: accuracy") != std::string::npos);
  CHECK(notes.all.find("round 2: the model has collapsed") == std::string::npos);
  const std::string poisoned = read_text(folder / "run/checkpoints/round-00003.safetensors");
  const std::string lines = read_text(folder / "run/rounds.jsonl");

  config.back_to_round = 2;
  config.max_update_norm = 1000;
  Notes again;
  const auto summary = simulate(config, with_poison(3), again);
  CHECK(summary["rounds"] == 5);
  CHECK(again.all.find("gone back to the model of round 2") != std::string::npos);
  CHECK(again.all.find("limits.update_norm was 0.0, is 1000.0 from here on") != std::string::npos);
  CHECK(again.all.find("round 3 without silo-3: update refused") != std::string::npos);
  CHECK(read_text(folder / "run/taken-back-1/checkpoints/round-00003.safetensors") == poisoned);
  CHECK(read_text(folder / "run/taken-back-1/rounds.jsonl") == lines);
  CHECK(std::filesystem::exists(folder / "run/taken-back-1/interrupted.json"));
  CHECK(read_text(folder / "run/audit.jsonl").find(R"("event":"taken back")") != std::string::npos);
  const auto changed = read_json(folder / "run/run.json")["changed"];
  REQUIRE(changed.size() == 1);
  CHECK(changed[0]["setting"] == "limits.update_norm");
  CHECK(changed[0]["after_round"] == 2);

  // The same as if silo-3 had failed in that round alone.
  auto other = test::small_config(folder / "bounded");
  other.federation.num_rounds = 5;
  other.max_update_norm = 1000;
  CHECK(simulate(other, with_poison(3), notes)["model_digest"] == summary["model_digest"]);
}

TEST_CASE(
    "going back to a round whose model is not there is refused, naming those that are; a finished run goes back") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.checkpoints.keep = 2;
  Notes notes;
  const auto finished = simulate(config, honest_clients(4), notes);
  const std::string journal = read_text(folder / "run/journal");
  for (const std::int64_t round : {1, 7}) {
    config.back_to_round = round;
    const std::string message = test::error_of(Errc::usage, [&] { simulate(config, honest_clients(4), notes); });
    CHECK(message.find(fmt::format("--back-to-round {}: ", round)) != std::string::npos);
    CHECK(message.find("checkpoints: 2, 3") != std::string::npos);
    CHECK(read_text(folder / "run/journal") == journal);
  }
  config.back_to_round = 2;
  CHECK(simulate(config, honest_clients(4), notes)["model_digest"] == finished["model_digest"]);
  CHECK(std::filesystem::exists(folder / "run/taken-back-1/final.safetensors"));
  CHECK(std::filesystem::exists(folder / "run/final.safetensors"));
}

TEST_CASE("a stopped run says what it has kept, also where it is stopped again in its lobby") {
  class Stopping final : public server::RunObserver {
   public:
    void on_phase(const server::Phase& phase, std::size_t /*num_parts*/) override {
      if (phase == server::Phase{server::PhaseKind::evaluation, 1}) stop();
    }
    std::function<void()> stop;
  };
  const test::TemporaryFolder folder;
  const auto config = test::small_config(folder / "run");
  {
    Stopping observer;
    server::RunFolder run_folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
    net::ManualTime time;
    const std::string message = test::error_of(Errc::interrupted, [&] {
      lab::simulate(config, test::small_central_data(), run_folder, observer, honest_clients(4), 2, time,
                    [&observer](std::function<void()> stop) { observer.stop = std::move(stop); });
    });
    CHECK(message.starts_with("stopped after round 1; "));
    CHECK(message.find("rounds.jsonl up to round 0, checkpoints up to round 1") != std::string::npos);
  }
  test::ManualLoop loop;
  asio::io_context& io = loop.io;
  asio::thread_pool pool{1};
  server::RunFolder run_folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  Notes notes;
  server::Run federation{loop.executor(), pool,  config,           test::small_central_data(),
                         run_folder,      notes, loop.time.clock()};
  std::string message;
  asio::co_spawn(io, federation.run(), [&message](std::exception_ptr failure, const nlohmann::json&) {
    message = test::error_of(Errc::interrupted, [&failure] { std::rethrow_exception(failure); });
  });
  asio::post(io, [&federation] { federation.stop(); });
  loop.run();
  pool.join();
  CHECK(message.starts_with("stopped after round 1; "));
  CHECK(message.find("rounds.jsonl up to round 0, checkpoints up to round 1") != std::string::npos);
}

TEST_CASE("too few good updates end the run with the reasons, and what was done is kept") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.min_clients = 4;
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3), std::make_unique<SpoilingWorker>(3, SpoilingWorker::How::not_a_number), {}});
  Notes notes;
  const std::string message = test::error_of([&] { simulate(config, std::move(clients), notes); });
  CHECK(message.find("round 1: 3 of 4 updates were accepted, 4 are needed; silo-3") != std::string::npos);
  CHECK(message.find("kept in") != std::string::npos);
  CHECK(std::filesystem::exists(folder / "run/interrupted.json"));
  CHECK_FALSE(std::filesystem::exists(folder / "run/summary.json"));
}

/// Claims to have counted more samples than it announced.
class BoastingWorker final : public test::DelegatingWorker {
 public:
  using DelegatingWorker::DelegatingWorker;
  learn::Evaluation evaluate(const wire::PackedState& model, const std::optional<learn::ModelSpec>& candidate,
                             const client::TaskContext& context) override {
    learn::Evaluation evaluation = DelegatingWorker::evaluate(model, candidate, context);
    evaluation.total[0] += 1000;
    evaluation.predicted[0] += 1000;
    return evaluation;
  }
};

TEST_CASE("counts that cannot be end the connection; at the third time the client is out, and the others finish") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3), std::make_unique<BoastingWorker>(test::small_worker(3)), {}});
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes);
  CHECK(summary["rounds"] == 3);
  CHECK(summary["degraded"] == true);
  CHECK(notes.all.find("impossible counts for class 0") != std::string::npos);
  CHECK(notes.refusals.contains(RefusalCode::conduct));
  std::ifstream lines(folder / "run/rounds.jsonl");
  std::string last;
  for (std::string line; std::getline(lines, line);) last = line;
  const auto record = nlohmann::json::parse(last);
  CHECK(record["refused"]["silo-3"]["protocol"] == 3);
  CHECK(record["clients"].size() == 3);
}

/// Reports figures that would spoil the order of the ratings, or the journal for a server that reads it again.
class RamblingWorker final : public test::DelegatingWorker {
 public:
  RamblingWorker(std::unique_ptr<client::Worker> inner, double figure)
      : DelegatingWorker(std::move(inner)), figure_(figure) {}
  client::TaskResult perform(const client::Assignment& task, const client::TaskContext& context) override {
    client::TaskResult result = DelegatingWorker::perform(task, context);
    if (result.figures.empty()) return result;
    auto figures = nlohmann::json::parse(result.figures);
    const bool is_evaluation = figures.contains("loss_sum");
    if (is_evaluation && std::isinf(figure_)) {
      figures["loss_sum"] = 0;
      figures["diverged"] = true;
    } else {
      figures[is_evaluation ? "loss_sum" : "seconds"] = figure_;  // null where JSON has no such number
    }
    result.figures = figures.dump();
    return result;
  }

 private:
  double figure_;
};

TEST_CASE("seconds and losses that cannot be end the connection too, and the others finish") {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  for (const double figure : {std::numeric_limits<double>::quiet_NaN(), -1.0, infinite}) {
    for (const auto start : {server::StartModel::random, server::StartModel::average}) {
      CAPTURE(figure);
      const test::TemporaryFolder folder;
      auto config = test::small_config(folder / "run");
      config.federation.start = start;
      config.federation.num_rounds = 1;
      config.terms.pretrain.max_epochs = 1;
      auto clients = honest_clients(3);
      clients.push_back({test::small_name(3), std::make_unique<RamblingWorker>(test::small_worker(3), figure), {}});
      Notes notes;
      const auto summary = simulate(config, std::move(clients), notes);
      CHECK(summary["rounds"] == 1);
      CHECK(summary["degraded"] == true);
      std::string words = "figures of an evaluation: setting 'loss_sum': expected number from 0";
      if (start == server::StartModel::average) {
        words = "figures of a pre-training: setting 'seconds': expected number from 0";
      } else if (figure == infinite) {
        // A model that diverged does have an infinite loss; this one did not.
        words = "without silo-3: it measured an infinite loss";
      }
      CHECK(notes.all.find(words) != std::string::npos);
    }
  }
}

/// Hands over a pre-trained model that was changed.
class TamperingWorker final : public test::DelegatingWorker {
 public:
  TamperingWorker(std::unique_ptr<client::Worker> inner, std::function<void(const learn::NamedTensor&)> change)
      : DelegatingWorker(std::move(inner)), change_(std::move(change)) {}
  wire::PackedState pretrained(const client::TaskContext& context) override {
    wire::PackedState model = DelegatingWorker::pretrained(context);
    for (const learn::NamedTensor& named : model.state().tensors()) change_(named);
    return model;
  }

 private:
  std::function<void(const learn::NamedTensor&)> change_;
};

TEST_CASE("a pre-trained model with a value that no average holds is left out, of every start") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.start = server::StartModel::average;
  config.federation.num_rounds = 1;
  config.terms.pretrain.max_epochs = 1;
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3),
                     std::make_unique<TamperingWorker>(test::small_worker(3),
                                                       [](const learn::NamedTensor& named) {
                                                         if (named.name == "fc1.weight")
                                                           named.tensor.view({-1})[5] = 1e8;
                                                       }),
                     {}});
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes);
  CHECK(summary["rounds"] == 1);
  REQUIRE(summary["left_out"].size() == 1);
  CHECK(summary["left_out"][0]["client"] == "silo-3");
  CHECK(summary["left_out"][0]["reason"].get<std::string>().find("'fc1.weight' has a value that is 1e+08") !=
        std::string::npos);
}

TEST_CASE("a pre-trained model that diverged teaches nobody, and nobody is put out for measuring its loss") {
  const auto overflow = [](const learn::NamedTensor& named) {
    if (at::isFloatingType(named.tensor.scalar_type())) {
      named.tensor.fill_(named.name.ends_with("running_var") ? 0.0 : learn::max_magnitude);
    }
  };
  for (const auto transfer : {server::TransferSet::public_large, server::TransferSet::student}) {
    for (const auto source :
         {server::ValidationSource::server, server::ValidationSource::federated, server::ValidationSource::none}) {
      const bool is_rated = source != server::ValidationSource::none;
      if (!is_rated && transfer == server::TransferSet::student) continue;
      CAPTURE(is_rated);
      const test::TemporaryFolder folder;
      auto config = test::small_config(folder / "run");
      config.federation.start = server::StartModel::kd;
      config.federation.consolidation.transfer = transfer;
      config.federation.consolidation.student =
          is_rated ? server::StudentStart::worst : server::StudentStart::untrained;
      config.federation.consolidation.weighting =
          is_rated ? learn::TeacherWeighting::adaptive : learn::TeacherWeighting::equal;
      config.federation.validation = source;
      config.federation.num_rounds = 1;
      config.terms.pretrain.max_epochs = 1;
      config.terms.consolidation.epochs = 1;
      auto clients = sharing_clients(4);
      clients[3].worker = std::make_unique<TamperingWorker>(std::move(clients[3].worker), overflow);
      Notes notes;
      const auto summary = simulate(config, std::move(clients), notes);
      CHECK(summary["rounds"] == 1);
      if (is_rated) {
        CHECK(summary["start_report"]["left_out"]["silo-3"].get<std::string>().find("diverged") != std::string::npos);
        CHECK(summary["degraded"] == false);
      } else {
        REQUIRE(summary["left_out"].size() == 1);
        CHECK(summary["left_out"][0]["client"] == "silo-3");
      }
      CHECK(notes.all.find("the connection is lost") == std::string::npos);
    }
  }
}

TEST_CASE("models whose logits overflow on the public set alone are left out once each, the student's own included") {
  // On the validation data they are wrong and finite, so the worst of them is the first student.
  const auto exaggerate = [](const learn::NamedTensor& named) {
    if (named.name == "norm2.weight") named.tensor.mul_(1e2);
    if (named.tensor.dim() >= 2 || named.name == "norm1.weight") {
      named.tensor.mul_(named.name == "fc2.weight" ? -1e7 : 1e7);
    }
  };
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.start = server::StartModel::kd;
  config.federation.consolidation.transfer = server::TransferSet::public_large;
  config.federation.consolidation.student = server::StudentStart::worst;
  config.federation.num_rounds = 1;
  auto clients = sharing_clients(4);
  for (const std::size_t i : {2, 3}) {
    clients[i].worker = std::make_unique<TamperingWorker>(std::move(clients[i].worker), exaggerate);
  }
  server::CentralData data = test::small_central_data();
  data.transfer.x[0].mul_(1e4);
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes, std::move(data));
  std::multiset<std::string> left_out;
  for (const auto& left : summary["left_out"]) left_out.insert(left["client"].get<std::string>());
  CAPTURE(summary["left_out"].dump());
  CHECK(left_out == std::multiset<std::string>{"silo-2", "silo-3"});
  CHECK(summary["start_report"]["teachers"].size() == 1);  // of the two that are left, one is the student
}

TEST_CASE(
    "a sample far out of range in the public set: a seed that nobody could train from is refused before round 1") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.start = server::StartModel::kd;
  config.federation.consolidation.transfer = server::TransferSet::public_large;
  server::CentralData data = test::small_central_data();
  data.transfer.x[0].mul_(1e12);
  Notes notes;
  const std::string message =
      test::error_of(Errc::run_failed, [&] { simulate(config, sharing_clients(4), notes, std::move(data)); });
  CHECK(message.find("the model distilled on the public set cannot be trained from: tensor 'norm1.") !=
        std::string::npos);
  CHECK(read_text(folder / "run/rounds.jsonl").empty());
}

TEST_CASE("an average leaves out the model whose norm stands out, and records the norms of all") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.start = server::StartModel::average;
  config.federation.num_rounds = 0;
  config.terms.pretrain.max_epochs = 1;
  auto clients = honest_clients(3);
  clients.push_back({test::small_name(3),
                     std::make_unique<TamperingWorker>(test::small_worker(3),
                                                       [](const learn::NamedTensor& named) {
                                                         if (named.name == "fc1.weight") named.tensor.fill_(1e6);
                                                       }),
                     {}});
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes);
  REQUIRE(summary["left_out"].size() == 1);
  CHECK(summary["left_out"][0]["client"] == "silo-3");
  CHECK(summary["left_out"][0]["reason"].get<std::string>().find("its model's L2 norm is") != std::string::npos);
  CHECK(summary["start_report"]["norms"].size() == 4);
  CHECK(summary["start_report"]["norms"]["silo-3"].get<double>() > 1e6);
}

TEST_CASE("an average of one or two models shows them: it needs their silos' consent") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.start = server::StartModel::average;
  config.federation.num_rounds = 1;
  config.terms.pretrain.max_epochs = 1;
  // The other silos have an architecture of their own.
  const auto clients_of = [&config](std::vector<bool> shares) {
    client::SiloOptions own;
    own.own_model = config.terms.model;
    own.own_model->channels = {5, 6};
    std::vector<lab::SimulatedClient> clients;
    for (std::int64_t i = 0; i < 4; ++i) {
      const auto index = static_cast<std::size_t>(i);
      client::SiloOptions federated;
      federated.shares_with_peers = index < shares.size() && shares[index];
      clients.push_back({test::small_name(i), test::small_worker(i, index < shares.size() ? federated : own), {}});
    }
    return clients;
  };
  Notes notes;
  const auto refusal = [&](const std::string& name, std::vector<bool> shares) {
    config.folder = folder / name;
    return test::error_of(Errc::run_failed, [&] { simulate(config, clients_of(std::move(shares)), notes); });
  };
  CHECK(refusal("one", {false}).find("which shows silo-0's to the other silos") != std::string::npos);
  CHECK(refusal("two", {true, false}).find("which shows silo-1's to the other silos") != std::string::npos);
  const std::vector<std::vector<bool>> enough = {{true}, {true, true}, {false, false, false}};
  for (const std::vector<bool>& shares : enough) {
    config.folder = folder / fmt::format("consented-{}", shares.size());
    CHECK(simulate(config, clients_of(shares), notes)["rounds"] == 1);
  }
}

TEST_CASE("what is no message ends the connection, says why, and at the third time the client is out") {
  /// Greets as it should; of what it says then half is missing.
  class Mumbling final : public test::DelegatingChannel<> {
   public:
    using DelegatingChannel::DelegatingChannel;
    net::Task<> send(std::span<const std::byte> head, std::span<const std::byte> body) override {
      const bool is_greeting = num_sent_++ < 2;
      return DelegatingChannel::send(is_greeting ? head : head.first(head.size() / 2), body);
    }

   private:
    int num_sent_ = 0;
  };
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.num_rounds = 6;  // one attempt a round, and one more that is refused
  net::ManualTime time;
  auto clients = honest_clients(4);
  clients[3].wrap = [](std::unique_ptr<net::MessageChannel> channel) -> std::unique_ptr<net::MessageChannel> {
    return std::make_unique<Mumbling>(std::move(channel));
  };
  // While this one trains the other comes again.
  clients[0].worker =
      std::make_unique<test::UnhurriedWorker>(std::move(clients[0].worker), time, std::chrono::seconds(1));
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes, time, test::small_central_data());
  CHECK(summary["rounds"] == 6);
  CHECK(notes.refusals.contains(RefusalCode::conduct));
  std::map<std::string, int> recorded;
  std::string last_reason;
  std::istringstream lines(read_text(folder / "run/audit.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    if (event.value("client", "") != "silo-3") continue;
    ++recorded[event["event"]];
    if (event["event"] == "connection lost") last_reason = event["reason"];
  }
  CHECK(recorded["result refused"] == 3);
  CHECK(recorded["connection lost"] == 3);
  CHECK_FALSE(last_reason.empty());
  CHECK(notes.all.find("the connection is lost (" + last_reason + "); it is not waited for") != std::string::npos);
}

TEST_CASE("one silo's infinite losses make no model count as diverged") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.start = server::StartModel::kd;
  config.federation.validation = server::ValidationSource::federated;
  config.federation.num_rounds = 1;
  config.terms.pretrain.max_epochs = 1;
  config.terms.consolidation.epochs = 1;
  class Doomsayer final : public test::DelegatingWorker {
   public:
    using DelegatingWorker::DelegatingWorker;
    learn::Evaluation evaluate(const wire::PackedState& model, const std::optional<learn::ModelSpec>& candidate,
                               const client::TaskContext& context) override {
      learn::Evaluation evaluation = DelegatingWorker::evaluate(model, candidate, context);
      evaluation.loss_sum = std::numeric_limits<double>::infinity();
      return evaluation;
    }
  };
  auto clients = sharing_clients(4);
  clients[3].worker = std::make_unique<Doomsayer>(std::move(clients[3].worker));
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes);
  CHECK(summary["rounds"] == 1);
  CHECK(summary["start_report"]["left_out"].empty());
  CHECK(summary["degraded"] == true);
  for (const auto& left : summary["left_out"]) {
    CHECK(left["client"] == "silo-3");
    CHECK(left["reason"] == "it measured an infinite loss, and others a finite one");
  }
}

/// A loopback's end, as if it came over the network.
class RemoteChannel final : public test::DelegatingChannel<> {
 public:
  RemoteChannel(std::unique_ptr<net::MessageChannel> inner, std::string peer, std::string identity)
      : DelegatingChannel(std::move(inner)), peer_(std::move(peer)), identity_(std::move(identity)) {}
  [[nodiscard]] std::string peer() const override { return peer_; }
  [[nodiscard]] std::string identity() const override { return identity_; }
  net::Task<bool> answers(std::chrono::milliseconds /*limit*/) override { co_return *is_alive; }

  std::shared_ptr<bool> is_alive = std::make_shared<bool>(true);

 private:
  std::string peer_, identity_;
};

/// A server in its lobby, waiting for `expected` clients, and a raw conversation with it.
struct Lobby {
  explicit Lobby(double handshake_seconds = 10) : handshake_timeout(handshake_seconds) {}

  double handshake_timeout;
  test::TemporaryFolder folder;
  server::ServerConfig config = [this] {
    server::ServerConfig small = test::small_config(folder / "run");
    small.federation.timeouts.handshake = handshake_timeout;
    return small;
  }();
  test::ManualLoop loop;
  asio::io_context& io = loop.io;
  asio::thread_pool pool{1};
  server::RunFolder run_folder{config.folder, {}, std::chrono::system_clock::now};
  Notes notes;
  std::vector<std::shared_ptr<bool>> answering;  ///< Whether a connection gives signs of life, in order of coming.
  server::Run federation{loop.executor(), pool,  config,           test::small_central_data(),
                         run_folder,      notes, loop.time.clock()};

  /// A channel to the server, which sees it come from `peer`, certified as `identity`.
  std::unique_ptr<net::MessageChannel> connect(std::string peer, std::string identity) {
    net::LoopbackPair pair = net::make_loopback(io.get_executor(), io.get_executor(), "test");
    auto channel = std::make_unique<RemoteChannel>(std::move(pair.first), std::move(peer), std::move(identity));
    answering.push_back(channel->is_alive);
    auto admission = federation.admit(std::move(channel));
    asio::co_spawn(io, std::move(admission), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
    return std::move(pair.second);
  }

  std::shared_ptr<session::ClientConversation> dial(std::string peer, std::string identity) {
    auto channel = connect(std::move(peer), std::move(identity));
    auto conversation = std::make_shared<session::ClientConversation>(io.get_executor(), std::move(channel));
    conversation->start();
    return conversation;
  }

  /// Speaks `script` with the server as a client; then stops the federation. Returns what the script threw.
  std::string speak(const std::function<net::Task<>(session::ClientConversation&)>& script) {
    std::string thrown = "(no error)";
    const auto run_script = [&]() -> net::Task<> {
      const auto conversation = dial("192.0.2.1:50000", "");
      try {
        co_await script(*conversation);
      } catch (const Error& error) {
        thrown = error.what();
      }
      conversation->abort();
      federation.stop();
    };
    asio::co_spawn(io, federation.run(), [](std::exception_ptr failure, const nlohmann::json&) { CHECK(failure); });
    asio::co_spawn(io, run_script(), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
    loop.run();
    pool.join();
    return thrown;
  }
};

struct Answer {
  std::optional<RefusalCode> code;  ///< Of a refusal.
  std::string words;                ///< The reason, or "joined".
};

/// Sends Hello and Join as given.
Answer answer_to(wire::Hello hello, const std::function<void(wire::Join&)>& change) {
  Lobby lobby;
  std::string answer;
  lobby.speak([&](session::ClientConversation& conversation) -> net::Task<> {
    conversation.post(hello);
    wire::ServerMessage message = co_await conversation.next_message();
    if (const auto* welcome = std::get_if<wire::Welcome>(&message)) {
      wire::Join join = test::small_worker(0)->join(plan::terms_from_json_text(welcome->terms.value));
      change(join);
      conversation.post(join);
      message = co_await conversation.next_message();
    }
    const auto* refused = std::get_if<wire::Refused>(&message);
    answer = refused != nullptr ? refused->reason.value : "joined";
  });
  const std::string before_what_cannot_be_read = "the server could not take this client: ";
  const bool is_unreadable = answer.starts_with(before_what_cannot_be_read);
  const std::string reason = is_unreadable ? answer.substr(before_what_cannot_be_read.size()) : answer;
  if (answer == "joined") return {std::nullopt, answer};
  CHECK(lobby.notes.all.find("was not admitted: " + reason) != std::string::npos);
  REQUIRE(lobby.notes.refusals.size() == 1);
  return {*lobby.notes.refusals.begin(), answer};
}

TEST_CASE("a peer that upgrades its connection and says nothing is not kept") {
  Lobby lobby(7);
  const std::string thrown = lobby.speak(
      [](session::ClientConversation& conversation) -> net::Task<> { co_await conversation.next_message(); });
  CHECK(thrown != "(no error)");
  CHECK(lobby.loop.passed() == std::chrono::seconds(7));
}

TEST_CASE("a client that does not fit is refused, and the observer is told why") {
  const wire::Hello hello = hello_of("silo-0");
  const wire::Hello nameless = hello_of("../etc");
  CHECK_FALSE(answer_to(hello, [](wire::Join&) {}).code);
  CHECK(answer_to(nameless, [](wire::Join&) {}).code == RefusalCode::name);
  CHECK(answer_to(hello, [](wire::Join& join) { join.schema = "other"; }).code == RefusalCode::schema);
  CHECK(answer_to(hello, [](wire::Join& join) {
          learn::ModelSpec own = test::small_config("").terms.model;
          own.channels = {2048, 2048};
          own.hidden = 1048576;
          join.own_model = plan::to_json_text(own);
          join.own_architecture = own.architecture();
        }).code == RefusalCode::own_model);
  CHECK(answer_to(hello, [](wire::Join& join) {
          plan::SampleReport report = plan::report_from_json_text(join.samples.value);
          for (auto* values : {&report.figures.min, &report.figures.max, &report.figures.mean}) (*values)[0] *= 255;
          report.figures.deviation[0] *= 255;
          join.samples = plan::to_json_text(report);
        }).code == RefusalCode::samples);
  CHECK(answer_to(hello, [](wire::Join& join) { join.samples = "{}"; }).code == RefusalCode::unusable);
}

TEST_CASE("a client whose samples or model are not those of the terms is told what differs") {
  const auto words_to = [](const std::function<void(wire::Join&)>& change) {
    const Answer answer = answer_to(hello_of("silo-0"), change);
    CHECK(answer.code == RefusalCode::misfit);
    return answer.words;
  };
  CHECK(words_to([](wire::Join& join) { join.num_examples = 0; }) == "the client has no training samples");
  CHECK(words_to([](wire::Join& join) { join.num_examples = 10'000'001; }) ==
        "the client announces 10000001 training samples; limits.examples of the server allows 10000000");
  CHECK(words_to([](wire::Join& join) {
          join.num_held_out = ~std::uint64_t{0};
        }).find("announces 18446744073709551615 held-out samples") != std::string::npos);
  CHECK(words_to([](wire::Join& join) {
          join.shape.values[1] = 32;
        }).find("samples of 1x32x12 in 3 classes, the run has 1x12x12") != std::string::npos);
  for (const auto& [shape, words] : std::vector<std::pair<std::vector<std::uint32_t>, std::string>>{
           {{}, "a sample has 1 to 7 dimensions, not 0"},
           {std::vector<std::uint32_t>(8, 1), "a sample has 1 to 7 dimensions, not 8"},
           {{1, 0, 12}, "a dimension of a sample is of 1 to 65536, not 0"},
           {{1, 4294967295, 12}, "a dimension of a sample is of 1 to 65536, not 4294967295"},
           {std::vector<std::uint32_t>(4, 65536),
            "a sample has at most 2147483648 values, not 65536x65536x65536x65536"}}) {
    CHECK(words_to([&](wire::Join& join) { join.shape = shape; }) ==
          "the client announces samples that cannot be: " + words);
  }
  CHECK(words_to([](wire::Join& join) {
          join.samples = plan::to_json_text(plan::SampleReport{
              .classes = {.names = {"normal", "Pneumonia"}, .count = 2, .source = learn::ClassSource::folders},
              .figures = plan::report_from_json_text(join.samples.value).figures});
        }).find(R"(its classes are "normal", "Pneumonia"; the run's are "0", "1", "2")") != std::string::npos);
  CHECK(words_to([](wire::Join& join) { join.architecture = "resnet18"; }).find("would train 'resnet18'") !=
        std::string::npos);
}

TEST_CASE("the newest version that both sides speak is chosen; a client that speaks none is told both ranges") {
  const auto nothing_else = [](wire::Join&) {};
  const auto speaking = [](std::uint16_t oldest, std::uint16_t newest) {
    wire::Hello hello = hello_of("silo-0");
    hello.oldest = oldest;
    hello.newest = newest;
    return hello;
  };
  CHECK_FALSE(answer_to(speaking(7, 9), nothing_else).code);
  const Answer later = answer_to(speaking(9, 10), nothing_else);
  CHECK(later.code == RefusalCode::version);
  CHECK(later.words.starts_with("this client speaks protocol versions 9 to 10, the server versions 7 to 8"));
  CHECK(answer_to({5, "silo-0", "headstart 0.0.9"}, nothing_else).code == RefusalCode::version);
  Lobby lobby;
  lobby.speak([](session::ClientConversation& conversation) -> net::Task<> {
    wire::Hello hello = hello_of("silo-0");
    hello.newest = 9;
    conversation.post(hello);
    CHECK(std::get<wire::Welcome>(co_await conversation.next_message()).protocol == 8);
  });
}

TEST_CASE(
    "a client that lacks a task of the run is refused by the task's name; what the run does not need, it may lack") {
  const auto hello_without = [](std::initializer_list<std::string_view> kinds) {
    wire::Hello hello = hello_of("silo-0");
    for (const std::string_view kind : kinds) std::erase(hello.tasks.values, wire::TaskName(std::string(kind)));
    return hello;
  };
  const auto nothing_else = [](wire::Join&) {};
  // The small run starts at random: its clients train, and count.
  CHECK(answer_to(hello_without({plan::task::pretrain, plan::task::distill}), nothing_else).words == "joined");
  const Answer lacking = answer_to(hello_without({plan::task::train, plan::task::distill}), nothing_else);
  CHECK(lacking.code == RefusalCode::unknown_tasks);
  CHECK(lacking.words.find("does not know: train;") != std::string::npos);
  wire::Hello later = hello_without({});
  later.tasks.values.emplace_back("of a later version");
  CHECK(answer_to(later, nothing_else).words == "joined");
}

TEST_CASE(
    "keys and values that a client makes up: its refusal is short and printable for it, the notes and the records") {
  const auto refused = [](const std::string& own_model) {
    Lobby lobby;
    std::string answer;
    lobby.speak([&](session::ClientConversation& conversation) -> net::Task<> {
      conversation.post(hello_of("silo-0"));
      const auto welcome = std::get<wire::Welcome>(co_await conversation.next_message());
      wire::Join join = test::small_worker(0)->join(plan::terms_from_json_text(welcome.terms.value));
      join.own_model = own_model;
      conversation.post(join);
      const wire::ServerMessage last = co_await conversation.next_message();
      if (const auto* refusal = std::get_if<wire::Refused>(&last)) answer = refusal->reason.value;
    });
    std::string line;
    std::istringstream notes(lobby.notes.all);
    while (std::getline(notes, line)) CHECK((line.size() < 700 && is_printable(line)));
    bool is_recorded = false;
    std::istringstream audit(read_text(lobby.folder / "run/audit.jsonl"));
    while (std::getline(audit, line)) {
      CHECK((line.size() < 900 && is_printable(line)));
      const auto event = nlohmann::json::parse(line);
      if (event["event"] != "refused") continue;
      is_recorded = true;
      CHECK(is_printable(event["reason"].get<std::string>()));
    }
    CHECK(is_recorded);
    return answer;
  };
  CHECK(refused(nlohmann::json{{"model", {{"\x1b[2J\nforged\u009b", 1}}}}.dump())
            .find("'model.?[2J forged?"
                  "?'") != std::string::npos);
  CHECK(refused(nlohmann::json{{std::string(45'000, 'k'), 1}}.dump()).find("kkk...'") != std::string::npos);
  CHECK(refused(nlohmann::json{{"model", {{"name", std::string(45'000, 'n')}}}}.dump()).find("nnn") !=
        std::string::npos);
  CHECK(refused("[" + std::string(45'000, 'x')).find("a model's spec: ") != std::string::npos);
}

TEST_CASE("a flood of refused clients from one address or silo hides no other's refusal") {
  Lobby lobby;
  const auto knock = [&lobby](std::string peer, std::string identity) -> net::Task<> {
    const auto conversation = lobby.dial(std::move(peer), std::move(identity));
    conversation->post(wire::Hello{99, "silo-0", "test", false, 98});
    co_await conversation->next_message();
  };
  std::uint64_t num_refused = 0;
  lobby.speak([&](session::ClientConversation&) -> net::Task<> {
    for (int i = 0; i < 130; ++i) {
      co_await knock(fmt::format("192.0.2.7:{}", 50000 + i), "");
      co_await knock(fmt::format("192.0.2.8:{}", 50000 + i), "silo-1");
    }
    co_await knock("192.0.2.9:50000", "");
    co_await knock("192.0.2.8:60000", "silo-2");
    num_refused = lobby.federation.status().num_refused;
  });
  CHECK(num_refused == 262);
  std::map<std::string, int> recorded;
  std::istringstream lines(read_text(lobby.folder / "run/audit.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    if (event["event"] != "refused") continue;
    const auto address = event["address"].get<std::string>();
    ++recorded[address.substr(0, address.find(':')) + " " + event["certificate"].get<std::string>()];
  }
  recorded.erase("192.0.2.1 ");  // of the conversation around it
  // The first hundred, and the 128th.
  CHECK(recorded == std::map<std::string, int>{
                        {"192.0.2.7 ", 101}, {"192.0.2.8 silo-1", 101}, {"192.0.2.8 silo-2", 1}, {"192.0.2.9 ", 1}});
  CHECK(lobby.notes.all.find("192.0.2.9:50000 (192.0.2.9:50000) was not admitted") != std::string::npos);
  CHECK(lobby.notes.all.find("; 128 so far") != std::string::npos);
}

TEST_CASE("a check beside the client of the same certificate leaves that one there; so does a second client of it") {
  Lobby lobby;
  asio::thread_pool pool(1);
  const auto worker = test::small_worker(0);
  client::ClientObserver silent;
  const client::ClientContext context{"silo-0", worker.get(), &pool, &silent, lobby.loop.time.clock(), {}};
  const std::string thrown = lobby.speak([&](session::ClientConversation&) -> net::Task<> {
    const auto present = lobby.dial("192.0.2.7:50000", "silo-0");
    present->post(hello_of("silo-0"));
    const auto welcome = std::get<wire::Welcome>(co_await present->next_message());
    present->post(test::small_worker(0)->join(plan::terms_from_json_text(welcome.terms.value)));
    CHECK(std::holds_alternative<wire::Joined>(co_await present->next_message()));

    const auto dial = [&lobby]() -> net::Task<std::unique_ptr<net::MessageChannel>> {
      co_return lobby.connect("192.0.2.7:50001", "silo-0");
    };
    std::vector<std::string> told;
    auto checking = client::check_run(lobby.io.get_executor(), dial, context, std::chrono::system_clock::now,
                                      [&told](const std::string& words) { told.push_back(words); });
    co_await std::move(checking);
    CHECK(told.back().starts_with("model "));
    CHECK_FALSE(present->has_ended());
    CHECK(lobby.notes.all.find("silo-0 (192.0.2.7:50001) checks whether it may join: it may") != std::string::npos);
    CHECK(read_text(lobby.folder / "run/audit.jsonl").find(R"("event":"checked")") != std::string::npos);
    CHECK(lobby.notes.all.find("was not admitted") == std::string::npos);

    const auto second = lobby.dial("192.0.2.9:50002", "silo-0");
    second->post(hello_of("silo-0"));
    const auto refused = std::get<wire::Refused>(co_await second->next_message());
    CHECK(refused.is_for_now);
    CHECK((lobby.notes.refusals == std::set{RefusalCode::name_taken}));
    CHECK(refused.reason.value.find("at 192.0.2.7:50000, is alive") != std::string::npos);
    const auto notice = std::get<wire::Notice>(co_await present->next_message());
    CHECK(notice.words.value.find("another process, at 192.0.2.9:50002, wants to join as 'silo-0'") !=
          std::string::npos);
    CHECK_FALSE(present->has_ended());
    second->abort();

    // The machine of the first one has lost its power.
    *lobby.answering[1] = false;
    const auto returned = lobby.dial("192.0.2.7:50003", "silo-0");
    returned->post(hello_of("silo-0"));
    CHECK(std::holds_alternative<wire::Welcome>(co_await returned->next_message()));
    CHECK(present->has_ended());
    CHECK(lobby.notes.all.find("silo-0 has a new connection; the old one gives no sign of life") != std::string::npos);
    // So has the next one, in the middle of its handshake.
    *lobby.answering[4] = false;
    const auto again = lobby.dial("192.0.2.7:50004", "silo-0");
    again->post(hello_of("silo-0"));
    CHECK(std::holds_alternative<wire::Welcome>(co_await again->next_message()));
    CHECK(returned->has_ended());
    again->abort();
  });
  pool.join();
  CHECK(thrown == "(no error)");
}

TEST_CASE("a client that is turned away by a full run is told so, and may come again") {
  Lobby lobby;
  lobby.speak([&](session::ClientConversation&) -> net::Task<> {
    std::vector<std::shared_ptr<session::ClientConversation>> present;
    for (std::int64_t i = 0; i < lobby.config.federation.num_clients; ++i) {
      present.push_back(lobby.dial("192.0.2.7:50000", test::small_name(i)));
      present.back()->post(hello_of(test::small_name(i)));
      CHECK(std::holds_alternative<wire::Welcome>(co_await present.back()->next_message()));
    }
    const auto late = lobby.dial("192.0.2.7:50000", "silo-late");
    late->post(hello_of("silo-late"));
    const auto refused = std::get<wire::Refused>(co_await late->next_message());
    CHECK(refused.is_for_now);
    CHECK((lobby.notes.refusals == std::set{RefusalCode::full}));
    for (const auto& client : present) client->abort();
  });
}

TEST_CASE("a client that joins and leaves all the time is slowed, and does not fill the audit log") {
  Lobby lobby;
  server::Run slow{lobby.loop.executor(), lobby.pool,  lobby.config,           test::small_central_data(),
                   lobby.run_folder,      lobby.notes, lobby.loop.time.clock()};
  constexpr int num_comings = 300;
  const auto come_and_go = [&]() -> net::Task<> {
    for (int i = 0; i < num_comings; ++i) {
      net::Timer pause(lobby.loop.executor(), std::chrono::seconds(5));  // as often as its pace allows
      co_await pause.wait();
      net::LoopbackPair pair = net::make_loopback(lobby.io.get_executor(), lobby.io.get_executor(), "test");
      auto channel = std::make_unique<RemoteChannel>(std::move(pair.first), "192.0.2.7:50000", "silo-0");
      auto admission = slow.admit(std::move(channel));
      asio::co_spawn(lobby.io, std::move(admission), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
      const auto conversation =
          std::make_shared<session::ClientConversation>(lobby.io.get_executor(), std::move(pair.second));
      conversation->start();
      conversation->post(hello_of("silo-0"));
      const auto welcome = std::get<wire::Welcome>(co_await conversation->next_message());
      conversation->post(test::small_worker(0)->join(plan::terms_from_json_text(welcome.terms.value)));
      CHECK(std::holds_alternative<wire::Joined>(co_await conversation->next_message()));
      co_await conversation->close("away again");
    }
    slow.stop();
  };
  asio::co_spawn(lobby.io, slow.run(), [](std::exception_ptr failure, const nlohmann::json&) { CHECK(failure); });
  asio::co_spawn(lobby.io, come_and_go(), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  lobby.loop.run();
  lobby.pool.join();
  std::map<std::string, int> recorded;
  std::istringstream lines(read_text(lobby.folder / "run/audit.jsonl"));
  for (std::string line; std::getline(lines, line);)
    ++recorded[nlohmann::json::parse(line)["event"].get<std::string>()];
  // The first hundred, the 128th and the 256th.
  CHECK(recorded["joined"] == 102);
  CHECK(recorded["connection lost"] <= 102);
}

TEST_CASE("a check that is stopped does not wait for the server's answer") {
  asio::io_context io(1);
  asio::thread_pool pool(1);
  auto [near, far] = net::make_loopback(io.get_executor(), io.get_executor(), "silo-0");
  const auto worker = test::small_worker(0);
  client::ClientObserver silent;
  std::stop_source stop;
  const client::ClientContext context{"silo-0",        worker.get(), &pool, &silent, std::chrono::steady_clock::now,
                                      stop.get_token()};
  const auto dial = [&channel = near]() -> net::Task<std::unique_ptr<net::MessageChannel>> {
    co_return std::move(channel);
  };
  std::exception_ptr ended;
  asio::co_spawn(
      io,
      client::check_run(io.get_executor(), dial, context, std::chrono::system_clock::now, [](const std::string&) {}),
      [&ended](std::exception_ptr failure) { ended = failure; });
  // The other side takes Hello and says nothing.
  const auto hear = [](net::MessageChannel& channel, std::stop_source& source) -> net::Task<> {
    (void)co_await channel.receive();
    source.request_stop();
  };
  asio::co_spawn(io, hear(*far, stop), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  io.run();
  pool.join();
  REQUIRE(ended);
  CHECK(test::code_of([&] { std::rethrow_exception(ended); }) == Errc::network);
}

TEST_CASE("two clients with one name: the second is refused, the first stays") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.num_clients = 3;
  config.federation.num_rounds = 1;
  auto clients = honest_clients(3);
  clients.insert(clients.begin() + 1, {test::small_name(0), test::small_worker(0), {}});
  // The second one comes again while the run is under way.
  net::ManualTime time;
  clients[2].worker =
      std::make_unique<test::UnhurriedWorker>(std::move(clients[2].worker), time, std::chrono::seconds(1));
  Notes notes;
  const auto summary = simulate(config, std::move(clients), notes, time, test::small_central_data());
  CHECK(summary["rounds"] == 1);
  CHECK(notes.refusals.contains(RefusalCode::name_taken));
}

TEST_CASE("messages out of turn, attachments nobody asked for and stray chunks end that conversation only") {
  using Script = std::function<void(session::ClientConversation&)>;
  const std::vector<Script> scripts = {
      [](auto& c) {
        c.post(wire::Result{1, {}, 100});
      },
      [](auto& c) { c.post(wire::Join{}); },
      [](auto& c) { c.post_attachment(session::source_of(wire::PackedState::of_tensor("x", torch::zeros({4})))); },
      [](auto& c) {
        c.post(hello_of("silo-0"));
        c.post_attachment(session::source_of(wire::PackedState::of_tensor("x", torch::zeros({4}))));
      },
      [](auto& c) {
        c.post(hello_of("silo-0"));
        c.post(hello_of("silo-0"));
      },
  };
  for (const Script& script : scripts) {
    Lobby lobby;
    const std::string thrown = lobby.speak([&](session::ClientConversation& conversation) -> net::Task<> {
      script(conversation);
      while (true) co_await conversation.next_message();
    });
    CHECK(thrown != "(no error)");
    CHECK(lobby.notes.all.find("was not admitted") != std::string::npos);
  }
}

/// What ends a server's conversation in which nobody takes a message, when its peer says what `script` says.
std::string end_of_unheard(const std::function<net::Task<>(net::MessageChannel&)>& script) {
  asio::io_context io{1};
  net::LoopbackPair pair = net::make_loopback(io.get_executor(), io.get_executor(), "test");
  const auto conversation = std::make_shared<session::ServerConversation>(io.get_executor(), std::move(pair.first));
  conversation->start();
  const auto speak = [&]() -> net::Task<> { co_await script(*pair.second); };
  asio::co_spawn(io, speak(), [](const std::exception_ptr&) {});
  io.run();
  CHECK(conversation->bytes_received() < 8 * wire::max_control_bytes);
  return test::error_of(Errc::protocol, [&] { conversation->rethrow_if_ended(); });
}

TEST_CASE("what waits for a server that does not look is bounded, in messages and in bytes") {
  const auto repeat = [](const wire::ClientMessage& message) {
    return [frame = wire::encode(message)](net::MessageChannel& channel) -> net::Task<> {
      while (true) co_await channel.send(frame, {});
    };
  };
  CHECK(end_of_unheard(repeat(wire::Result{1, {}, 2})).find("more messages than any task needs") != std::string::npos);
  wire::Join large;
  large.own_model = std::string(48 * 1024, 'x');
  CHECK(end_of_unheard(repeat(large)).find("more messages than any task needs") != std::string::npos);
  const std::vector<std::byte> chunk(wire::max_control_bytes + 1);
  const auto send_chunk = [&](net::MessageChannel& channel) { return channel.send(chunk, {}); };
  CHECK(end_of_unheard(send_chunk).find("above 65536 bytes") != std::string::npos);
}

}  // namespace
}  // namespace headstart
