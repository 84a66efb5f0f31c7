// Peers without a server: what their network computes, and what befalls it. By manual time.

#include <map>
#include <set>

#include <boost/asio/co_spawn.hpp>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "client/peer/peer_folder.hpp"
#include "client/peer/peer_learner.hpp"
#include "experiments/lab/peer_simulation.hpp"
#include "shared/net/faulty_channel.hpp"
#include "shared/net/loopback.hpp"
#include "tests/support/delegating_channel.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart {
namespace {

using lab::SimulatedEnd;
using lab::SimulatedPeer;
using learn::StateDict;
using nlohmann::json;
using peer::RoundLine;
using wire::PackedState;

constexpr std::int64_t num_samples = 24;

json document_of(const std::string& method, const std::vector<std::string>& names) {
  json document = {
      {"seed", 3},
      {"data", {{"set", "tensors"}, {"classes", {"a", "b", "c", "d"}}, {"shape", {1, 12, 12}}, {"held_out", 0.25}}},
      {"model", {{"name", "cnn"}, {"channels", {4, 8}}, {"hidden", 16}, {"norm", "none"}, {"second_head", true}}},
      {"pretrain", {{"max_epochs", 1}, {"batch_size", 8}}},
      {"peers", {{"method", method}, {"rounds", 2}}},
      {"kd", {{"epochs", 1}, {"batch_size", 8}}},
      {"train", {{"epochs", 1}, {"batch_size", 8}}},
      {"fedmd", {{"private_epochs", 1}, {"public_samples", 10}}},
      {"timeouts", {{"absence", 20}, {"phase", 1000}}}};
  for (const std::string& name : names)
    document["members"].push_back({{"name", name}, {"address", "ws://" + name + ":1"}});
  return document;
}

const std::vector<std::string> three = {"a", "b", "c"};

peer::PeerData data_of(const std::string& name, bool has_public_set) {
  const auto dataset = [](std::int64_t count, Seed seed) {
    const learn::Samples samples = test::separable_samples(count, seed);
    return learn::Dataset{.name = "separable", .images = samples.x, .labels = samples.y, .num_classes = 4};
  };
  peer::PeerData data{.own = dataset(num_samples, Seed(1).child(name)), .test = {}, .public_samples = {}};
  if (has_public_set) data.public_samples = dataset(20, Seed(2));
  return data;
}

/// A run of peers in folders of their own, which a second one goes on from.
class PeerNetwork {
 public:
  explicit PeerNetwork(const json& document) : file(peer::PeersFile::parse(document, "peers.json")) {}

  std::map<std::string, SimulatedEnd> run(const std::vector<std::string>& names) {
    std::map<std::string, std::unique_ptr<peer::PeerLearner>> learners;
    std::map<std::string, std::unique_ptr<peer::PeerFolder>> folders;
    std::vector<SimulatedPeer> peers;
    for (const std::string& name : names) {
      SimulatedPeer simulated{.name = name, .open = [this, name, &learners, &folders]() -> lab::PeerParts {
                                folders[name].reset();
                                learners[name] = learner_of(name);
                                folders[name] =
                                    std::make_unique<peer::PeerFolder>(folder / name, name, file.digests(),
                                                                       json::object(), std::chrono::system_clock::now);
                                return {*learners[name], *folders[name]};
                              }};
      simulated.observer = observers.contains(name) ? observers.at(name) : nullptr;
      simulated.wrap = [this, name](const std::string& neighbour, std::unique_ptr<net::MessageChannel> channel) {
        return wrap ? wrap(name, neighbour, std::move(channel)) : std::move(channel);
      };
      if (starts_after.contains(name)) simulated.starts_after = starts_after.at(name);
      simulated.starts_again = true;
      peers.push_back(simulated);
    }
    net::ManualTime time;
    lab::PeerSimulationOptions options{.num_threads = 2, .on_start = on_start, .reach_other = reach_other};
    const std::vector<SimulatedEnd> ends = lab::simulate_peers(file, peers, time, options);
    std::map<std::string, SimulatedEnd> by_name;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      by_name[peers[i].name] = ends[i];
      lines[peers[i].name] = folders[peers[i].name]->lines();
    }
    return by_name;
  }

  /// All of them, which must end well.
  void run_well(const std::vector<std::string>& names) {
    for (const auto& [name, end] : run(names)) {
      if (end.failure) std::rethrow_exception(end.failure);
    }
  }

  [[nodiscard]] std::map<std::string, std::string> digests() const {
    std::map<std::string, std::string> digests;
    for (const auto& [name, rounds] : lines) digests[name] = rounds.back().digest;
    return digests;
  }

  /// The states that all of `names` must have had, by what their lines record: computed without any network.
  void check_record(const std::vector<std::string>& names) const {
    std::map<std::string, StateDict> states;
    std::map<std::string, std::unique_ptr<peer::PeerLearner>> learners;
    std::map<std::string, std::size_t> next;
    std::map<std::pair<std::string, std::int64_t>, StateDict> messages;
    for (const std::string& name : names) {
      learners[name] = learner_of(name);
      states[name] = learners[name]->start({}, std::chrono::steady_clock::now);
      CHECK(PackedState(states[name]).digest() == lines.at(name).front().digest);
      next[name] = 1;
    }
    for (std::int64_t round = 1; round <= file.options().rounds; ++round) {
      for (const std::string& name : names) {
        if (next[name] == lines.at(name).size()) continue;
        const RoundLine& line = lines.at(name)[next[name]];
        if (std::ranges::find(line.prepared, round) == line.prepared.end()) continue;
        states[name] = learners[name]->prepare(states[name], round, {});
        messages[{name, round}] = learners[name]->message(states[name], round);
      }
      for (const std::string& name : names) {
        if (next[name] == lines.at(name).size() || lines.at(name)[next[name]].round != round) continue;
        const RoundLine& line = lines.at(name)[next[name]++];
        learn::Parts received;
        for (const auto& [sender, digest] : line.used) {
          CAPTURE(sender);
          received[sender] = messages.at({sender, round});
          CHECK(PackedState(received[sender]).digest() == digest);
        }
        states[name] = learners[name]->combine(states[name], received, round, {});
        CAPTURE(name);
        CAPTURE(round);
        CHECK(PackedState(states[name]).digest() == line.digest);
      }
    }
  }

  [[nodiscard]] std::unique_ptr<peer::PeerLearner> learner_of(const std::string& name) const {
    const bool has_public_set = learn::peer_method_row(file.options().method).needs_public_set;
    const client::SiloOptions options{
        .name = name, .device = "cpu", .own_model = {}, .script = {}, .store = folder / "models"};
    return std::make_unique<peer::PeerLearner>(file, name, options, data_of(name, has_public_set));
  }

  test::TemporaryFolder folder;
  peer::PeersFile file;
  std::function<std::unique_ptr<net::MessageChannel>(const std::string& from, const std::string& to,
                                                     std::unique_ptr<net::MessageChannel>)>
      wrap;
  std::function<void(const std::string&, peer::PeerRun&)> on_start = [](const std::string&, peer::PeerRun&) {};
  std::function<net::Task<std::unique_ptr<net::MessageChannel>>(net::asio::any_io_executor, std::string, std::string)>
      reach_other;
  std::map<std::string, std::chrono::milliseconds> starts_after;
  std::map<std::string, peer::PeerObserver*> observers;
  std::map<std::string, std::vector<RoundLine>> lines;
};

TEST_CASE("peers: the network computes what the methods compute without one, bit by bit") {
  for (const learn::PeerMethodRow& row : learn::peer_methods()) {
    CAPTURE(row.name);
    PeerNetwork network(document_of(std::string(row.name), three));
    network.run_well(three);
    network.check_record(three);
    for (const std::string& name : three) {
      REQUIRE(network.lines.at(name).size() == 3);
      for (const RoundLine& line : network.lines.at(name)) CHECK(line.missing.empty());
    }
    const bool sends = row.name != "alone";
    std::uint64_t bytes = 0;
    for (const std::string& name : three) bytes += network.lines.at(name).back().bytes_sent;
    CHECK((bytes > 1000) == sends);
  }
}

TEST_CASE("peers: on a path the ends exchange with the middle alone") {
  json document = document_of("gossip", three);
  document["edges"] = json::array({json::array({"a", "b"}), json::array({"b", "c"})});
  PeerNetwork network(document);
  network.run_well(three);
  network.check_record(three);
  CHECK(network.lines.at("a").back().used.size() == 1);
  CHECK(network.lines.at("b").back().used.size() == 2);
  CHECK(network.lines.at("c").back().used.contains("b"));
}

TEST_CASE("peers: full gossip averaging leaves the same model at all") {
  PeerNetwork network(document_of("gossip", three));
  network.run_well(three);
  const auto digests = network.digests();
  CHECK(digests.at("a") == digests.at("b"));
  CHECK(digests.at("a") == digests.at("c"));
}

/// The connection from a to b, at a's end, breaks once.
auto broken_at(net::FaultPlan plan, std::uint64_t* num_operations = nullptr) {
  struct Counting final : test::DelegatingChannel<net::FaultyChannel> {
    Counting(std::unique_ptr<net::FaultyChannel> inner, std::uint64_t* count)
        : DelegatingChannel(std::move(inner)), count_(count) {}
    ~Counting() override {
      if (count_ != nullptr) *count_ = inner().operations();
    }
    std::uint64_t* count_;
  };
  return [plan, num_operations, is_first = true](
             const std::string& from, const std::string& to,
             std::unique_ptr<net::MessageChannel> channel) mutable -> std::unique_ptr<net::MessageChannel> {
    if (from != "a" || to != "b" || !std::exchange(is_first, false)) return channel;
    return std::make_unique<Counting>(std::make_unique<net::FaultyChannel>(std::move(channel), plan), num_operations);
  };
}

TEST_CASE("peers: a message that is lost, cut, doubled, damaged or out of order changes nothing") {
  const json document = document_of("kd", three);
  PeerNetwork whole(document);
  std::uint64_t num_operations = 0;
  whole.wrap = broken_at({.fault = net::Fault::none}, &num_operations);
  whole.run_well(three);
  CHECK(num_operations > 12);  // greetings, two Ready, two Pull and two attachments each way, Done
  const auto expected = whole.digests();
  for (const net::Fault fault :
       {net::Fault::fail, net::Fault::truncate, net::Fault::duplicate, net::Fault::flip_bit, net::Fault::reorder}) {
    for (std::uint64_t operation = 0; operation < num_operations; ++operation) {
      CAPTURE(static_cast<int>(fault));
      CAPTURE(operation);
      PeerNetwork network(document);
      network.wrap = broken_at({.fault = fault, .operation = operation, .bit = 12345});
      network.run_well(three);
      if (fault == net::Fault::reorder && network.digests() != expected) {
        // The last message of its direction never comes, which no connection does that is not lost: a round may have
        // gone on without, and says so.
        network.check_record(three);
        continue;
      }
      CHECK((network.digests() == expected));
    }
  }
}

/// Stops its run when the given phase begins, once.
class Stopper : public peer::PeerObserver {
 public:
  explicit Stopper(int phase) : left_(phase) {}
  void watch(peer::PeerRun& run) { run_ = &run; }
  void on_phase(const std::string& /*what*/) override {
    if (--left_ == 0) run_->stop();
  }
  [[nodiscard]] bool has_stopped() const { return left_ <= 0; }

 private:
  int left_;
  peer::PeerRun* run_ = nullptr;
};

TEST_CASE("peers: stopped at any phase and started again, they end in the same bytes") {
  const json document = document_of("gossip", three);
  PeerNetwork whole(document);
  whole.run_well(three);
  for (int phase = 1;; ++phase) {
    CAPTURE(phase);
    PeerNetwork network(document);
    Stopper stopper(phase);
    network.observers["b"] = &stopper;
    network.on_start = [&stopper](const std::string& name, peer::PeerRun& run) {
      if (name == "b") stopper.watch(run);
    };
    network.run_well(three);
    CHECK((network.digests() == whole.digests()));
    if (!stopper.has_stopped()) {
      CHECK(phase > 8);  // pre-training, and each round's message, wait and combination, and the end
      break;
    }
  }
}

json tolerant(json document) {
  document["peers"]["min_neighbours"] = 1;
  return document;
}

TEST_CASE("peers: a neighbour that never comes is left out after timeouts.absence, and the record says so") {
  PeerNetwork network(tolerant(document_of("gossip", three)));
  network.run_well({"a", "b"});
  for (const std::string name : {"a", "b"}) {
    for (std::size_t round = 1; round < network.lines.at(name).size(); ++round) {
      const RoundLine& line = network.lines.at(name)[round];
      CHECK(line.missing.at("c").starts_with("not connected"));
      CHECK(line.used.size() == 1);
    }
  }
  network.check_record({"a", "b"});
  CHECK(network.lines.at("a").at(1).seconds_waiting >= 19);
  CHECK(network.lines.at("a").at(2).seconds_waiting < 1);  // it is known to be gone
}

/// Takes a second for each message.
class SlowChannel final : public test::DelegatingChannel<> {
 public:
  using DelegatingChannel::DelegatingChannel;
  net::Task<> send(std::span<const std::byte> head, std::span<const std::byte> body) override {
    net::Timer timer(co_await net::asio::this_coro::executor, std::chrono::seconds(1));
    auto waiting = timer.wait();
    co_await std::move(waiting);
    auto sending = DelegatingChannel::send(head, body);
    co_await std::move(sending);
  }
};

TEST_CASE("peers: one that comes rounds late goes on where its neighbours are") {
  json document = tolerant(document_of("gossip", three));
  document["peers"]["rounds"] = 12;
  document["timeouts"]["absence"] = 5;
  PeerNetwork network(document);
  // The others are slow enough that their rounds are not over when it comes.
  network.starts_after["c"] = std::chrono::seconds(30);
  network.wrap = [](const std::string&, const std::string& to,
                    std::unique_ptr<net::MessageChannel> channel) -> std::unique_ptr<net::MessageChannel> {
    if (to != "b") return channel;
    return std::make_unique<SlowChannel>(std::move(channel));
  };
  network.run_well(three);
  network.check_record(three);
  const auto& lines = network.lines.at("c");
  CHECK(lines.size() < 13);
  CHECK(lines.back().round == 12);
  CHECK(lines.back().missing.empty());
}

/// What a test says in the name of a member that is not simulated.
using Script = std::function<net::Task<>(std::shared_ptr<session::PeerConversation>)>;

auto spoken_by(Script script) {
  return [script](net::asio::any_io_executor executor, std::string from,
                  std::string neighbour) -> net::Task<std::unique_ptr<net::MessageChannel>> {
    net::LoopbackPair pair = net::make_loopback(executor, executor, from + "-" + neighbour);
    const auto conversation = std::make_shared<session::PeerConversation>(executor, std::move(pair.first));
    conversation->start();
    auto speaking = script(conversation);
    net::asio::co_spawn(executor, std::move(speaking),
                        [conversation](const std::exception_ptr&) { conversation->abort(); });
    co_return std::move(pair.second);
  };
}

/// Greets as `name` would, and has a message of every round that anybody asks for.
Script teaching(std::string name, std::map<std::string, std::string> digests, std::int64_t num_rounds,
                std::function<PackedState(std::int64_t round)> message) {
  return [=](std::shared_ptr<session::PeerConversation> conversation) -> net::Task<> {
    conversation->post(peer::greeting(name, digests, 0, false));
    (void)co_await conversation->next_message();
    for (std::int64_t round = 1; round <= num_rounds; ++round) {
      const PackedState state = message(round);
      conversation->post(wire::Ready{static_cast<std::uint32_t>(round), state.bytes().size(), state.digest()});
    }
    for (;;) {
      const wire::PeerMessage said = co_await conversation->next_message();
      if (const auto* pull = std::get_if<wire::Pull>(&said)) {
        conversation->post_attachment(session::source_of(message(pull->round)));
      } else if (std::holds_alternative<wire::Done>(said)) {
        conversation->post(wire::Done{});
      }
    }
  };
}

/// Of peers.json and of the model, as `name` has them.
std::map<std::string, std::string> all_digests(const PeerNetwork& network, const std::string& name) {
  auto digests = network.file.digests();
  for (const auto& [section, digest] : network.learner_of(name)->digests()) digests[section] = digest;
  return digests;
}

TEST_CASE("peers: a model that is not finite is left out, and the third one excludes its peer") {
  json document = document_of("gossip", three);
  document["peers"]["rounds"] = 2;
  PeerNetwork network(document);
  const auto schema = network.learner_of("c")->start({}, std::chrono::steady_clock::now).schema();
  const auto not_finite = [schema](std::int64_t) {
    StateDict state = StateDict::empty(schema);
    for (const learn::NamedTensor& named : state.tensors())
      named.tensor.fill_(std::numeric_limits<double>::quiet_NaN());
    return PackedState(state);
  };
  network.reach_other = spoken_by(teaching("c", all_digests(network, "c"), 2, not_finite));
  network.run_well({"a", "b"});
  for (const std::string name : {"a", "b"}) {
    for (const std::size_t round : {1U, 2U}) {
      const RoundLine& line = network.lines.at(name).at(round);
      CAPTURE(line.missing.at("c"));
      CHECK(line.missing.at("c").find("nan") != std::string::npos);
      CHECK(line.used.size() == 1);
    }
  }
  network.check_record({"a", "b"});

  PeerNetwork longer([&] {
    document["peers"]["rounds"] = 5;
    return document;
  }());
  // Two rounds are kept, so that it says Ready of the others as they come; here all at once, of which the newest count.
  longer.reach_other = spoken_by(
      [&, digests = all_digests(longer, "c")](std::shared_ptr<session::PeerConversation> conversation) -> net::Task<> {
        conversation->post(peer::greeting("c", digests, 0, false));
        std::int64_t round = 1;
        conversation->post(wire::Ready{1, not_finite(1).bytes().size(), not_finite(1).digest()});
        for (;;) {
          const wire::PeerMessage said = co_await conversation->next_message();
          if (const auto* ready = std::get_if<wire::Ready>(&said); ready != nullptr && ready->round > round) {
            round = ready->round;
            conversation->post(
                wire::Ready{static_cast<std::uint32_t>(round), not_finite(1).bytes().size(), not_finite(1).digest()});
          }
          if (std::holds_alternative<wire::Pull>(said))
            conversation->post_attachment(session::source_of(not_finite(1)));
        }
      });
  longer.run_well({"a", "b"});
  CHECK(longer.lines.at("a").at(4).missing.at("c").starts_with("excluded after 3"));
  CHECK(longer.lines.at("a").back().round == 5);
}

TEST_CASE("peers: a message of another size, and one whose bytes are not what was announced, are left out") {
  json document = document_of("gossip", three);
  document["peers"]["rounds"] = 1;
  PeerNetwork network(document);
  const auto of_size = [](std::int64_t) { return PackedState::of_tensor("x", torch::zeros({3})); };
  network.reach_other = spoken_by(teaching("c", all_digests(network, "c"), 1, of_size));
  network.run_well({"a", "b"});
  CHECK(
      network.lines.at("a").back().missing.at("c").starts_with("it announces 12 bytes, and a message of this run has"));

  PeerNetwork changing(document);
  const auto schema = changing.learner_of("c")->start({}, std::chrono::steady_clock::now).schema();
  double value = 0;
  const auto never_twice_the_same = [&value, schema](std::int64_t) {
    StateDict state = StateDict::empty(schema);
    value += 1;
    for (const learn::NamedTensor& named : state.tensors()) named.tensor.fill_(value);
    return PackedState(state);
  };
  changing.reach_other = spoken_by(teaching("c", all_digests(changing, "c"), 1, never_twice_the_same));
  changing.run_well({"a", "b"});
  CHECK(changing.lines.at("a").back().missing.at("c") == "its bytes do not have the digest that was announced");
}

TEST_CASE("peers: a question for a round that there is not costs its connection, and the run goes on") {
  for (const std::uint32_t round : {0U, 3U, 4294967295U}) {
    CAPTURE(round);
    json document = tolerant(document_of("proxyfl", three));
    document["peers"]["rounds"] = 2;
    PeerNetwork network(document);
    network.reach_other = spoken_by([&, digests = all_digests(network, "c")](
                                        std::shared_ptr<session::PeerConversation> conversation) -> net::Task<> {
      conversation->post(peer::greeting("c", digests, 0, false));
      (void)co_await conversation->next_message();
      conversation->post(wire::Pull{round});
      for (;;) (void)co_await conversation->next_message();
    });
    network.run_well({"a", "b"});
    CHECK(network.lines.at("a").back().missing.at("c").find("speaks of round " + std::to_string(round)) !=
          std::string::npos);
  }
}

TEST_CASE("peers: a message that was damaged on this peer's disk is not sent, and its neighbours go on without it") {
  json document = document_of("gossip", three);
  document["peers"]["rounds"] = 1;
  PeerNetwork network(document);
  // Peer b is stopped when its message is done, and its file damaged when it runs again; only then the others come.
  Stopper stopper(3);
  network.observers["b"] = &stopper;
  network.starts_after = {{"a", std::chrono::seconds(1)}, {"c", std::chrono::seconds(1)}};
  int num_damaged = 0;
  network.on_start = [&](const std::string& name, peer::PeerRun& run) {
    if (name != "b") return;
    stopper.watch(run);
    const auto file = network.folder / "b/messages/round-000001.safetensors";
    if (!std::filesystem::exists(file)) return;
    std::filesystem::resize_file(file, 16);
    ++num_damaged;
  };
  network.run_well(three);
  CHECK(num_damaged == 1);
  // Whoever asks first is told; the other then hears nothing of that message.
  std::set<std::string> reasons;
  for (const std::string name : {"a", "c"}) {
    const RoundLine& line = network.lines.at(name).back();
    CHECK(line.used.size() == 1);
    reasons.insert(line.missing.at("b"));
  }
  CHECK(reasons.contains("does not keep its message of this round"));
  CHECK(network.lines.at("b").back().used.size() == 2);
}

TEST_CASE("peers: who greets with another peers.json, name or version is told what differs") {
  const PeerNetwork network(document_of("kd", three));
  const auto mine = network.file.digests();
  const auto objection = [&](const std::function<void(wire::PeerHello&)>& change, const std::string& identity = "") {
    wire::PeerHello hello = peer::greeting("b", mine, 0, false);
    change(hello);
    return peer::objection_to(hello, "b", identity, mine).value_or("");
  };
  CHECK(objection([](wire::PeerHello&) {}).empty());
  CHECK(objection([](wire::PeerHello&) {}, "b").empty());
  CHECK(objection([](wire::PeerHello&) {}, "mallory") ==
        "it calls itself 'b', and its certificate is that of 'mallory'");
  CHECK(objection([](wire::PeerHello& hello) { hello.name = "c"; }) ==
        "it calls itself 'c', and 'b' is expected there");
  CHECK(objection([](wire::PeerHello& hello) {
          hello.oldest = hello.newest = 9;
        }).starts_with("it speaks version 9 of the protocol between peers"));

  json other = document_of("kd", three);
  other["kd"]["alpha"] = 0.25;
  other["seed"] = 4;
  const auto theirs = peer::PeersFile::parse(other, "peers.json").digests();
  CHECK(peer::objection_to(peer::greeting("b", theirs, 0, false), "b", "", mine).value_or("") ==
        "it differs from this peer in kd, seed; all peers need the same peers.json");
}

TEST_CASE("peers: a folder of another run or of another peer is not gone on with") {
  PeerNetwork network(document_of("alone", {"a", "b"}));
  network.run_well({"a", "b"});
  const auto open = [&](const std::string& name, std::map<std::string, std::string> digests) {
    return test::error_of(Errc::usage, [&] {
      peer::PeerFolder(network.folder / "a", name, digests, json::object(), std::chrono::system_clock::now);
    });
  };
  auto digests = network.file.digests();
  CHECK(open("b", digests).find("is of peer 'a', and this is 'b'") != std::string::npos);
  digests["train"] = "other";
  CHECK(open("a", digests).find("its run was begun with another train") != std::string::npos);
}

}  // namespace
}  // namespace headstart
