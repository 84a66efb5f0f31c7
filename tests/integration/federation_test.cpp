// The whole federation in one process: over loopback and over WebSockets, with arrivals in another order each time.

#include <map>
#include <set>
#include <sstream>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "client/run_with_reconnect.hpp"
#include "experiments/lab/simulation.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/net/faulty_channel.hpp"
#include "shared/net/websocket.hpp"
#include "shared/wire/safetensors.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart {
namespace {

namespace asio = boost::asio;
using server::StartModel;
using server::TransferSet;

/// What the runs cost is looked at, too: by manual time work takes none.
net::RealTime real_time(std::chrono::steady_clock::now);

client::SiloOptions sharing() {
  return {.name = {}, .own_model = {}, .script = {}, .store = {}, .shares_with_peers = true};
}

std::vector<lab::SimulatedClient> small_clients() {
  std::vector<lab::SimulatedClient> clients;
  for (std::int64_t i = 0; i < test::small_num_clients; ++i) {
    clients.push_back({test::small_name(i), test::small_worker(i, sharing()), {}});
  }
  return clients;
}

std::vector<nlohmann::json> lines_of(const std::filesystem::path& file) {
  std::istringstream text(read_text(file));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

nlohmann::json simulate(const server::ServerConfig& config, std::vector<lab::SimulatedClient> clients,
                        std::size_t num_threads = 2) {
  server::check(config);
  learn::use_threads(1);  // more of them would mostly wait for each other: the models are small
  server::RunFolder folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  server::RunObserver silent;
  return lab::simulate(config, test::small_central_data(), folder, silent, std::move(clients), num_threads, real_time);
}

/// The same federation over WebSockets on loopback.
nlohmann::json run_over_websockets(const server::ServerConfig& config, std::vector<lab::SimulatedClient> clients) {
  asio::io_context io(1);
  asio::thread_pool pool(2);
  server::RunFolder folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  server::RunObserver silent;
  server::Run federation(io.get_executor(), pool, config, test::small_central_data(), folder, silent,
                         real_time.clock());
  net::Listener listener(io.get_executor(), "127.0.0.1", 0);
  const auto serve = [&]() -> net::Task<> {
    for (std::size_t i = 0; i < clients.size(); ++i) {
      net::PendingPeer pending = co_await listener.accept();
      auto upgrading = net::handshake(std::move(pending));
      auto channel = co_await std::move(upgrading);
      auto admission = federation.admit(std::move(channel));
      asio::co_spawn(io, std::move(admission), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
    }
  };
  client::ClientObserver quiet;
  const auto join = [&](lab::SimulatedClient& simulated) -> net::Task<> {
    const net::Url url{"127.0.0.1", listener.port()};
    const auto dial = [&] { return net::connect(io.get_executor(), url); };
    client::ClientContext context{simulated.name, simulated.worker.get(), &pool, &quiet, real_time.clock(), {}};
    auto running = client::run_with_reconnect(io.get_executor(), dial, std::move(context), {});
    co_await std::move(running);
  };
  asio::co_spawn(io, serve(), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  for (auto& simulated : clients) {
    asio::co_spawn(io, join(simulated), [](std::exception_ptr failure) { CHECK_FALSE(failure); });
  }
  nlohmann::json summary;
  asio::co_spawn(io, federation.run(), [&](std::exception_ptr failure, nlohmann::json result) {
    CHECK_FALSE(failure);
    summary = std::move(result);
  });
  io.run();
  pool.join();
  return summary;
}

/// Holds one message of a client back, another one for each rank, so that its answers arrive out of turn.
auto delayed(std::uint64_t rank) {
  return [rank](std::unique_ptr<net::MessageChannel> channel) -> std::unique_ptr<net::MessageChannel> {
    net::FaultPlan plan{.fault = net::Fault::delay, .operation = 6 + 2 * rank};
    plan.delay = [rank]() -> net::Task<> {
      asio::steady_timer timer(co_await asio::this_coro::executor, std::chrono::milliseconds(50 - 10 * rank));
      co_await timer.async_wait(asio::use_awaitable);
    };
    return std::make_unique<net::FaultyChannel>(std::move(channel), std::move(plan));
  };
}

void configure(server::ServerConfig& config, StartModel start, TransferSet transfer) {
  config.federation.start = start;
  config.federation.consolidation.transfer = transfer;
}

TEST_CASE("simulation = network: the bytes of every checkpoint, for plain FedAvg and both transfer sets") {
  const test::TemporaryFolder folder;
  for (const auto& [start, transfer] :
       {std::pair(StartModel::random, TransferSet::public_large), std::pair(StartModel::kd, TransferSet::public_large),
        std::pair(StartModel::kd, TransferSet::student)}) {
    const std::string label = fmt::format("{}-{}", static_cast<int>(start), static_cast<int>(transfer));
    CAPTURE(label);
    auto config = test::small_config(folder / ("loopback-" + label));
    configure(config, start, transfer);
    const auto one = simulate(config, small_clients());
    const auto expected = test::checkpoints_of(config.folder);
    CHECK(expected.size() == 4);

    auto permuted = config;
    permuted.folder = folder / ("permuted-" + label);
    auto clients = small_clients();
    std::ranges::reverse(clients);
    for (std::size_t i = 0; i < clients.size(); ++i) clients[i].wrap = delayed(i);
    simulate(permuted, std::move(clients), 3);
    CHECK(test::checkpoints_of(permuted.folder) == expected);

    auto networked = config;
    networked.folder = folder / ("network-" + label);
    const auto two = run_over_websockets(networked, small_clients());
    CHECK(test::checkpoints_of(networked.folder) == expected);
    CHECK(one["model_digest"] == two["model_digest"]);
  }
}

TEST_CASE("another seed gives another model") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "one");
  config.federation.num_rounds = 1;
  const auto one = simulate(config, small_clients());
  config.folder = folder / "two";
  config.terms.seed = 8;
  CHECK(simulate(config, small_clients())["model_digest"] != one["model_digest"]);
}

/// The client whose model ranks first or, for the worst start, last: by accuracy, then lower loss, then name.
std::string ranked_client(const nlohmann::json& models, server::StudentStart student) {
  std::vector<std::tuple<double, double, std::string>> ranked;
  for (const auto& model : models) {
    ranked.emplace_back(-model["accuracy"].get<double>(), model["loss"].get<double>(), model["client"]);
  }
  std::ranges::sort(ranked);
  return std::get<2>(student == server::StudentStart::worst ? ranked.back() : ranked.front());
}

TEST_CASE("all ten cells of the published table run, and each is recorded as what it was") {
  const test::TemporaryFolder folder;
  int cell = 0;
  for (const auto transfer : {TransferSet::public_large, TransferSet::student}) {
    for (const auto student :
         {server::StudentStart::best, server::StudentStart::worst, server::StudentStart::untrained}) {
      for (const auto weights : {learn::TeacherWeighting::adaptive, learn::TeacherWeighting::equal}) {
        auto config = test::small_config(folder / fmt::format("cell-{}", cell++));
        configure(config, StartModel::kd, transfer);
        config.federation.num_rounds = 0;
        config.federation.consolidation.student = student;
        config.federation.consolidation.weighting = weights;
        const auto summary = simulate(config, small_clients());
        const auto& report = summary["start_report"];
        const bool on_student_data = transfer == TransferSet::student;
        const bool is_untrained = student == server::StudentStart::untrained;
        CHECK(report["place"] == (on_student_data ? ranked_client(summary["models"], student) : "server"));
        CHECK(report["in_published_table"] == !(on_student_data && is_untrained));
        CHECK(report["student_copy_teaches"] == (!on_student_data && !is_untrained));
        CHECK(report["teachers"].size() == (on_student_data || !is_untrained ? 3 : 4));
        CHECK(report["gate"].contains("seed_accuracy"));
        CHECK(summary["ensemble"].contains("equal"));
      }
    }
  }
}

TEST_CASE("tuning: the seed is that of the best setting tried, and teachers travel once") {
  const test::TemporaryFolder folder;
  for (const auto transfer : {TransferSet::public_large, TransferSet::student}) {
    for (const auto source : {server::ValidationSource::server, server::ValidationSource::federated}) {
      const bool on_student_data = transfer == TransferSet::student;
      const auto config_in = [&](const std::string& name) {
        auto config = test::small_config(
            folder / fmt::format("{}-{}-{}", name, on_student_data, source == server::ValidationSource::server));
        configure(config, StartModel::kd, transfer);
        config.federation.num_rounds = 0;
        config.federation.validation = source;
        return config;
      };
      auto tuned = config_in("tuned");
      tuned.federation.consolidation.tune = server::SettingChoice::automatic;
      const auto summary = simulate(tuned, small_clients());
      const auto& tuning = summary["start_report"]["tuning"];
      REQUIRE(tuning.is_object());
      CHECK(tuning["trials"].size() >= (on_student_data ? 4 : 3));
      CHECK(tuning["trials"].size() <= (on_student_data ? 7 : 4));
      double best = 0;
      double best_loss = 0;
      nlohmann::json chosen;
      for (const auto& trial : tuning["trials"]) {
        const auto accuracy = trial["accuracy"].get<double>();
        const auto loss = trial["loss"].get<double>();
        if (!chosen.is_null() && (accuracy < best || (accuracy == best && loss >= best_loss))) continue;
        best = accuracy;
        best_loss = loss;
        chosen = trial;
      }
      CHECK(tuning["temperature"] == chosen["temperature"]);
      CHECK(tuning.contains("alpha") == on_student_data);
      // Under federated validation the gate leaves out the best local model's own client.
      if (source == server::ValidationSource::server) CHECK(summary["start_report"]["gate"]["seed_accuracy"] == best);

      auto fixed = config_in("fixed");
      fixed.terms.consolidation.temperature = tuning["temperature"].get<double>();
      if (on_student_data) fixed.terms.consolidation.alpha = tuning["alpha"].get<double>();
      const auto untuned = simulate(fixed, small_clients());
      CHECK(untuned["model_digest"] == summary["model_digest"]);
      CHECK_FALSE(untuned["start_report"].contains("tuning"));

      std::map<std::string, int> sent;
      for (const auto& line : lines_of(std::filesystem::path(tuned.folder) / "audit.jsonl")) {
        const auto what = line.value("what", "");
        if (line["event"] == "sent" && what.starts_with("model of ") &&
            line["client"] == summary["start_report"]["place"] && source == server::ValidationSource::server) {
          ++sent[what];
        }
      }
      if (on_student_data && source == server::ValidationSource::server) CHECK(sent.size() == 3);
      for (const auto& [what, times] : sent) CHECK(times == 1);
    }
  }
}

TEST_CASE("settings beyond the table: each gives another seed, and says that it is none of the table's") {
  const test::TemporaryFolder folder;
  std::set<std::string> seeds;
  const auto run = [&](const std::string& name, const std::function<void(server::ServerConfig&)>& change) {
    auto config = test::small_config(folder / name);
    configure(config, StartModel::kd, TransferSet::public_large);
    config.federation.num_rounds = 0;
    change(config);
    const auto summary = simulate(config, small_clients());
    seeds.insert(summary["model_digest"].get<std::string>());
    return summary["start_report"]["in_published_table"].get<bool>();
  };
  CHECK(run("published", [](auto&) {}));
  CHECK_FALSE(run("logits", [](auto& config) { config.terms.consolidation.average = learn::TeacherAverage::logits; }));
  CHECK_FALSE(run("standardised", [](auto& config) { config.terms.consolidation.standardise = true; }));
  CHECK_FALSE(run("normalised", [](auto& config) {
    config.federation.consolidation.student = server::StudentStart::untrained;
    config.terms.consolidation.normalise = true;
  }));
  CHECK_FALSE(run("prior", [](auto& config) { config.federation.consolidation.divides_label_prior = true; }));
  CHECK(seeds.size() == 5);
}

TEST_CASE("FedDF: the same bits whatever the order of arrival and over sockets, another model than FedAvg's") {
  const test::TemporaryFolder folder;
  const auto config_in = [&](const std::string& name) {
    auto config = test::small_config(folder / name);
    config.federation.strategy.name = "feddf";
    return config;
  };
  const auto plain = simulate(config_in("plain"), small_clients());
  auto disordered = small_clients();
  for (std::uint64_t i = 0; i < disordered.size(); ++i) disordered[i].wrap = delayed(i);
  CHECK(simulate(config_in("disordered"), std::move(disordered))["model_digest"] == plain["model_digest"]);
  CHECK(run_over_websockets(config_in("sockets"), small_clients())["model_digest"] == plain["model_digest"]);
  const auto average = simulate(test::small_config(folder / "fedavg"), small_clients());
  CHECK(average["model_digest"] != plain["model_digest"]);
  const auto rounds = lines_of(folder / "plain/rounds.jsonl");
  CHECK_FALSE(rounds[0].contains("feddf"));
  for (std::size_t i = 1; i < rounds.size(); ++i) {
    CHECK(rounds[i]["feddf"]["teachers"] == 4);
    CHECK(rounds[i]["feddf"]["seconds"].get<double>() > 0);
  }
  // A distillation that diverges leaves the round its average.
  auto diverging = config_in("diverging");
  diverging.federation.strategy.feddf.optimizer = {.kind = learn::OptimizerKind::sgd, .lr = 1e30, .weight_decay = 0};
  diverging.federation.strategy.feddf.epochs = 3;
  CHECK(simulate(diverging, small_clients())["model_digest"] == average["model_digest"]);
  CHECK(lines_of(folder / "diverging/rounds.jsonl")[1]["feddf"]["failed"].get<std::string>().find("diverged") !=
        std::string::npos);
  // Without a step of the student the average stays what it is.
  auto still = config_in("still");
  still.federation.strategy.feddf.optimizer = {.kind = learn::OptimizerKind::sgd, .lr = 0, .weight_decay = 0};
  still.federation.num_rounds = 1;
  simulate(still, small_clients());
  auto one = test::small_config(folder / "one");
  one.federation.num_rounds = 1;
  simulate(one, small_clients());
  const auto weights_of = [](const std::filesystem::path& run) {
    return wire::load_safetensors(run / "final.safetensors").model.state().at("fc1.weight").clone();
  };
  CHECK(torch::equal(weights_of(folder / "still"), weights_of(folder / "one")));
}

TEST_CASE("the other starts: best local is the best client's model, the average is none of theirs") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "best");
  config.federation.start = StartModel::best_local;
  config.federation.num_rounds = 0;
  const auto best = simulate(config, small_clients());
  const std::string winner = best["start_report"]["client"];
  for (const auto& model : best["models"]) {
    if (model["client"] == winner) CHECK(model["model"] == best["model_digest"]);
  }
  config.folder = folder / "average";
  config.federation.start = StartModel::average;
  const auto average = simulate(config, small_clients());
  CHECK(average["start_report"]["statistics"] == "public set");
  CHECK(average["model_digest"] != best["model_digest"]);
}

class Notes final : public server::RunObserver {
 public:
  void on_note(const std::string& text) override { all += text + "\n"; }
  void on_phase(const server::Phase& phase, std::size_t num_parts) override {
    phases.emplace_back(server::words_of(phase), num_parts);
  }
  std::string all;
  std::vector<std::pair<std::string, std::size_t>> phases;
};

TEST_CASE("without a public set every client re-estimates the average's statistics, own architectures included") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.start = StartModel::average;
  config.federation.num_rounds = 0;
  auto clients = small_clients();
  auto options = sharing();
  options.own_model = config.terms.model;
  options.own_model->channels = {5, 6};
  clients[3].worker = test::small_worker(3, options);
  server::CentralData data = test::small_central_data();
  data.transfer = {};
  server::RunFolder run_folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  Notes notes;
  const auto summary = lab::simulate(config, std::move(data), run_folder, notes, std::move(clients), 2, real_time);
  CHECK(summary["start_report"]["statistics"] == "clients");
  CHECK(notes.all.find("without") == std::string::npos);
}

TEST_CASE("a client that returns other weights with the statistics of the average changes none of them") {
  class Forger final : public test::DelegatingWorker {
   public:
    using DelegatingWorker::DelegatingWorker;
    wire::PackedState reestimate_statistics(const wire::PackedState& model,
                                            const client::TaskContext& context) override {
      const learn::StateDict state = DelegatingWorker::reestimate_statistics(model, context).state().clone();
      state.at("conv1.weight").fill_(1000);
      return wire::PackedState(state);
    }
  };
  const test::TemporaryFolder folder;
  const auto weights = [&folder](const std::string& name, bool is_forged) {
    auto config = test::small_config(folder / name);
    config.federation.start = StartModel::average;
    config.federation.num_rounds = 0;
    config.terms.model.norm = learn::Norm::batch;
    auto clients = small_clients();
    if (is_forged) clients[0].worker = std::make_unique<Forger>(std::move(clients[0].worker));
    server::CentralData data = test::small_central_data();
    data.transfer = {};
    server::RunFolder run_folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
    Notes notes;
    lab::simulate(config, std::move(data), run_folder, notes, std::move(clients), 2, real_time);
    return wire::load_safetensors(folder / name / "final.safetensors").model.state().at("conv1.weight");
  };
  const at::Tensor honest = weights("honest", false);
  CHECK(weights("forged", true).equal(honest));
  CHECK(honest.abs().max().item<double>() < 10);
}

TEST_CASE("measuring a model at the clients is a phase of its own, not a part of its round's progress") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.num_rounds = 2;
  server::RunFolder run_folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  Notes notes;
  lab::simulate(config, test::small_central_data(), run_folder, notes, small_clients(), 2, real_time);
  using Phases = std::vector<std::pair<std::string, std::size_t>>;
  CHECK(notes.phases == Phases{{"round 0: evaluation at the clients", 4},
                               {"round 1", 4},
                               {"round 1: evaluation at the clients", 4},
                               {"round 2", 4},
                               {"round 2: evaluation at the clients", 4}});
}

TEST_CASE("federated validation rates every model at every client and gives the same kind of run") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  configure(config, StartModel::kd, TransferSet::public_large);
  config.federation.validation = server::ValidationSource::federated;
  config.federation.num_rounds = 1;
  const auto summary = simulate(config, small_clients());
  for (const auto& model : summary["models"]) CHECK(model["class_accuracy"].size() == 3);
  const auto run = read_json(folder / "run/run.json");
  CHECK(run["validation_source"] == "federated");
  CHECK(run["models_leave_silos_for"].size() == 3);
}

TEST_CASE("a client with an architecture of its own teaches: by logits on a public set, by weights on student data") {
  const test::TemporaryFolder folder;
  for (const auto transfer : {TransferSet::public_large, TransferSet::student}) {
    auto config = test::small_config(folder / fmt::format("run-{}", static_cast<int>(transfer)));
    configure(config, StartModel::kd, transfer);
    config.federation.num_rounds = 1;
    auto clients = small_clients();
    auto options = sharing();
    options.own_model = config.terms.model;
    options.own_model->channels = {5, 6};
    clients[3].worker = test::small_worker(3, options);
    const auto summary = simulate(config, std::move(clients));
    CAPTURE(summary["start_report"].dump());
    const auto teachers = summary["start_report"]["teachers"].get<std::vector<std::string>>();
    CHECK(std::ranges::count(teachers, "silo-3") == 1);
    CHECK(summary["start_report"]["student"] != "silo-3");
    CHECK(summary["rounds"] == 1);
  }
}

std::vector<lab::SimulatedClient> clients_of_whom_share(std::int64_t num_sharing) {
  auto clients = small_clients();
  for (std::int64_t i = num_sharing; i < test::small_num_clients; ++i) {
    clients[static_cast<std::size_t>(i)].worker = test::small_worker(i);
  }
  return clients;
}

TEST_CASE("student data: only silos that share with peers teach or are the student") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  configure(config, StartModel::kd, TransferSet::student);
  config.federation.num_rounds = 0;
  const auto summary = simulate(config, clients_of_whom_share(2));
  const auto& report = summary["start_report"];
  const std::set<std::string> involved = {report["student"].get<std::string>(),
                                          report["teachers"][0].get<std::string>()};
  CHECK(involved == std::set<std::string>{"silo-0", "silo-1"});
  CHECK(report["teachers"].size() == 1);
  CHECK(report["left_out"]["silo-2"].get<std::string>().find("does not share") != std::string::npos);
  CHECK(summary["share_model"]["peers"] == nlohmann::json{"silo-0", "silo-1"});
  CHECK(summary["share_model"]["server"] == nlohmann::json{"silo-2", "silo-3"});
}

TEST_CASE("without consent nothing is handed on: the public set instead of student data, or no run at all") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "public");
  configure(config, StartModel::kd, TransferSet::student);
  config.federation.num_rounds = 0;
  config.federation.consolidation.student = server::StudentStart::untrained;
  const auto summary = simulate(config, clients_of_whom_share(0));
  CHECK(summary["start_report"]["transfer"] == "public");
  CHECK(summary["start_report"]["teachers"].size() == 4);
  CHECK(summary["start_report"]["fell_back"].get<std::string>().find("share_model: peers") != std::string::npos);
  for (const auto& line : lines_of(folder / "public/audit.jsonl")) {
    CHECK_FALSE(line.value("what", "").starts_with("model of "));
  }

  config.folder = folder / "none";
  config.federation.consolidation.student = server::StudentStart::best;
  const std::string message = test::error_of([&] { simulate(config, clients_of_whom_share(0)); });
  CHECK(message.find("consolidation.student best") != std::string::npos);
  CHECK(message.find("share_model: peers") != std::string::npos);
  CHECK(read_json(folder / "none/interrupted.json")["models"].empty());  // refused before anybody trained
}

TEST_CASE("federated validation: a model that is not shared with peers stays unrated and never leaves the server") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  configure(config, StartModel::kd, TransferSet::public_large);
  config.federation.validation = server::ValidationSource::federated;
  config.federation.num_rounds = 0;
  const auto summary = simulate(config, clients_of_whom_share(3));
  for (const auto& model : summary["models"]) CHECK(model.contains("accuracy") == (model["client"] != "silo-3"));
  CHECK(summary["start_report"]["left_out"].contains("silo-3"));
  CHECK(summary["start_report"]["student"] != "silo-3");
  std::set<std::string> sent;
  for (const auto& line : lines_of(folder / "run/audit.jsonl")) {
    if (line["event"] == "sent") sent.insert(line["what"].get<std::string>());
  }
  CHECK(sent == std::set<std::string>{"model of silo-0", "model of silo-1", "model of silo-2", "seed", "global model"});
}

TEST_CASE("the audit log names every model that left and came, by the hash that the next line knows it by") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  const auto summary = simulate(config, small_clients());
  std::string global;
  std::map<std::string, std::vector<std::string>> events;
  std::int64_t num_updates = 0;
  for (const auto& line : lines_of(folder / "run/audit.jsonl")) {
    const auto event = line["event"].get<std::string>();
    events[event].push_back(line.value("client", ""));
    CHECK(line["at"].get<std::string>().size() == 24);
    if (event == "global model") {
      CHECK(line["clients"].size() == (line["round"] == 0 ? 0 : 4));
      global = line["sha256"].get<std::string>();
    }
    if (event == "sent") CHECK(line["sha256"] == global);
    if (event == "received") {
      CHECK(line["accepted"] == true);
      CHECK(line["sha256"] != global);
      CHECK(line["what"].get<std::string>().starts_with("update of round "));
      ++num_updates;
    }
  }
  CHECK(global == summary["model_digest"]);
  CHECK(num_updates == 12);
  CHECK(events["joined"].size() == 4);
  CHECK(events["server started"].size() == 1);
  CHECK(events["run ended"].size() == 1);
  CHECK(events["connection lost"].empty());
}

TEST_CASE("the gate acts where it is on and the seed is no better") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  configure(config, StartModel::kd, TransferSet::public_large);
  config.federation.num_rounds = 0;
  config.federation.consolidation.gate = true;
  config.federation.consolidation.student = server::StudentStart::untrained;
  config.terms.consolidation.epochs = 1;
  config.terms.consolidation.optimizer.lr = 0;  // a seed that learns nothing
  const auto summary = simulate(config, small_clients());
  CHECK(summary["start"] == "kd");
  CHECK(summary["start_used"] == "best_local");
  CHECK(summary["start_report"]["refused_seed"]["gate"]["acts"] == true);
}

TEST_CASE("a run stops at its target and says when it was reached") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  config.federation.num_rounds = 30;
  config.federation.targets = {.accuracies = {0.5}, .stop = true};
  const auto summary = simulate(config, small_clients());
  CHECK(summary["stopped_because"] == "every target is reached");
  CHECK(summary["targets"][0]["round"] == summary["rounds"]);
  CHECK(summary["rounds"] < 30);
}

TEST_CASE("the run's folder: one line a round, a readable final model, nothing of the silos left") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  configure(config, StartModel::kd, TransferSet::public_large);
  const auto summary = simulate(config, small_clients());
  std::istringstream lines(read_text(folder / "run/rounds.jsonl"));
  std::string line;
  int round = 0;
  const std::uint64_t model_bytes = wire::load_safetensors(folder / "run/final.safetensors").model.bytes().size();
  while (std::getline(lines, line)) {
    const auto record = nlohmann::json::parse(line);
    CHECK(record["round"] == round);
    CHECK(record["class_accuracy"].size() == 3);
    CHECK(record["federated"]["samples"] > 0);
    if (round > 0) {
      // Every client sends one model; receives one too, whether by a task or by the evaluation before it.
      CHECK(record["clients"].size() == 4);
      CHECK(record["bytes_up"] > 4 * model_bytes);
      CHECK(record["bytes_up"] < 4 * model_bytes + 4000);
      CHECK(record["bytes_down"] > 4 * model_bytes);
      CHECK(record["bytes_down"] < 4 * model_bytes + 4000);
    }
    ++round;
  }
  CHECK(round == 4);
  CHECK(wire::load_safetensors(folder / "run/final.safetensors").model.digest() ==
        summary["model_digest"].get<std::string>());
  CHECK_FALSE(std::filesystem::exists(folder / "run/models"));
  CHECK_FALSE(std::filesystem::exists(folder / "run/staging"));
  CHECK(simulate(config, small_clients()) == summary);
}

TEST_CASE("pre-trained models are trained once and shared by runs through their store") {
  const test::TemporaryFolder folder;
  const auto run = [&](const char* name) {
    auto config = test::small_config(folder / name);
    config.federation.start = StartModel::best_local;
    config.federation.num_rounds = 0;
    auto clients = small_clients();
    for (std::int64_t i = 0; i < test::small_num_clients; ++i) {
      auto options = sharing();
      options.store = folder / "store";
      clients[static_cast<std::size_t>(i)].worker = test::small_worker(i, options);
    }
    return simulate(config, std::move(clients));
  };
  const auto first = run("first");
  const auto second = run("second");
  CHECK(first["models"][0]["reused"] == false);
  CHECK(second["models"][0]["reused"] == true);
  CHECK(first["models"][0]["model"] == second["models"][0]["model"]);
  CHECK(first["models"][0]["pretrain_seconds"] == second["models"][0]["pretrain_seconds"]);
  CHECK(first["model_digest"] == second["model_digest"]);
}

TEST_CASE("a simulation ends when a client that its run cannot begin without has ended, and says why") {
  class Refusing final : public test::DelegatingWorker {
   public:
    using DelegatingWorker::DelegatingWorker;
    wire::Join join(const plan::Terms&) override { throw Error(Errc::data, "label 7, expected 0 to 2"); }
  };
  const test::TemporaryFolder folder;
  const auto refuse = [](lab::SimulatedClient& client) {
    client.worker = std::make_unique<Refusing>(std::move(client.worker));
  };
  auto one = small_clients();
  refuse(one[2]);
  const std::string of_one =
      test::error_of(Errc::run_failed, [&] { simulate(test::small_config(folder / "one"), std::move(one)); });
  CHECK(of_one.find("client silo-2: label 7, expected 0 to 2") != std::string::npos);

  auto all = small_clients();
  for (auto& client : all) refuse(client);
  auto config = test::small_config(folder / "all");
  config.federation.timeouts.lobby = 3600;
  const std::string of_all = test::error_of(Errc::run_failed, [&] { simulate(config, std::move(all)); });
  CHECK(of_all.find("label 7, expected 0 to 2") != std::string::npos);
}

TEST_CASE("every model file of a run says what it is, and run.json too") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  configure(config, StartModel::kd, TransferSet::public_large);
  auto data = test::small_central_data();
  data.samples.classes = {"low", "mid", "high"};
  server::RunFolder run(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  server::RunObserver silent;
  lab::simulate(config, std::move(data), run, silent, small_clients(), 2, real_time);
  const nlohmann::json record = nlohmann::json::parse(read_text(folder / "run/run.json"));
  CHECK(record["samples"]["classes"] == nlohmann::json{"low", "mid", "high"});
  CHECK(record["samples"]["input_shape"] == nlohmann::json{1, 12, 12});
  for (const auto& [file, round] : std::map<std::string, std::string>{
           {"final", "3"}, {"checkpoints/round-00001", "1"}, {"checkpoints/round-00003", "3"}, {"best", ""}}) {
    CAPTURE(file);
    const wire::Metadata metadata = wire::load_safetensors(folder / "run" / (file + ".safetensors")).metadata;
    for (const char* key :
         {"input_shape", "scale", "mean", "deviation", "classes", "architecture", "round", "headstart", "terms"}) {
      CAPTURE(key);
      CHECK(metadata.contains(key));
    }
    if (!round.empty()) CHECK(metadata.at("round") == round);
    CHECK(metadata.at("classes") == R"(["low","mid","high"])");
    CHECK(metadata.at("terms") == record["terms"]);
    CHECK(metadata.at("architecture") == record["architecture"]);
  }
}

/// A table of 16 columns around 1, of which five are larger in each of three classes.
learn::Dataset table(std::int64_t count, std::string_view name) {
  const Seed seed = Seed(5).child("table").child(name);
  const at::Tensor labels = torch::arange(count, torch::kLong) % 3;
  at::Tensor x = at::randn({count, 16}, learn::generator(seed)).add_(1);
  for (std::int64_t i = 0; i < count; ++i) x[i].narrow(0, 5 * (i % 3), 5).add_(3);
  return {.name = "table", .images = x, .labels = labels, .num_classes = 3};
}

TEST_CASE("a federation over a table: rows of one dimension, a constant for each column, a scripted model") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "run");
  configure(config, StartModel::kd, TransferSet::public_large);
  config.terms.model = {.name = "script:tests/golden/scripted/tied.pt"};
  server::CentralData data;
  data.task = config.terms.task = {{16}, 3};
  data.dataset = "table";
  data.samples = learn::sample_terms(table(60, "test"));
  data.samples.mean.assign(16, 2);
  data.samples.deviation.assign(16, 1.5);
  data.test = learn::model_input(table(60, "test"), data.samples);
  data.validation = learn::model_input(table(30, "validation"), data.samples);
  data.transfer = learn::model_input(table(60, "transfer"), data.samples).without_labels();
  data.figures = learn::figures_of(table(60, "test"));
  std::vector<lab::SimulatedClient> clients;
  for (std::int64_t i = 0; i < test::small_num_clients; ++i) {
    auto options = sharing();
    options.name = test::small_name(i);
    options.script = "tests/golden/scripted/tied.pt";
    clients.push_back({options.name, std::make_unique<client::LocalWorker>(options, table(40 + i, options.name)), {}});
  }
  server::RunFolder run(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  server::RunObserver silent;
  const auto summary = lab::simulate(config, std::move(data), run, silent, std::move(clients), 2, real_time);
  const wire::Metadata metadata = wire::load_safetensors(folder / "run/final.safetensors").metadata;
  CHECK(metadata.at("input_shape") == "[16]");
  CHECK(lines_of(folder / "run/rounds.jsonl").back()["accuracy"] > 0.9);
}

TEST_CASE("memory for updates bounded to nothing: all are staged on disk, with the same result") {
  const test::TemporaryFolder folder;
  auto config = test::small_config(folder / "memory");
  const auto in_memory = simulate(config, small_clients());
  config.folder = folder / "staged";
  config.federation.upload_memory = 1;
  CHECK(simulate(config, small_clients())["model_digest"] == in_memory["model_digest"]);
}

}  // namespace
}  // namespace headstart
