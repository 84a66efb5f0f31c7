// What a run survives: faults on any message of any client, a server that is stopped anywhere and started again,
// clients that are slow or come late. The model is the same as without them, or the summary says what was left out.
// By manual time, so that no test waits for a time limit; only what a round of FedDF costs takes real time.

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>

#include <boost/asio/this_coro.hpp>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include "experiments/lab/simulation.hpp"
#include "shared/base/files.hpp"
#include "shared/base/journal.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/net/faulty_channel.hpp"
#include "tests/support/delegating_channel.hpp"
#include "tests/support/delegating_worker.hpp"
#include "tests/support/small_run.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"
#include "tests/support/unhurried_worker.hpp"

namespace headstart {
namespace {

using lab::SimulatedClient;
using server::Phase;
using server::PhaseKind;
using server::StartModel;
using server::TransferSet;

/// Of the places where a fault can be injected: first, first + every, ...
struct Visits {
  std::uint64_t every, first;
};

/// `few` in the normal suite. HEADSTART_LONG=1: all places. HEADSTART_LONG=2/16: the second of sixteen parts of them,
/// which processes can visit beside each other.
Visits visits(Visits few) {
  const char* const asked = std::getenv("HEADSTART_LONG");  // NOLINT(concurrency-mt-unsafe)
  if (asked == nullptr) return few;
  const std::string text = asked;
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) return {1, 0};
  const Visits part{std::stoull(text.substr(slash + 1)), std::stoull(text.substr(0, slash)) - 1};
  REQUIRE(part.first < part.every);
  return part;
}

server::ServerConfig config_in(const std::filesystem::path& folder, StartModel start = StartModel::kd,
                               TransferSet transfer = TransferSet::public_large) {
  auto config = test::small_config(folder);
  config.federation.start = start;
  config.federation.consolidation.transfer = transfer;
  config.terms.pretrain.max_epochs = 2;
  config.terms.consolidation.epochs = 1;
  config.federation.num_rounds = 6;
  config.federation.timeouts = {.handshake = 1, .silence = 1, .absence = 5, .task = 3, .phase = 60};
  return config;
}

client::SiloOptions sharing() {
  return {.name = {}, .own_model = {}, .script = {}, .store = {}, .shares_with_peers = true};
}

std::vector<SimulatedClient> clients_of(std::int64_t count = test::small_num_clients) {
  std::vector<SimulatedClient> clients;
  for (std::int64_t i = 0; i < count; ++i) {
    clients.push_back({test::small_name(i), test::small_worker(i, sharing()), {}});
  }
  return clients;
}

class Notes : public server::RunObserver {
 public:
  void on_note(const std::string& text) override { all += text + "\n"; }
  [[nodiscard]] bool has(const std::string& words) const { return all.find(words) != std::string::npos; }
  std::string all;
};

using OnStop = std::function<void(std::function<void()>)>;

nlohmann::json run(const server::ServerConfig& config, std::vector<SimulatedClient> clients,
                   server::RunObserver& observer, net::Time& time, const OnStop& on_stop = {}) {
  learn::use_threads(1);  // more of them would mostly wait for each other: the models are small
  server::RunFolder folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  return lab::simulate(config, test::small_central_data(), folder, observer, std::move(clients), 2, time, on_stop);
}

nlohmann::json run(const server::ServerConfig& config, std::vector<SimulatedClient> clients,
                   server::RunObserver& observer, const OnStop& on_stop = {}) {
  net::ManualTime time;
  return run(config, std::move(clients), observer, time, on_stop);
}

/// What the clients of a run were made to do.
struct WorkCounts {
  std::atomic<int> pretrainings = 0, trainings = 0, distillations = 0;
  [[nodiscard]] std::string words() const {
    return fmt::format("{} pre-trained, {} trained, {} distilled", pretrainings.load(), trainings.load(),
                       distillations.load());
  }
};

class CountingWorker final : public test::DelegatingWorker {
 public:
  CountingWorker(std::unique_ptr<client::Worker> inner, std::shared_ptr<WorkCounts> counts)
      : DelegatingWorker(std::move(inner)), counts_(std::move(counts)) {}
  plan::Pretraining pretrain(const client::TaskContext& context) override {
    ++counts_->pretrainings;
    return DelegatingWorker::pretrain(context);
  }
  wire::PackedState train(const wire::PackedState& global, std::uint32_t round,
                          const client::TaskContext& context) override {
    ++counts_->trainings;
    return DelegatingWorker::train(global, round, context);
  }
  wire::PackedState distill(const client::Assignment& work, const client::TaskContext& context) override {
    ++counts_->distillations;
    return DelegatingWorker::distill(work, context);
  }

 private:
  std::shared_ptr<WorkCounts> counts_;
};

std::vector<SimulatedClient> counted(std::vector<SimulatedClient> clients, const std::shared_ptr<WorkCounts>& counts) {
  for (auto& client : clients) client.worker = std::make_unique<CountingWorker>(std::move(client.worker), counts);
  return clients;
}

/// Fails in these phases of a run, as the summary names them.
class FailingWorker final : public test::DelegatingWorker {
 public:
  FailingWorker(std::unique_ptr<client::Worker> inner, std::set<std::string> phases)
      : DelegatingWorker(std::move(inner)), phases_(std::move(phases)) {}
  plan::Pretraining pretrain(const client::TaskContext& context) override {
    fail_in(server::recorded({PhaseKind::pretraining}));
    return DelegatingWorker::pretrain(context);
  }
  wire::PackedState pretrained(const client::TaskContext& context) override {
    fail_in(server::recorded({PhaseKind::exchange}));
    return DelegatingWorker::pretrained(context);
  }
  wire::PackedState train(const wire::PackedState& global, std::uint32_t round,
                          const client::TaskContext& context) override {
    fail_in(server::recorded({PhaseKind::training, round}));
    return DelegatingWorker::train(global, round, context);
  }
  wire::PackedState distill(const client::Assignment& work, const client::TaskContext& context) override {
    fail_in(server::recorded({PhaseKind::consolidation}));
    return DelegatingWorker::distill(work, context);
  }

 private:
  void fail_in(const std::string& phase) const {
    if (phases_.contains(phase)) throw Error(Errc::run_failed, "it is to fail here");
  }

  std::set<std::string> phases_;
};

// ---- faults on the wire

/// Wraps the client's channels: the first one misbehaves as planned, the next ones do not. `operations` counts the
/// first one's.
auto faulty(const net::FaultPlan& plan, std::shared_ptr<std::uint64_t> operations = nullptr) {
  class Counting final : public test::DelegatingChannel<net::FaultyChannel> {
   public:
    Counting(std::unique_ptr<net::FaultyChannel> inner, std::shared_ptr<std::uint64_t> count)
        : DelegatingChannel(std::move(inner)), count_(std::move(count)) {}
    ~Counting() override {
      if (count_) *count_ = inner().operations();
    }

   private:
    std::shared_ptr<std::uint64_t> count_;
  };
  const auto is_first = std::make_shared<bool>(true);
  return [plan, operations, is_first](std::unique_ptr<net::MessageChannel> channel) {
    if (!std::exchange(*is_first, false)) return channel;
    return std::unique_ptr<net::MessageChannel>(
        std::make_unique<Counting>(std::make_unique<net::FaultyChannel>(std::move(channel), plan), operations));
  };
}

net::Task<> pause(TimePoint::duration span) {
  net::Timer timer(co_await boost::asio::this_coro::executor, span);
  co_await timer.wait();
}

/// Others send, or are sent, all that they can meanwhile.
net::Task<> long_enough_for_others() { return pause(std::chrono::milliseconds(20)); }

/// No time limit of the run is as long.
net::Task<> longer_than_any_limit() { return pause(std::chrono::hours(24)); }

void visit_operations(TransferSet transfer, net::Fault fault, Visits few) {
  const test::TemporaryFolder folder;
  Notes notes;
  auto clean = clients_of();
  std::vector<std::shared_ptr<std::uint64_t>> operations;
  for (auto& client : clean) {
    operations.push_back(std::make_shared<std::uint64_t>(0));
    client.wrap = faulty({}, operations.back());
  }
  const auto clean_work = std::make_shared<WorkCounts>();
  const auto expected =
      run(config_in(folder / "clean", StartModel::kd, transfer), counted(std::move(clean), clean_work), notes);
  CHECK(expected["degraded"] == false);
  std::vector<std::pair<std::size_t, std::uint64_t>> places;
  for (std::size_t i = 0; i < operations.size(); ++i) {
    for (std::uint64_t operation = 0; operation < *operations[i]; ++operation) places.emplace_back(i, operation);
  }
  CHECK(places.size() >= 300);
  const Visits chosen = visits(few);
  for (std::uint64_t place = chosen.first; place < places.size(); place += chosen.every) {
    const auto [client, operation] = places[place];
    const std::string label = fmt::format("fault-{}-{}-{}", static_cast<int>(fault), client, operation);
    CAPTURE(label);
    auto clients = clients_of();
    clients[client].wrap = faulty({.fault = fault, .operation = operation, .delay = long_enough_for_others});
    int num_told = 0;
    for (auto& each : clients) {
      each.on_end = [&num_told](const std::exception_ptr& why) { num_told += why ? 0 : 1; };
    }
    const auto work = std::make_shared<WorkCounts>();
    const auto summary =
        run(config_in(folder / label, StartModel::kd, transfer), counted(std::move(clients), work), notes);
    CHECK(summary["rounds"] == expected["rounds"]);
    CHECK(num_told == test::small_num_clients);
    // A client that returns hands in what it has finished, and goes on with what it is at.
    if (fault == net::Fault::fail || fault == net::Fault::delay) CHECK(work->words() == clean_work->words());
    if (fault == net::Fault::delay) CHECK(summary["degraded"] == false);
    if (summary["degraded"] == false) {
      CHECK(summary["model_digest"] == expected["model_digest"]);
    } else {
      // What is missing is the one client's, and for its time alone; the model is that of a run in which it fails
      // there.
      std::set<std::string> phases;
      for (const auto& left : summary["left_out"]) {
        CHECK(left["client"] == test::small_name(static_cast<std::int64_t>(client)));
        CHECK(left["reason"].get<std::string>().find("late") != std::string::npos);
        phases.insert(left["phase"]);
      }
      auto failing = clients_of();
      failing[client].worker = std::make_unique<FailingWorker>(std::move(failing[client].worker), phases);
      const auto same =
          run(config_in(folder / (label + "-failing"), StartModel::kd, transfer), std::move(failing), notes);
      CHECK(summary["model_digest"] == same["model_digest"]);
      std::filesystem::remove_all(folder / (label + "-failing"));
    }
    std::filesystem::remove_all(folder / label);
  }
}

TEST_CASE("a connection that is lost at any message costs nothing: the client returns and the model is the same") {
  visit_operations(TransferSet::public_large, net::Fault::fail, {7, 0});
  visit_operations(TransferSet::student, net::Fault::fail, {7, 3});
}

TEST_CASE("a message that is late: nothing is lost, and what the clients do comes out in the same order") {
  visit_operations(TransferSet::public_large, net::Fault::delay, {29, 2});
  visit_operations(TransferSet::student, net::Fault::delay, {29, 7});
}

TEST_CASE("a message that is cut, doubled or out of order: the same model, or a summary that says who was late") {
  const std::vector<std::pair<net::Fault, std::uint64_t>> faults = {
      {net::Fault::truncate, 1}, {net::Fault::duplicate, 5}, {net::Fault::reorder, 11}};
  for (const auto& [fault, first] : faults) {
    visit_operations(TransferSet::public_large, fault, {43, first});
    visit_operations(TransferSet::student, fault, {47, first});
  }
}

TEST_CASE(
    "a connection that stands still at any message: the others go on without the client, each phase in its time") {
  const test::TemporaryFolder folder;
  Notes notes;
  const auto expected = run(config_in(folder / "whole"), clients_of(), notes);
  const Visits chosen = visits({11, 4});
  for (std::uint64_t operation = chosen.first; operation < 80; operation += chosen.every) {
    CAPTURE(operation);
    const auto config = config_in(folder / fmt::format("still-{}", operation));
    auto clients = clients_of();
    clients[1].wrap = faulty({.fault = net::Fault::delay, .operation = operation, .delay = longer_than_any_limit});
    net::ManualTime time;
    const TimePoint begin = time.now();
    std::map<std::string, TimePoint::duration> told;
    for (auto& each : clients) {
      each.on_end = [&, name = each.name](const std::exception_ptr& why) {
        if (!why) told[name] = time.now() - begin;
      };
    }
    const auto summary = run(config, std::move(clients), notes, time);
    CHECK(summary["rounds"] == expected["rounds"]);
    for (const std::int64_t other : {0, 2, 3}) {
      REQUIRE(told.contains(test::small_name(other)));
      // A phase takes timeouts.task at most, and there are fewer than 30.
      CHECK(told[test::small_name(other)] < std::chrono::seconds(3 * 30));
    }
    CHECK((summary["degraded"] == true || summary["model_digest"] == expected["model_digest"]));
    for (const auto& left : summary["left_out"]) CHECK(left["client"] == test::small_name(1));
  }
}

TEST_CASE("a client whose connection is lost in a round and that does not come back is waited for, once") {
  const test::TemporaryFolder folder;
  const auto config = config_in(folder / "run", StartModel::random);
  auto clients = clients_of();
  clients[3].wrap = [first = faulty({.fault = net::Fault::fail, .operation = 8}),
                     is_first = true](std::unique_ptr<net::MessageChannel> channel) mutable {
    if (!std::exchange(is_first, false)) throw Error(Errc::rejected, "gone for good");
    return first(std::move(channel));
  };
  Notes notes;
  net::ManualTime time;
  const TimePoint begin = time.now();
  const auto summary = run(config, std::move(clients), notes, time);
  CHECK(time.now() - begin == std::chrono::seconds(5));  // timeouts.absence
  CHECK(summary["rounds"] == 6);
  CHECK(summary["degraded"] == true);
  for (const auto& left : summary["left_out"]) CHECK(left["client"] == "silo-3");
}

// ---- a server that ends and is started again

bool is_phase(const Phase&) { return true; }
/// The training itself, not what follows it in a round.
bool is_round(const Phase& phase) { return phase.kind == PhaseKind::training; }

/// Stops the run when the `count`-th phase begins, of those that `counts`.
class StopAtPhase : public Notes {
 public:
  explicit StopAtPhase(int count, bool (*counts)(const Phase&) = is_phase) : left_(count), counts_(counts) {}
  void on_phase(const Phase& phase, std::size_t) override {
    phases.push_back(phase);
    if (counts_(phase) && --left_ == 0 && stop) stop();
  }
  std::function<void()> stop;
  std::vector<Phase> phases;

 private:
  int left_;
  bool (*counts_)(const Phase&);
};

void run_until(StopAtPhase stopping, const server::ServerConfig& config, std::vector<SimulatedClient> clients,
               net::Time& time) {
  CHECK(test::code_of([&] {
          run(config, std::move(clients), stopping, time,
              [&stopping](std::function<void()> stop) { stopping.stop = stop; });
        }) == Errc::interrupted);
}

/// Runs until the `phase`-th phase begins.
void run_until(int phase, const server::ServerConfig& config, std::vector<SimulatedClient> clients = clients_of()) {
  net::ManualTime time;
  run_until(StopAtPhase(phase), config, std::move(clients), time);
}

/// Runs until the `count`-th round begins, of those that this server goes through.
void run_until_round(int count, const server::ServerConfig& config) {
  net::ManualTime time;
  run_until(StopAtPhase(count, is_round), config, clients_of(), time);
}

std::vector<nlohmann::json> lines_of(const std::filesystem::path& folder) {
  std::ifstream in(folder / "rounds.jsonl");
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

/// What of a line does not depend on the clock or on what was sent again.
nlohmann::json results_of(nlohmann::json line) {
  for (const char* key : {"seconds", "bytes_up", "bytes_down"}) line.erase(key);
  return line;
}

TEST_CASE("stopped at any phase and started again: the same model and the same history, nothing done twice") {
  for (const auto transfer : {TransferSet::public_large, TransferSet::student}) {
    const test::TemporaryFolder folder;
    StopAtPhase undisturbed(0);
    const auto expected = run(config_in(folder / "whole", StartModel::kd, transfer), clients_of(), undisturbed);
    const auto expected_lines = lines_of(folder / "whole");
    const int num_phases = static_cast<int>(undisturbed.phases.size());
    CHECK(num_phases >= 9);
    for (int phase = 1; phase <= num_phases; ++phase) {
      CAPTURE(server::words_of(undisturbed.phases[static_cast<std::size_t>(phase - 1)]));
      const auto config = config_in(folder / fmt::format("stopped-{}", phase), StartModel::kd, transfer);
      run_until(phase, config);
      CHECK(std::filesystem::exists(config.folder + "/interrupted.json"));

      const auto counts = std::make_shared<WorkCounts>();
      Notes notes;
      const auto summary = run(config, counted(clients_of(), counts), notes);
      CHECK(summary["model_digest"] == expected["model_digest"]);
      CHECK(summary["targets"] == expected["targets"]);
      CHECK(summary["degraded"] == false);
      CHECK(summary["share_model"] == expected["share_model"]);
      if (phase > 1) CHECK(counts->pretrainings == 0);
      const auto stopped_in = undisturbed.phases.begin() + phase - 1;
      const auto rating = std::ranges::find(undisturbed.phases, Phase{PhaseKind::seed_rating});
      REQUIRE(rating != undisturbed.phases.end());
      if (stopped_in >= rating) CHECK(counts->distillations == 0);
      CHECK(notes.has("the seed that was distilled before is used") == (stopped_in == rating));
      const auto lines = lines_of(config.folder);
      REQUIRE(lines.size() == expected_lines.size());
      for (std::size_t i = 0; i < lines.size(); ++i) CHECK(results_of(lines[i]) == results_of(expected_lines[i]));
      CHECK_FALSE(std::filesystem::exists(config.folder + "/interrupted.json"));
    }
  }
}

TEST_CASE("stopped while clients evaluate and started again: no rating and no line is of some of them alone") {
  class StopAtEvaluation final : public test::DelegatingWorker {
   public:
    StopAtEvaluation(std::unique_ptr<client::Worker> inner, int count, const StopAtPhase& stopping)
        : DelegatingWorker(std::move(inner)), left_(count), stopping_(stopping) {}
    learn::Evaluation evaluate(const wire::PackedState& model, const std::optional<learn::ModelSpec>& candidate,
                               const client::TaskContext& context) override {
      if (--left_ == 0) stopping_.stop();
      return DelegatingWorker::evaluate(model, candidate, context);
    }

   private:
    int left_;
    const StopAtPhase& stopping_;
  };
  const auto federated_in = [](const std::filesystem::path& folder) {
    auto config = config_in(folder);
    config.federation.validation = server::ValidationSource::federated;
    config.federation.num_rounds = 2;
    return config;
  };
  const test::TemporaryFolder folder;
  Notes notes;
  const auto expected = run(federated_in(folder / "whole"), clients_of(), notes);
  const auto expected_lines = lines_of(folder / "whole");
  // Of the three models of others, of the seed, which is the start, and after each round.
  for (int evaluation = 1; evaluation <= 6; ++evaluation) {
    CAPTURE(evaluation);
    const auto config = federated_in(folder / fmt::format("stopped-{}", evaluation));
    StopAtPhase stopping(0);
    auto clients = clients_of();
    clients[0].worker = std::make_unique<StopAtEvaluation>(std::move(clients[0].worker), evaluation, stopping);
    CHECK(test::code_of([&] {
            run(config, std::move(clients), stopping,
                [&stopping](std::function<void()> stop) { stopping.stop = stop; });
          }) == Errc::interrupted);
    CHECK(run(config, clients_of(), notes)["model_digest"] == expected["model_digest"]);
    const auto lines = lines_of(config.folder);
    REQUIRE(lines.size() == expected_lines.size());
    for (std::size_t i = 0; i < lines.size(); ++i) CHECK(results_of(lines[i]) == results_of(expected_lines[i]));
  }
}

/// Leaves of `journal` what comes before its first `event`.
void cut_before(const std::filesystem::path& journal, const std::string& event) {
  const std::string whole = read_text(journal);
  const std::size_t found = whole.find("\"event\":\"" + event + "\"");
  REQUIRE(found != std::string::npos);
  std::ofstream(journal, std::ios::binary) << whole.substr(0, whole.rfind('\n', found) + 1);
}

TEST_CASE("stopped while settings are tried and started again: no trial is repeated, and the seed is the same") {
  const auto is_trial = [](const Phase& phase) {
    return phase.kind == PhaseKind::public_consolidation || phase.kind == PhaseKind::client_consolidation;
  };
  for (const auto transfer : {TransferSet::public_large, TransferSet::student}) {
    const test::TemporaryFolder folder;
    const auto tuned_in = [transfer](const std::filesystem::path& run) {
      auto config = config_in(run, StartModel::kd, transfer);
      config.federation.validation = server::ValidationSource::server;
      config.federation.consolidation.tune = server::SettingChoice::grid;
      config.federation.consolidation.grid = {.temperatures = {1, 3, 5}, .alphas = {0.5}};
      config.federation.num_rounds = 1;
      return config;
    };
    StopAtPhase undisturbed(0);
    const auto expected = run(tuned_in(folder / "whole"), clients_of(), undisturbed);
    const std::vector<Phase>& phases = undisturbed.phases;
    const auto go_on = [&](const server::ServerConfig& config, std::ptrdiff_t num_trials) {
      StopAtPhase again(0);
      const auto summary = run(config, clients_of(), again);
      CHECK(std::ranges::count_if(again.phases, is_trial) == num_trials);
      CHECK(summary["start_report"] == expected["start_report"]);
      CHECK(summary["model_digest"] == expected["model_digest"]);
      CHECK(summary["degraded"] == false);
      return again.all;
    };
    std::ptrdiff_t num_left = 3;
    for (std::size_t phase = 0; phase < phases.size(); ++phase) {
      if (!is_trial(phases[phase])) continue;
      CAPTURE(num_left);
      const auto config = tuned_in(folder / fmt::format("stopped-{}", num_left));
      run_until(static_cast<int>(phase) + 1, config);
      go_on(config, num_left);
      --num_left;
    }
    CHECK(num_left == 0);

    const auto rating = std::ranges::find(phases, Phase{PhaseKind::seed_rating});
    const int rating_begins = static_cast<int>(rating - phases.begin()) + 1;
    const auto config = tuned_in(folder / "run");
    run_until(rating_begins, config);
    cut_before(folder / "run/journal", "seed");
    const auto damaged = tuned_in(folder / "damaged");
    std::filesystem::copy(folder / "run", folder / "damaged", std::filesystem::copy_options::recursive);
    go_on(config, 0);
    int num_kept = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder / "damaged/models")) {
      if (!file.path().filename().string().starts_with(".trial-")) continue;
      ++num_kept;
      std::ofstream(file.path()) << "damaged";
    }
    CHECK(num_kept == 1);
    CHECK(go_on(damaged, 1).find("the best setting is distilled again") != std::string::npos);
  }
}

server::ServerConfig feddf_in(const std::filesystem::path& folder) {
  auto config = config_in(folder, StartModel::random);
  config.federation.num_rounds = 3;
  config.federation.strategy.name = "feddf";
  return config;
}

/// The same of FedDF: but for its seconds, what it cost is a result.
nlohmann::json feddf_results_of(nlohmann::json line) {
  if (line.contains("feddf")) line["feddf"].erase("seconds");
  return results_of(std::move(line));
}

/// What a round costs is measured by real time: by manual time work takes none.
nlohmann::json run_feddf(const server::ServerConfig& config, Notes& notes) {
  net::RealTime time(std::chrono::steady_clock::now);
  return run(config, clients_of(), notes, time);
}

void run_feddf_until(StopAtPhase stopping, const server::ServerConfig& config) {
  net::RealTime time(std::chrono::steady_clock::now);
  run_until(std::move(stopping), config, clients_of(), time);
}

void check_same_feddf(const std::filesystem::path& run, const std::filesystem::path& expected) {
  CHECK(read_text(run / "final.safetensors") == read_text(expected / "final.safetensors"));
  const auto lines = lines_of(run);
  const auto expected_lines = lines_of(expected);
  REQUIRE(lines.size() == expected_lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CAPTURE(i);
    CHECK(feddf_results_of(lines[i]) == feddf_results_of(expected_lines[i]));
    if (i > 0) CHECK(lines[i].at("feddf").at("seconds").get<double>() > 0);
  }
}

TEST_CASE("FedDF stopped at any phase and started again: the same bytes, and every round says what it cost") {
  const test::TemporaryFolder folder;
  StopAtPhase undisturbed(0);
  run_feddf(feddf_in(folder / "whole"), undisturbed);
  const int num_phases = static_cast<int>(undisturbed.phases.size());
  CHECK(std::ranges::count(undisturbed.phases, PhaseKind::finishing, &Phase::kind) == 3);
  for (int phase = 1; phase <= num_phases; ++phase) {
    CAPTURE(server::words_of(undisturbed.phases[static_cast<std::size_t>(phase - 1)]));
    const auto config = feddf_in(folder / fmt::format("stopped-{}", phase));
    run_feddf_until(StopAtPhase(phase), config);
    Notes notes;
    run_feddf(config, notes);
    check_same_feddf(config.folder, folder / "whole");
  }
}

TEST_CASE("FedDF ended between keeping a round's model and measuring it: the round still says what it cost") {
  const test::TemporaryFolder folder;
  Notes notes;
  run_feddf(feddf_in(folder / "whole"), notes);
  const auto config = feddf_in(folder / "run");
  run_feddf_until(StopAtPhase(3, is_round), config);
  const std::filesystem::path file = folder / "run/journal";
  const std::string whole = read_text(file);
  const std::size_t model = whole.rfind(R"("event":"model")");
  REQUIRE(model != std::string::npos);
  std::ofstream(file, std::ios::binary) << whole.substr(0, whole.find('\n', model) + 1);
  run_feddf(config, notes);
  CHECK(notes.has("going on after round 2"));
  check_same_feddf(config.folder, folder / "whole");
}

/// A run of plain FedAvg that was stopped in round 3.
server::ServerConfig stopped_in_round_3(const std::filesystem::path& folder) {
  const auto config = config_in(folder, StartModel::random);
  run_until_round(3, config);
  return config;
}

TEST_CASE("stopped in the lobby after a restart: what is said to be kept is what the first server left") {
  const test::TemporaryFolder folder;
  const auto config = stopped_in_round_3(folder / "run");
  StopAtPhase stopping(0);
  const std::string message = test::error_of(
      Errc::interrupted, [&] { run(config, {}, stopping, [](const std::function<void()>& stop) { stop(); }); });
  CHECK(message.find("stopped after round 2; kept in") != std::string::npos);
  CHECK(message.find("checkpoints up to round 2; the same command goes on from there") != std::string::npos);
  CHECK(nlohmann::json::parse(read_text(folder / "run/interrupted.json"))["rounds"] == 2);
}

TEST_CASE("a run that cannot go on tells its clients so; they do not wait for it") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run", StartModel::random);
  config.federation.min_clients = 4;
  auto clients = clients_of();
  clients[3].worker = std::make_unique<FailingWorker>(std::move(clients[3].worker), std::set<std::string>{"round 2"});
  std::vector<std::string> ends;
  for (auto& client : clients) {
    client.on_end = [&ends](const std::exception_ptr& why) {
      ends.push_back(test::error_of(Errc::run_failed, [&why] { std::rethrow_exception(why); }));
    };
  }
  Notes notes;
  const std::string message = test::error_of(Errc::run_failed, [&] { run(config, std::move(clients), notes); });
  CHECK(message.find("checkpoints up to round 1; the same command goes on from there; the clients are told") !=
        std::string::npos);
  REQUIRE(ends.size() == 4);
  for (const std::string& end : ends) {
    CHECK(end.starts_with("the server says: \"the run ended early: round 2"));
    CHECK(end.find("kept in") == std::string::npos);  // where, is none of theirs
  }
}

TEST_CASE("a damaged newest checkpoint: the one before is taken, the message names the file, the model is the same") {
  const test::TemporaryFolder folder;
  Notes notes;
  const auto expected = run(config_in(folder / "whole", StartModel::random), clients_of(), notes);
  const auto config = stopped_in_round_3(folder / "run");
  const std::filesystem::path newest = folder / "run/checkpoints/round-00002.safetensors";
  std::string bytes = read_text(newest);
  SUBCASE("a bit is wrong") { bytes[bytes.size() - 9] ^= 4; }
  SUBCASE("the end is missing") { bytes.resize(bytes.size() / 2); }
  std::ofstream(newest, std::ios::binary) << bytes;
  const auto summary = run(config, clients_of(), notes);
  CHECK(notes.has("round-00002.safetensors"));
  CHECK(notes.has("going back to round 1"));
  CHECK(notes.has("going on after round 1"));
  CHECK(summary["model_digest"] == expected["model_digest"]);
  CHECK(lines_of(config.folder).size() == 7);
}

TEST_CASE("a journal whose last line was never finished: that line does not count, and is said to be cut off") {
  const test::TemporaryFolder folder;
  Notes notes;
  const auto expected = run(config_in(folder / "whole", StartModel::random), clients_of(), notes);
  const auto config = stopped_in_round_3(folder / "run");
  const std::string whole = read_text(folder / "run/journal");
  for (const std::size_t cut : {std::size_t{1}, std::size_t{40}, std::size_t{300}}) {
    std::filesystem::copy(folder / "run", folder / fmt::format("cut-{}", cut),
                          std::filesystem::copy_options::recursive);
    auto again = config;
    again.folder = folder / fmt::format("cut-{}", cut);
    std::ofstream(again.folder + "/journal", std::ios::binary) << whole.substr(0, whole.size() - cut);
    Notes said;
    CHECK(run(again, clients_of(), said)["model_digest"] == expected["model_digest"]);
    CHECK(said.has("is damaged"));
  }
}

TEST_CASE("killed after any line of the journal: the same model, the same history, nobody is missing") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "whole");
  config.federation.num_rounds = 3;
  Notes notes;
  const auto expected = run(config, clients_of(), notes);
  const auto expected_lines = lines_of(folder / "whole");
  const std::string journal = read_text(folder / "whole/journal");
  std::filesystem::remove(folder / "whole/summary.json");
  int num_lines = 0;
  for (std::size_t end = 0; end < journal.size(); end = journal.find('\n', end) + 1) {
    CAPTURE(num_lines);
    ++num_lines;
    auto again = config;
    again.folder = folder / "again";
    std::filesystem::copy(folder / "whole", folder / "again", std::filesystem::copy_options::recursive);
    std::ofstream(folder / "again/journal", std::ios::binary) << journal.substr(0, end);
    const auto summary = run(again, clients_of(), notes);
    CHECK(summary["model_digest"] == expected["model_digest"]);
    CHECK(summary["degraded"] == false);
    const auto lines = lines_of(folder / "again");
    REQUIRE(lines.size() == expected_lines.size());
    for (std::size_t i = 0; i < lines.size(); ++i) CHECK(results_of(lines[i]) == results_of(expected_lines[i]));
    std::filesystem::remove_all(folder / "again");
  }
  CHECK(num_lines > 20);
}

TEST_CASE("ended twice between two checkpoints: every round stands once in the history, with the bytes that it moved") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "whole", StartModel::random);
  config.federation.checkpoints.every = 2;
  Notes notes;
  run(config, clients_of(), notes);
  const auto expected = lines_of(folder / "whole");
  config.folder = folder / "run";
  run_until_round(4, config);  // round 3 is measured, round 2 is kept
  run_until_round(3, config);  // rounds 3 and 4 are gone through, the latter is kept
  run(config, clients_of(), notes);
  const auto lines = lines_of(folder / "run");
  REQUIRE(lines.size() == expected.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CAPTURE(i);
    CHECK(results_of(lines[i]) == results_of(expected[i]));
    // Some of a round may be sent again, but no more than all of it.
    CHECK(lines[i]["bytes_down"].get<std::uint64_t>() <= 2 * expected[i]["bytes_down"].get<std::uint64_t>() + 10000);
  }
}

TEST_CASE("checkpoints: as many as are kept, also where all of them were damaged and rounds are gone through again") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "whole", StartModel::random);
  config.federation.checkpoints.keep = 2;
  Notes notes;
  const auto expected = run(config, clients_of(), notes);
  config.folder = folder / "run";
  run_until_round(6, config);
  const auto kept = [&] {
    std::set<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(folder / "run/checkpoints")) {
      names.insert(file.path().filename());
    }
    return names;
  };
  CHECK(kept() == std::set<std::string>{"round-00004.safetensors", "round-00005.safetensors"});
  for (const std::string& name : kept()) std::ofstream(folder / "run/checkpoints" / name) << "damaged";
  std::ofstream(folder / "run/checkpoints/round-00006.safetensors.part-77") << "half of it";
  run_until_round(3, config);
  CHECK(kept() == std::set<std::string>{"round-00001.safetensors", "round-00002.safetensors"});
  CHECK(run(config, clients_of(), notes)["model_digest"] == expected["model_digest"]);
  CHECK(notes.has("going on after round 2"));
}

TEST_CASE("ended while clients were told that the run is over: those that come are told, and nothing is done again") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run", StartModel::random);
  Notes notes;
  const auto expected = run(config, clients_of(), notes);
  const std::filesystem::path file = folder / "run/journal";
  const std::string journal = read_text(file);
  std::ofstream(file, std::ios::binary) << journal.substr(0, journal.rfind('\n', journal.size() - 2) + 1);
  const std::string model = read_text(folder / "run/final.safetensors");
  const auto counts = std::make_shared<WorkCounts>();
  std::int64_t num_clients = 0;
  std::chrono::seconds passed{0};
  SUBCASE("all come") { num_clients = 4; }
  SUBCASE("some come") {
    num_clients = 2;
    passed = std::chrono::seconds(5);  // timeouts.absence
  }
  net::ManualTime time;
  const TimePoint begin = time.now();
  CHECK(run(config, counted(clients_of(num_clients), counts), notes, time) == expected);
  CHECK(time.now() - begin == passed);
  CHECK(counts->trainings == 0);
  CHECK(read_text(folder / "run/final.safetensors") == model);
  CHECK(read_text(file) == journal);
}

TEST_CASE("stopped while clients are told that the run is over: interrupted, and the same command tells the others") {
  class StopBeforeHangingUp final : public test::DelegatingChannel<net::MessageChannel> {
   public:
    StopBeforeHangingUp(std::unique_ptr<net::MessageChannel> inner, const StopAtPhase& stopping)
        : DelegatingChannel(std::move(inner)), stopping_(stopping) {}
    net::Task<> close(std::string reason) override {
      stopping_.stop();
      return DelegatingChannel::close(std::move(reason));
    }

   private:
    const StopAtPhase& stopping_;
  };
  const test::TemporaryFolder folder;
  const auto config = config_in(folder / "run", StartModel::random);
  StopAtPhase stopping(0);
  auto clients = clients_of();
  clients[1].wrap = [&stopping](std::unique_ptr<net::MessageChannel> channel) {
    return std::unique_ptr<net::MessageChannel>(std::make_unique<StopBeforeHangingUp>(std::move(channel), stopping));
  };
  const std::string message = test::error_of(Errc::interrupted, [&] {
    run(config, std::move(clients), stopping, [&stopping](std::function<void()> stop) { stopping.stop = stop; });
  });
  CHECK(message.find("the run is finished, but stopped before every client was told") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(folder / "run/interrupted.json"));
  const auto summary = nlohmann::json::parse(read_text(folder / "run/summary.json"));
  CHECK(summary["rounds"] == 6);
  Notes notes;
  CHECK(run(config, clients_of(), notes) == summary);
  CHECK(notes.has("telling the clients that come"));
}

TEST_CASE("started again after its end: nothing is done and nothing changes; other settings are refused") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run", StartModel::random);
  Notes notes;
  const auto expected = run(config, clients_of(), notes);
  const auto contents = [&] {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder / "run")) {
      if (entry.path().filename() == "audit.jsonl") continue;  // has who came meanwhile
      files[entry.path()] = entry.is_directory() ? std::string() : read_text(entry.path());
    }
    return files;
  };
  const auto before = contents();
  const auto counts = std::make_shared<WorkCounts>();
  CHECK(run(config, counted(clients_of(), counts), notes) == expected);
  CHECK(notes.has("nothing is left to do"));
  CHECK(counts->words() == WorkCounts().words());
  CHECK(contents() == before);
  config.terms.train.optimizer.lr = 0.5;
  const std::string message = test::error_of(Errc::usage, [&] { run(config, clients_of(), notes); });
  CHECK(message.find("holds a finished run that is not this one: train.lr was 0.05, is 0.5") != std::string::npos);
  std::filesystem::remove(folder / "run/summary.json");
  CHECK(test::error_of(Errc::storage, [&] { run(config, clients_of(), notes); }).find("finished run") !=
        std::string::npos);
  CHECK(contents().size() == before.size() - 1);
}

TEST_CASE("journal: a line that is damaged before whole ones is named, and nothing is cut off") {
  const test::TemporaryFolder folder;
  {
    Journal journal(folder / "journal");
    for (int i = 0; i < 5; ++i) journal.append({{"event", "test"}, {"number", i}});
  }
  std::string text = read_text(folder / "journal");
  text[text.size() / 5 + 70] ^= 1;
  std::ofstream(folder / "journal", std::ios::binary) << text;
  const std::string message = test::error_of(Errc::data, [&] { Journal journal(folder / "journal"); });
  CHECK(message.find("line 2 is damaged") != std::string::npos);
  CHECK(read_text(folder / "journal") == text);
}

TEST_CASE("journal: an event for which there is no room leaves the journal as it was") {
  const test::TemporaryFolder folder;
  {
    Journal journal(folder / "journal");
    journal.append({{"event", "first"}});
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const auto on_limit = std::signal(SIGXFSZ, SIG_IGN);
    rlimit tight = before;
    tight.rlim_cur = std::filesystem::file_size(folder / "journal") + 20;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &tight) == 0);
    const auto code = test::code_of([&] { journal.append({{"event", "too much"}}); });
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    std::signal(SIGXFSZ, on_limit);
    CHECK(code == Errc::storage);
    journal.append({{"event", "second"}});
  }
  const Journal journal(folder / "journal");
  REQUIRE(journal.earlier().size() == 2);
  CHECK(journal.earlier()[1]["event"] == "second");
}

TEST_CASE("journal: any flipped bit ends what counts, and nothing before it is lost") {
  const test::TemporaryFolder folder;
  {
    Journal journal(folder / "journal");
    for (int i = 0; i < 5; ++i) journal.append({{"event", "test"}, {"number", i}});
    CHECK(test::error_of([&] { Journal second(folder / "journal"); }).find("another process") != std::string::npos);
  }
  const std::string text = read_text(folder / "journal");
  CHECK(Journal::parse(text).first.size() == 5);
  const std::size_t line = text.size() / 5;
  for (std::size_t byte = 0; byte < text.size(); ++byte) {
    std::string damaged = text;
    damaged[byte] ^= 1;
    const auto [events, taken] = Journal::parse(damaged);
    CHECK(events.size() == byte / line);
    CHECK(taken == byte / line * line);
  }
}

TEST_CASE("an unfinished run of other settings is not gone on with: each difference is named") {
  const test::TemporaryFolder folder;
  auto config = stopped_in_round_3(folder / "run");
  config.terms.train.optimizer.lr = 0.5;
  config.federation.timeouts.task = 4;  // may differ
  Notes notes;
  const std::string message = test::error_of([&] { run(config, clients_of(), notes); });
  CHECK(message.find("train.lr was 0.05, is 0.5") != std::string::npos);
  CHECK(message.find("timeouts") == std::string::npos);
  CHECK(test::code_of([&] { run(config, clients_of(), notes); }) == Errc::usage);
}

TEST_CASE("a client that is missing when the server comes back: the run goes on without it, and says so") {
  const test::TemporaryFolder folder;
  auto config = stopped_in_round_3(folder / "run");
  Notes notes;
  net::ManualTime time;
  const TimePoint begin = time.now();
  const auto summary = run(config, clients_of(3), notes, time);
  CHECK(time.now() - begin == std::chrono::seconds(5));  // timeouts.absence
  CHECK(summary["rounds"] == 6);
  CHECK(summary["degraded"] == true);
  REQUIRE(summary["left_out"].size() == 1);
  CHECK(summary["left_out"][0]["phase"] == server::recorded({PhaseKind::absence}));
  CHECK(summary["left_out"][0]["client"] == "silo-3");
  const auto lines = lines_of(config.folder);
  CHECK(lines[2]["clients"].size() == 4);
  CHECK(lines[3]["clients"].size() == 3);
  CHECK(lines[3]["excluded"].contains("silo-3"));
}

TEST_CASE("a client that comes back to a restarted server and is lost again before it goes on: missing, and said so") {
  const test::TemporaryFolder folder;
  auto config = stopped_in_round_3(folder / "run");
  config.federation.timeouts.absence = 0.5;
  auto clients = clients_of();
  clients.erase(clients.begin() + 2);  // so that the others are waited for
  std::shared_ptr<std::uint64_t> operations = std::make_shared<std::uint64_t>(0);
  // Hello, Welcome, Join, Joined; then it waits for a task, in vain.
  clients[2].wrap = [first = faulty({.fault = net::Fault::fail, .operation = 4}, operations),
                     is_first = true](std::unique_ptr<net::MessageChannel> channel) mutable {
    if (!std::exchange(is_first, false)) throw Error(Errc::rejected, "gone for good");
    return first(std::move(channel));
  };
  Notes notes;
  const auto summary = run(config, std::move(clients), notes);
  CHECK(*operations > 4);
  std::set<std::string> missing;
  for (const auto& left : summary["left_out"]) {
    CHECK(left["phase"] == server::recorded({PhaseKind::absence}));
    missing.insert(left["client"]);
  }
  CHECK(missing == std::set<std::string>{"silo-2", "silo-3"});
  CHECK(summary["degraded"] == true);
  CHECK(lines_of(config.folder)[3]["excluded"].contains("silo-3"));
}

TEST_CASE("a restarted server that is not to wait for anybody goes on with those that are needed") {
  const test::TemporaryFolder folder;
  auto config = stopped_in_round_3(folder / "run");
  config.federation.timeouts.absence = 0;
  config.federation.min_clients = 3;
  Notes notes;
  auto clients = clients_of(3);
  int num_told = 0;
  for (auto& client : clients) client.on_end = [&num_told](const std::exception_ptr& why) { num_told += why ? 0 : 1; };
  const auto summary = run(config, std::move(clients), notes);
  CHECK(summary["rounds"] == 6);
  CHECK(summary["left_out"][0]["client"] == "silo-3");
  CHECK(num_told == 3);
}

TEST_CASE("a restarted server that has too few clients says how many it needs, and may be started with fewer") {
  class StopAtNeed final : public Notes {
   public:
    void on_note(const std::string& text) override {
      Notes::on_note(text);
      if (text.find("2 of 4 clients are back and 3 are needed") != std::string::npos) stop();
    }
    std::function<void()> stop;
  };
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run", StartModel::random);
  config.federation.min_clients = 3;
  run_until_round(3, config);
  config.federation.timeouts.absence = 0.1;
  StopAtNeed stopping;
  CHECK(test::code_of([&] {
          run(config, clients_of(2), stopping, [&stopping](std::function<void()> stop) { stopping.stop = stop; });
        }) == Errc::interrupted);
  CHECK(stopping.has("a smaller federation.min_clients"));
  config.federation.min_clients = 2;
  CHECK(run(config, clients_of(2), stopping)["rounds"] == 6);
}

TEST_CASE("a summary that cannot be written: the run is not done, its clients wait for a server that goes on with it") {
  class InTheWay final : public StopAtPhase {
   public:
    explicit InTheWay(std::filesystem::path place) : StopAtPhase(0), place_(std::move(place)) {}
    void on_phase(const Phase& phase, std::size_t size) override {
      std::filesystem::create_directories(place_ / "it");
      StopAtPhase::on_phase(phase, size);
    }

   private:
    std::filesystem::path place_;
  };
  const test::TemporaryFolder folder;
  Notes notes;
  const auto expected = run(config_in(folder / "whole", StartModel::random), clients_of(), notes);
  const auto config = config_in(folder / "run", StartModel::random);
  auto clients = clients_of();
  std::vector<std::string> ends;
  for (auto& client : clients) {
    client.on_end = [&ends](const std::exception_ptr& why) {
      ends.push_back(test::error_of([&why] {
        if (why) std::rethrow_exception(why);
      }));
    };
  }
  InTheWay in_the_way(folder / "run/summary.json");
  const std::string message = test::error_of(Errc::storage, [&] { run(config, std::move(clients), in_the_way); });
  CHECK(message.find("checkpoints up to round 6; the same command goes on from there, and the clients wait for it") !=
        std::string::npos);
  REQUIRE(ends.size() == 4);
  // They dial again; the simulation, which has no server any more, then ends them.
  for (const std::string& end : ends) CHECK(end == "the run is over");
  std::filesystem::remove_all(folder / "run/summary.json");
  const auto counts = std::make_shared<WorkCounts>();
  CHECK(run(config, counted(clients_of(), counts), notes)["model_digest"] == expected["model_digest"]);
  CHECK(counts->trainings == 0);
}

TEST_CASE("a pre-trained model whose client is gone before its weights came is left out by name") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run");
  run_until(2, config);  // all have pre-trained
  config.federation.timeouts.absence = 0.1;
  Notes notes;
  const auto summary = run(config, clients_of(3), notes);
  REQUIRE(summary["left_out"].size() == 2);
  CHECK(summary["left_out"][1]["phase"] == server::recorded({PhaseKind::exchange}));
  CHECK(summary["left_out"][1]["client"] == "silo-3");
}

TEST_CASE("what a phase had to do without is forgotten where the phase is gone through again with all") {
  const test::TemporaryFolder folder;
  Notes notes;
  const auto expected = run(config_in(folder / "whole"), clients_of(), notes);
  class FailingOnce final : public test::DelegatingWorker {
   public:
    using DelegatingWorker::DelegatingWorker;
    plan::Pretraining pretrain(const client::TaskContext&) override { throw Error(Errc::run_failed, "out of memory"); }
  };
  auto clients = clients_of();
  clients[2].worker = std::make_unique<FailingOnce>(std::move(clients[2].worker));
  const auto config = config_in(folder / "run");
  run_until(2, config, std::move(clients));
  const auto summary = run(config, clients_of(), notes);
  CHECK(summary["degraded"] == false);
  CHECK(summary["model_digest"] == expected["model_digest"]);
}

TEST_CASE("clients that never come: the quorum begins without them, and the summary says how many they are") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run", StartModel::random);
  config.federation.min_clients = 3;
  config.federation.timeouts.lobby = 500;
  Notes notes;
  net::ManualTime time;
  const TimePoint begin = time.now();
  const auto summary = run(config, clients_of(3), notes, time);
  CHECK(time.now() - begin == std::chrono::seconds(500));
  CHECK(summary["rounds"] == 6);
  REQUIRE(summary["left_out"].size() == 1);
  CHECK(summary["left_out"][0]["phase"] == server::recorded({PhaseKind::lobby}));
  CHECK(summary["left_out"][0]["client"] == "1 of 4 clients");
  CHECK(lines_of(config.folder).back()["clients"].size() == 3);
}

TEST_CASE("who is taken off the list of the clients that may join is not asked in the next round") {
  class Unlisting final : public Notes {
   public:
    explicit Unlisting(std::filesystem::path list) : list_(std::move(list)) {}
    void on_round(const server::RoundView& round) override {
      if (round.round == 2) std::ofstream(list_) << "silo-0\nsilo-1\nsilo-2\n";
    }

   private:
    std::filesystem::path list_;
  };
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run", StartModel::random);
  config.allowed_clients = folder / "allowed";
  config.federation.timeouts.absence = 0.2;
  std::ofstream(folder / "allowed") << "silo-0\nsilo-1\nsilo-2\nsilo-3\n";
  Unlisting unlisting(folder / "allowed");
  CHECK(run(config, clients_of(), unlisting)["rounds"] == 6);
  const auto lines = lines_of(config.folder);
  CHECK(lines[2]["clients"].size() == 4);
  CHECK(lines[3]["clients"] == nlohmann::json({"silo-0", "silo-1", "silo-2"}));
  CHECK(unlisting.has("silo-3 is not on the list of the clients that may join any more"));
  CHECK(unlisting.has("was not admitted: silo-3 is not on the list of the clients that may join"));
}

TEST_CASE("who joins between rounds is in the run, also when the server ends and is started again") {
  class StopAtNote final : public Notes {
   public:
    void on_note(const std::string& text) override {
      if (text.find("has joined, from the next round on") != std::string::npos) stop();
    }
    std::function<void()> stop;
  };
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run", StartModel::random);
  config.federation.num_clients = 3;
  config.federation.num_late = 1;
  config.federation.num_rounds = 100000;  // more than pass before the newcomer is in
  StopAtNote stopping;
  net::ManualTime time;
  auto clients = clients_of();
  clients[0].worker =
      std::make_unique<test::UnhurriedWorker>(std::move(clients[0].worker), time, std::chrono::seconds(1));
  CHECK(test::code_of([&] {
          run(config, std::move(clients), stopping, time,
              [&stopping](std::function<void()> stop) { stopping.stop = stop; });
        }) == Errc::interrupted);
  run_until_round(3, config);
  const auto lines = lines_of(config.folder);
  REQUIRE(lines.size() > 2);
  for (const auto& line : {lines[lines.size() - 2], lines.back()}) {
    CHECK(line["clients"] == nlohmann::json({"silo-0", "silo-1", "silo-2", "silo-3"}));
  }
}

TEST_CASE("a server whose disk fails says so at once, not when its slowest client has answered") {
  /// Hands its pre-trained model over when it is stopped, not before.
  class WithholdingWorker final : public test::DelegatingWorker {
   public:
    WithholdingWorker(std::unique_ptr<client::Worker> inner, net::ManualTime& time)
        : DelegatingWorker(std::move(inner)), time_(time) {}
    wire::PackedState pretrained(const client::TaskContext& context) override {
      time_.rest(context.stop);
      throw Error(Errc::interrupted, "stopped");
    }

   private:
    net::ManualTime& time_;
  };
  /// Takes the place away where the models are to be kept.
  class FailingDisk final : public Notes {
   public:
    explicit FailingDisk(std::filesystem::path folder) : folder_(std::move(folder)) {}
    void on_phase(const Phase& phase, std::size_t) override {
      if (phase.kind == PhaseKind::exchange) std::filesystem::remove_all(folder_ / "models");
    }

   private:
    std::filesystem::path folder_;
  };
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run");
  config.federation.timeouts.task = 3600;
  config.federation.timeouts.phase = 3600;
  auto clients = clients_of();
  net::ManualTime time;
  const TimePoint begin = time.now();
  clients[3].worker = std::make_unique<WithholdingWorker>(std::move(clients[3].worker), time);
  FailingDisk failing(folder / "run");
  int num_told = 0;
  for (auto& client : clients) {
    client.on_end = [&num_told](const std::exception_ptr& why) {
      num_told += test::code_of([&why] { std::rethrow_exception(why); }) == Errc::run_failed ? 1 : 0;
    };
  }
  const std::string message = test::error_of(Errc::storage, [&] { run(config, std::move(clients), failing, time); });
  CHECK(time.now() - begin < std::chrono::seconds(3600));
  CHECK(message.find("models") != std::string::npos);
  CHECK(message.find("nothing of a round yet; the same command begins again, and the clients wait for it") !=
        std::string::npos);
  CHECK(num_told == 0);
}

TEST_CASE("the student's client is gone for good: the next best one distils, and the summary says so") {
  const test::TemporaryFolder folder;
  Notes undisturbed;
  const auto expected =
      run(config_in(folder / "whole", StartModel::kd, TransferSet::student), clients_of(), undisturbed);
  const std::string best = expected["start_report"]["place"];

  class FailingHost final : public test::DelegatingWorker {
   public:
    using DelegatingWorker::DelegatingWorker;
    wire::PackedState distill(const client::Assignment&, const client::TaskContext&) override {
      throw Error(Errc::run_failed, "out of memory");
    }
  };
  auto clients = clients_of();
  for (auto& client : clients) {
    if (client.name == best) client.worker = std::make_unique<FailingHost>(std::move(client.worker));
  }
  Notes notes;
  const auto summary = run(config_in(folder / "run", StartModel::kd, TransferSet::student), std::move(clients), notes);
  CHECK(summary["start_report"]["place"] != best);
  const auto teachers = summary["start_report"]["teachers"].get<std::vector<std::string>>();
  CHECK(std::ranges::count(teachers, best) == 1);
  CHECK(summary["degraded"] == true);
  CHECK(summary["left_out"][0]["phase"] == "consolidation");
  CHECK(summary["left_out"][0]["client"] == best);
  CHECK(summary["left_out"][0]["reason"].get<std::string>().find("(training); its own log says more") !=
        std::string::npos);
}

// ---- clients that are slow, or come late

/// Rests in its training of round 2, for so long or until it is stopped.
class SlowWorker final : public test::DelegatingWorker {
 public:
  SlowWorker(std::int64_t index, net::ManualTime& time, TimePoint::duration span)
      : DelegatingWorker(test::small_worker(index)), time_(time), span_(span) {}

  wire::PackedState train(const wire::PackedState& global, std::uint32_t round,
                          const client::TaskContext& context) override {
    if (round == 2) time_.rest(context.stop, span_);
    if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped");
    return DelegatingWorker::train(global, round, context);
  }

 private:
  net::ManualTime& time_;
  TimePoint::duration span_;
};

TEST_CASE("a client that is as slow as it may be is waited for; nothing is lost and nobody is late") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run", StartModel::random);
  config.federation.timeouts.task = 3600;
  config.federation.timeouts.phase = 3600;
  net::ManualTime time;
  auto clients = clients_of(3);
  const auto almost = std::chrono::seconds(3600) - std::chrono::milliseconds(1);
  clients.push_back({test::small_name(3), std::make_unique<SlowWorker>(3, time, almost), {}});
  Notes notes;
  const TimePoint begin = time.now();
  CHECK(run(config, std::move(clients), notes, time)["degraded"] == false);
  CHECK(time.now() - begin == almost);
}

TEST_CASE("a straggler: the round closes without it, it is told, counted, and in the next round again") {
  const test::TemporaryFolder folder;
  auto config = config_in(folder / "run", StartModel::random);
  TimePoint::duration patience{};
  SUBCASE("at the deadline of the round") {
    config.federation.timeouts.task = 3600;
    config.federation.timeouts.phase = 3000;
    patience = std::chrono::seconds(3000);
  }
  SUBCASE("for want of progress") {
    config.federation.timeouts.task = 1600;
    config.federation.timeouts.phase = 3600;
    // The task's own bytes count until the first look, after an eighth of the time.
    patience = std::chrono::seconds(1600 + 200);
  }
  net::ManualTime time;
  auto clients = clients_of(3);
  clients.push_back({test::small_name(3), std::make_unique<SlowWorker>(3, time, TimePoint::duration::max()), {}});
  Notes notes;
  const TimePoint begin = time.now();
  const auto summary = run(config, std::move(clients), notes, time);
  CHECK(time.now() - begin == patience);
  const auto lines = lines_of(folder / "run");
  REQUIRE(lines.size() == 7);
  CHECK(lines[1]["clients"].size() == 4);
  CHECK(lines[2]["clients"].size() == 3);
  CHECK(lines[2]["excluded"]["silo-3"].get<std::string>().starts_with("late: "));
  CHECK(lines[2]["refused"]["silo-3"]["late"] == 1);
  CHECK(lines[3]["clients"].size() == 4);
  CHECK(summary["degraded"] == true);
  CHECK(summary["left_out"][0]["phase"] == "round 2");
  CHECK(summary["left_out"][0]["client"] == "silo-3");
}

}  // namespace
}  // namespace headstart
