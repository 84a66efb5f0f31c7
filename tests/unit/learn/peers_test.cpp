// Methods of decentralised learning without a network: what a peer makes of what its neighbours sent.
#include <algorithm>
#include <bit>
#include <limits>
#include <set>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "shared/learn/aggregate/weighted_mean.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/distill/pair_methods.hpp"
#include "shared/learn/peers/graph.hpp"
#include "shared/learn/peers/peer_method.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {
namespace {

ModelSpec two_heads(Norm norm = Norm::batch) {
  ModelSpec spec = test::small_spec(norm);
  spec.second_head = true;
  return spec;
}

PeerOptions small_options(const std::string& method) {
  PeerOptions options;
  options.method = method;
  options.kd.epochs = 2;
  options.train.epochs = 1;
  options.train.batch_size = 16;
  return options;
}

/// `count` peers in a full graph, each with samples of its own and a model pre-trained on them.
class Peers {
 public:
  explicit Peers(std::int64_t count, const ModelSpec& spec = two_heads()) {
    for (std::int64_t i = 0; i < count; ++i) {
      Peer peer;
      peer.name = fmt::format("silo-{}", i);
      peer.seeds = Seed(7).child(peer.name);
      peer.run_seeds = Seed(7);
      peer.training = test::separable_samples(48, Seed(static_cast<std::uint64_t>(i) + 1));
      peer.public_samples = test::separable_samples(40, Seed(50)).x;
      peer.num_classes = 4;
      peer.make_model = [spec] { return make_model(spec, test::small_task, Seed(7).child("model")); };
      const auto model = make_model(spec, test::small_task, peer.seeds.child("model"));
      train(*model, peer.training, {.epochs = 1, .batch_size = 16},
            epoch_orders(peer.training.size(), 1, peer.seeds.child("pretrain")));
      peer.pretrained = model->state();
      peers.push_back(std::move(peer));
    }
    for (Peer& peer : peers) {
      for (const Peer& other : peers) {
        peer.everyone.push_back(other.name);
        peer.mixing[other.name] = 1;
        if (other.name != peer.name) peer.neighbours.push_back(other.name);
        for (const Peer& third : peers) {
          if (other.name < third.name) peer.edges.emplace_back(other.name, third.name);
        }
      }
    }
  }

  /// One round of `method` in which every message arrives. `states`: of each peer, before and after.
  void run_round(const PeerMethod& method, std::vector<StateDict>& states, std::int64_t round) const {
    std::map<std::string, Parts> received;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      states[i] = method.prepare(peers[i], states[i], round, {});
      const StateDict message = method.message(peers[i], states[i], round);
      for (const std::string& to : method.recipients(peers[i], round)) received[to].emplace(peers[i].name, message);
    }
    for (std::size_t i = 0; i < peers.size(); ++i) {
      states[i] = method.combine(peers[i], states[i], received[peers[i].name], round, {});
    }
  }
  [[nodiscard]] std::vector<StateDict> start(const PeerMethod& method) const {
    std::vector<StateDict> states;
    for (const Peer& peer : peers) states.push_back(method.start(peer));
    return states;
  }
  /// The models that the neighbours of `index` send in round 1.
  [[nodiscard]] Parts first_messages(const PeerMethod& method, std::size_t index) const {
    Parts received;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      if (i != index) received.emplace(peers[i].name, method.message(peers[i], method.start(peers[i]), 1));
    }
    return received;
  }

  std::vector<Peer> peers;
};

double largest_difference(const StateDict& a, const StateDict& b) {
  double largest = 0;
  for (const auto& [name, tensor] : a.tensors()) {
    if (tensor.is_floating_point()) largest = std::max(largest, test::largest_difference(tensor, b.at(name)));
  }
  return largest;
}

TEST_CASE("gossip on the full graph is FedAvg with equal weights, bit by bit") {
  const Peers peers(4, test::small_spec(Norm::batch));
  const PeerOptions options = small_options("gossip");
  const auto gossip = peer_method_row("gossip").make(options);
  std::vector<StateDict> states = peers.start(*gossip);
  StateDict global = peers.peers.front().make_model()->state();
  for (std::int64_t round = 1; round <= 3; ++round) {
    peers.run_round(*gossip, states, round);
    WeightedMean mean(global.schema());
    for (const Peer& peer : peers.peers) {
      const auto model = peer.make_model();
      model->load(global);
      const Seed seed = peer.seeds.child("train").child(static_cast<std::uint64_t>(round));
      train(*model, peer.training, options.train, epoch_orders(peer.training.size(), 1, seed));
      REQUIRE_FALSE(add_update(mean, model->state(), 1));  // as gossip has it: the sum's last bit is 2^-36 a sample
    }
    global = std::move(mean).report();
    for (const StateDict& state : states) CHECK(bitwise_equal(state, global));
  }
}

TEST_CASE("gossip: who does not answer counts as if it had sent this peer's own model") {
  const Peers peers(3, test::small_spec(Norm::none));
  const auto gossip = peer_method_row("gossip").make(small_options("gossip"));
  const StateDict own = peers.peers[0].pretrained;
  const StateDict other = peers.peers[1].pretrained;
  const StateDict partly = gossip->combine(peers.peers[0], own, {{"silo-1", other}}, 1, {});
  const StateDict whole = gossip->combine(peers.peers[0], own, {{"silo-1", other}, {"silo-2", own}}, 1, {});
  CHECK(bitwise_equal(partly, whole));
  CHECK(bitwise_equal(gossip->combine(peers.peers[0], own, {}, 1, {}), own));
  StateDict broken = other.clone();
  broken.tensors().front().tensor.fill_(std::numeric_limits<float>::infinity());
  CHECK(test::error_of(Errc::run_failed, [&] {
          (void)gossip->combine(peers.peers[0], own, {{"silo-1", broken}}, 3, {});
        }).starts_with("round 3: silo-1's model: tensor '"));
}

TEST_CASE("gossip begins from one model, or from the peers' own") {
  const Peers peers(2, test::small_spec(Norm::none));
  PeerOptions options = small_options("gossip");
  std::vector<StateDict> states = peers.start(*peer_method_row("gossip").make(options));
  CHECK(bitwise_equal(states[0], states[1]));
  options.gossip_start = GossipStart::pretrained;
  states = peers.start(*peer_method_row("gossip").make(options));
  CHECK(bitwise_equal(states[0], peers.peers[0].pretrained));
  CHECK_FALSE(bitwise_equal(states[0], states[1]));
}

TEST_CASE("kd: by cross-entropy and by KL it is the same model, up to rounding") {
  const Peers peers(3);
  PeerOptions options = small_options("kd");
  std::vector<StateDict> states;
  for (const char* measure : {"ce", "kl", "js"}) {
    options.kd.measure = measure;
    const auto kd = peer_method_row("kd").make(options);
    states.push_back(kd->combine(peers.peers[0], kd->start(peers.peers[0]), peers.first_messages(*kd, 0), 1, {}));
  }
  CHECK(largest_difference(states[0], states[1]) < 1e-4);
  CHECK(largest_difference(states[0], states[2]) > 1e-3);
}

TEST_CASE("kd: the first message leaves the untrained second head at home; first heads teach, then second ones") {
  const Peers peers(2);
  const auto kd = peer_method_row("kd").make(small_options("kd"));
  const StateDict start = kd->start(peers.peers[1]);
  const StateDict first = kd->message(peers.peers[1], start, 1);
  CHECK(kd->message(peers.peers[1], start, 2).tensors().size() > first.tensors().size());
  for (const auto& [name, tensor] : first.tensors()) CHECK_FALSE(name.starts_with("head2."));

  // A message whose second head is another teaches the same in round 1, and something else in round 2.
  StateDict other = start.clone();
  for (const auto& [name, tensor] : other.tensors()) {
    if (name.starts_with("head2.")) tensor.mul_(3);
  }
  const auto after = [&](const StateDict& received, std::int64_t round) {
    return kd->combine(peers.peers[0], peers.peers[0].pretrained, {{"silo-1", received}}, round, {});
  };
  CHECK(bitwise_equal(after(first, 1), after(other, 1)));
  CHECK_FALSE(bitwise_equal(after(start, 2), after(other, 2)));
  CHECK(kd->answering(0) == Head::first);
  CHECK(kd->answering(1) == Head::second);
}

TEST_CASE("kd: a round is repeated with the same bits, and the next one draws other orders") {
  const Peers peers(2);
  const auto kd = peer_method_row("kd").make(small_options("kd"));
  const Parts received = peers.first_messages(*kd, 0);
  const auto once = [&](std::int64_t round) {
    return kd->combine(peers.peers[0], peers.peers[0].pretrained, received, round, {});
  };
  CHECK(bitwise_equal(once(1), once(1)));
}

TEST_CASE("kd that trains the head alone leaves every other bit, BatchNorm's statistics included") {
  const Peers peers(2);
  PeerOptions options = small_options("kd");
  options.trains = Trains::head;
  const auto kd = peer_method_row("kd").make(options);
  const StateDict start = kd->start(peers.peers[0]);
  const StateDict after = kd->combine(peers.peers[0], start, peers.first_messages(*kd, 0), 1, {});
  std::int64_t num_changed = 0;
  for (const auto& [name, tensor] : after.tensors()) {
    const bool is_same = at::equal(tensor, start.at(name));
    if (name.starts_with("head2.")) {
      num_changed += is_same ? 0 : 1;
    } else {
      CAPTURE(name);
      CHECK(is_same);
    }
  }
  CHECK(num_changed == 6);
}

TEST_CASE("alone: sends nothing, hears nobody, and is kd without its distillation term") {
  const Peers peers(3);
  PeerOptions options = small_options("alone");
  const auto alone = peer_method_row("alone").make(options);
  CHECK(alone->recipients(peers.peers[0], 1).empty());
  options.kd.alpha = 0;
  const auto deaf = peer_method_row("kd").make(options);
  const StateDict start = peers.peers[0].pretrained;
  const StateDict after = alone->combine(peers.peers[0], start, {}, 1, {});
  CHECK(bitwise_equal(after, deaf->combine(peers.peers[0], start, peers.first_messages(*deaf, 0), 1, {})));
  // Who hears nobody does as much as that.
  options.kd.alpha = 0.5;
  CHECK(bitwise_equal(after, peer_method_row("kd").make(options)->combine(peers.peers[0], start, {}, 1, {})));
}

TEST_CASE("kd: a teacher whose answers are no numbers is left out") {
  const Peers peers(3);
  const auto kd = peer_method_row("kd").make(small_options("kd"));
  Parts received = peers.first_messages(*kd, 0);
  const Parts one = {{"silo-2", received.at("silo-2")}};
  received["silo-1"] = received.at("silo-1").clone();
  for (const auto& [name, tensor] : received["silo-1"].tensors()) {
    if (tensor.is_floating_point()) tensor.fill_(std::numeric_limits<float>::quiet_NaN());
  }
  const StateDict start = peers.peers[0].pretrained;
  CHECK(bitwise_equal(kd->combine(peers.peers[0], start, received, 1, {}),
                      kd->combine(peers.peers[0], start, one, 1, {})));
}

TEST_CASE("kd: a peer may be among its own teachers") {
  const Peers peers(2);
  PeerOptions options = small_options("kd");
  const auto others = peer_method_row("kd").make(options);
  options.teaches_itself = true;
  const auto itself = peer_method_row("kd").make(options);
  const StateDict start = peers.peers[0].pretrained;
  const Parts received = peers.first_messages(*others, 0);
  Parts both = received;
  both.emplace("silo-0", start);
  CHECK(bitwise_equal(itself->combine(peers.peers[0], start, received, 1, {}),
                      others->combine(peers.peers[0], start, both, 1, {})));
}

/// What the peers of a graph know without any samples: names, neighbours, edges and the run's seed.
std::vector<Peer> peers_of(const PeerGraph& graph, Seed run) {
  const auto name_of = [](PeerIndex peer) { return fmt::format("silo-{:02}", peer); };
  std::vector<Peer> peers(static_cast<std::size_t>(graph.num_peers()));
  for (PeerIndex i = 0; i < graph.num_peers(); ++i) {
    Peer& peer = peers[static_cast<std::size_t>(i)];
    peer.name = name_of(i);
    peer.run_seeds = run;
    peer.seeds = run.child("client").child(peer.name);
    for (const PeerIndex other : graph.neighbours(i)) peer.neighbours.push_back(name_of(other));
    for (const auto& [one, other] : graph.edges()) peer.edges.emplace_back(name_of(one), name_of(other));
    for (PeerIndex other = 0; other < graph.num_peers(); ++other) peer.everyone.push_back(name_of(other));
  }
  return peers;
}

using NamePair = std::pair<std::string, std::string>;

/// Who sends to whom in a round of def-kt, as every peer says it of itself.
std::vector<NamePair> pairs_of(const std::vector<Peer>& peers, std::int64_t round) {
  const auto def_kt = peer_method_row("def-kt").make({});
  std::vector<NamePair> pairs;
  for (const Peer& peer : peers) {
    for (const std::string& to : def_kt->recipients(peer, round)) pairs.emplace_back(peer.name, to);
  }
  return pairs;
}

TEST_CASE("def-kt: pairs are disjoint, along edges, and as many as fit, in every graph") {
  for (const char* kind : {"full", "ring", "star", "small-world", "erdos-renyi"}) {
    for (std::int64_t seed = 0; seed < 12; ++seed) {
      const std::int64_t count = 6 + seed;
      const PeerGraph graph = make_graph({.kind = kind, .degree = 2}, count, Seed(static_cast<std::uint64_t>(seed)));
      const std::vector<Peer> peers = peers_of(graph, Seed(static_cast<std::uint64_t>(seed)));
      const std::vector<NamePair>& edges = peers.front().edges;
      for (std::int64_t round = 1; round <= 8; ++round) {
        CAPTURE(kind);
        CAPTURE(seed);
        CAPTURE(round);
        std::set<std::string> in_pair;
        const std::vector<NamePair> pairs = pairs_of(peers, round);
        for (const auto& [from, to] : pairs) {
          CHECK(std::ranges::count(edges, NamePair(std::min(from, to), std::max(from, to))) == 1);
          in_pair.insert({from, to});
        }
        CHECK(in_pair.size() == 2 * pairs.size());
        for (const auto& [one, other] : edges) CHECK((in_pair.contains(one) || in_pair.contains(other)));
      }
    }
  }
}

TEST_CASE("def-kt: pairs hang on the run's seed and the round, and each edge is used both ways") {
  const PeerGraph ring = make_graph({.kind = "ring"}, 5, Seed(1));
  const std::vector<Peer> peers = peers_of(ring, Seed(3));
  std::set<NamePair> used;
  std::set<std::vector<NamePair>> drawn;
  for (std::int64_t round = 1; round <= 60; ++round) {
    const std::vector<NamePair> pairs = pairs_of(peers, round);
    used.insert(pairs.begin(), pairs.end());
    drawn.insert(pairs);
    CHECK(pairs_of(peers, round) == pairs);
  }
  CHECK(used.size() == 10);
  CHECK(drawn.size() > 10);
  bool differs = false;
  for (std::int64_t round = 1; round <= 8; ++round) {
    differs = differs || pairs_of(peers_of(ring, Seed(4)), round) != pairs_of(peers, round);
  }
  CHECK(differs);
}

/// All that a peer of three does in round 1 of def-kt: 0 sends, 1 receives, 2 is in no pair, whatever their names.
struct Triple {
  explicit Triple(const Peers& of, const PeerMethod& method) {
    for (const Peer& peer : of.peers) {
      const std::vector<std::string> to = method.recipients(peer, 1);
      if (to.empty()) continue;
      sender = &peer;
      receiver = &*std::ranges::find(of.peers, to.front(), &Peer::name);
    }
    const auto in_neither = [this](const Peer& peer) { return &peer != sender && &peer != receiver; };
    third = &*std::ranges::find_if(of.peers, in_neither);
  }
  const Peer* sender = nullptr;
  const Peer* receiver = nullptr;
  const Peer* third = nullptr;
};

TEST_CASE("def-kt: one trains and sends; the other keeps the model that came after mutual learning, bit for bit") {
  const Peers peers(3, test::small_spec(Norm::batch));
  PeerOptions options = small_options("def-kt");
  options.train.epochs = 2;
  const auto def_kt = peer_method_row("def-kt").make(options);
  const Triple three(peers, *def_kt);
  std::map<std::string, StateDict> after;
  {
    std::vector<StateDict> states = peers.start(*def_kt);
    peers.run_round(*def_kt, states, 1);
    for (std::size_t i = 0; i < states.size(); ++i) after[peers.peers[i].name] = states[i];
  }
  const Peer& a = *three.sender;
  const auto guest = a.make_model();
  guest->load(a.pretrained);
  train(*guest, a.training, options.train, epoch_orders(a.training.size(), 2, a.seeds.child("train").child(1)));
  CHECK(bitwise_equal(after[a.name], guest->state()));
  const Peer& b = *three.receiver;
  const auto own = b.make_model();
  own->load(b.pretrained);
  learn_mutually(*guest, *own, b.training, {.epochs = 2, .batch_size = 16, .optimizer = options.train.optimizer},
                 b.seeds.child("peers").child(1));
  CHECK(bitwise_equal(after[b.name], guest->state()));
  CHECK_FALSE(bitwise_equal(after[b.name], own->state()));
  CHECK(bitwise_equal(after[three.third->name], three.third->pretrained));
}

TEST_CASE("def-kt: a peer learns from its partner's model alone, and keeps its own where that did not come") {
  const Peers peers(3, test::small_spec(Norm::none));
  const auto def_kt = peer_method_row("def-kt").make(small_options("def-kt"));
  const Triple three(peers, *def_kt);
  const StateDict own = three.receiver->pretrained;
  const auto after = [&](const Peer& peer, const Parts& received) {
    return def_kt->combine(peer, peer.pretrained, received, 1, {});
  };
  const Parts from_partner = {{three.sender->name, three.sender->pretrained}};
  const Parts from_third = {{three.third->name, three.third->pretrained}};
  CHECK(bitwise_equal(after(*three.receiver, {}), own));
  CHECK(bitwise_equal(after(*three.receiver, from_third), own));
  CHECK_FALSE(bitwise_equal(after(*three.receiver, from_partner), own));
  Parts from_both = from_partner;
  from_both.insert(from_third.begin(), from_third.end());
  CHECK(bitwise_equal(after(*three.receiver, from_both), after(*three.receiver, from_partner)));
  CHECK(bitwise_equal(after(*three.sender, from_third), three.sender->pretrained));
  CHECK(bitwise_equal(after(*three.third, from_partner), three.third->pretrained));
  Peer blind = *three.receiver;
  blind.edges.clear();
  CHECK(test::error_of(Errc::internal, [&] { (void)after(blind, from_partner); }).starts_with("def-kt: peer silo-"));
}

TEST_CASE("proxyfl: each round's recipients are a permutation, and in k rounds a word reaches everybody") {
  const auto proxyfl = peer_method_row("proxyfl").make({});
  for (std::int64_t count = 2; count <= 20; ++count) {
    CAPTURE(count);
    const std::vector<Peer> peers = peers_of(make_graph({.kind = "full"}, count, Seed(1)), Seed(1));
    const std::int64_t k = std::bit_width(static_cast<std::uint64_t>(count - 1));
    for (const std::int64_t first : {1, 2, 5}) {
      std::set<std::string> knows = {peers[1].name};  // its model keeps what its proxy carries on
      for (std::int64_t round = first; round < first + k; ++round) {
        std::set<std::string> recipients;
        const std::set<std::string> before = knows;
        for (const Peer& peer : peers) {
          const std::vector<std::string> to = proxyfl->recipients(peer, round);
          REQUIRE(to.size() == 1);
          CHECK(to.front() != peer.name);
          recipients.insert(to.front());
          if (before.contains(peer.name)) knows.insert(to.front());
        }
        CHECK(std::ssize(recipients) == count);
      }
      CHECK(std::ssize(knows) == count);
    }
  }
  // Eight peers: 1, 2, 4 places further, and again.
  const std::vector<Peer> eight = peers_of(make_graph({.kind = "ring"}, 8, Seed(1)), Seed(1));
  std::vector<std::string> course;
  for (std::int64_t round = 1; round <= 4; ++round) course.push_back(proxyfl->recipients(eight[6], round).front());
  CHECK((course == std::vector<std::string>{"silo-07", "silo-00", "silo-02", "silo-07"}));
  CHECK(proxyfl->recipients(peers_of(PeerGraph(1, {}), Seed(1)).front(), 1).empty());
}

TEST_CASE("proxyfl: the model stays at home, the proxy travels and is replaced by the one that came") {
  const Peers peers(3, test::small_spec(Norm::batch));
  const auto proxyfl = peer_method_row("proxyfl").make(small_options("proxyfl"));
  const Peer& peer = peers.peers[0];
  const StateDict start = proxyfl->start(peer);
  CHECK(bitwise_equal(proxyfl->model(start), peer.pretrained));
  CHECK(bitwise_equal(proxyfl->message(peer, start, 1), peer.make_model()->state()));
  const StateDict prepared = proxyfl->prepare(peer, start, 1, {});
  CHECK(prepared.schema() == start.schema());
  CHECK_FALSE(bitwise_equal(proxyfl->model(prepared), peer.pretrained));
  CHECK(bitwise_equal(prepared, joined(proxyfl->model(prepared), {{"proxy", proxyfl->message(peer, prepared, 1)}})));

  // In round 1 it is silo-2's that comes to silo-0.
  const StateDict proxy = proxyfl->message(peers.peers[2], proxyfl->start(peers.peers[2]), 1);
  const StateDict other = peers.peers[1].pretrained;
  const StateDict after = proxyfl->combine(peer, prepared, {{"silo-1", other}, {"silo-2", proxy}}, 1, {});
  CHECK(bitwise_equal(after, joined(proxyfl->model(prepared), {{"proxy", proxy}})));
  CHECK(bitwise_equal(proxyfl->combine(peer, prepared, {{"silo-1", other}}, 1, {}), prepared));
  CHECK(bitwise_equal(proxyfl->combine(peer, prepared, {}, 1, {}), prepared));
}

TEST_CASE("proxyfl: a step follows both losses' gradients in closed form") {
  const Peers peers(2, test::small_spec(Norm::none));
  PeerOptions options = small_options("proxyfl");
  options.train.batch_size = 100;  // all at once
  options.train.optimizer = {.kind = OptimizerKind::sgd, .lr = 0.1, .momentum = 0, .weight_decay = 0};
  options.proxyfl = {.alpha = 0.3, .beta = 0.8};
  const auto proxyfl = peer_method_row("proxyfl").make(options);
  const Peer& peer = peers.peers[0];
  const StateDict after = proxyfl->prepare(peer, proxyfl->start(peer), 1, {});

  const auto own = peer.make_model();
  own->load(peer.pretrained);
  const auto proxy = peer.make_model();
  const auto answers = [&peer](Model& model) { return model.forward(peer.training.x); };
  const Tensor z_f = answers(*own);
  const Tensor z_h = answers(*proxy);
  const Tensor p_f = z_f.detach().softmax(1);
  const Tensor p_h = z_h.detach().softmax(1);
  const Tensor one_hot = at::one_hot(peer.training.y, 4);
  const auto n = static_cast<double>(peer.training.size());
  // d CE / dz = (p - y) / n; d KL(p_other || p) / dz = (p - p_other) / n.
  z_f.backward((0.7 * (p_f - one_hot) + 0.3 * (p_f - p_h)) / n);
  z_h.backward((0.2 * (p_h - one_hot) + 0.8 * (p_h - p_f)) / n);
  {
    const at::NoGradGuard no_grad;
    for (Model* model : {own.get(), proxy.get()}) {
      for (const Tensor& parameter : model->parameters()) parameter.sub_(parameter.grad(), 0.1);
    }
  }
  CHECK(largest_difference(proxyfl->model(after), own->state()) < 1e-6);
  CHECK(largest_difference(proxyfl->message(peer, after, 1), proxy->state()) < 1e-6);
  CHECK(largest_difference(proxyfl->model(after), peer.pretrained) > 1e-3);
  CHECK(largest_difference(proxyfl->message(peer, after, 1), peer.make_model()->state()) > 1e-3);
}

TEST_CASE("proxyfl: a model that does not listen to its proxy trains as if there were none") {
  const Peers peers(2, test::small_spec(Norm::batch));
  PeerOptions options = small_options("proxyfl");
  options.proxyfl = {.alpha = 0, .beta = 0.5};
  const auto proxyfl = peer_method_row("proxyfl").make(options);
  options.gossip_start = GossipStart::pretrained;
  const auto gossip = peer_method_row("gossip").make(options);
  const Peer& peer = peers.peers[0];
  CHECK(largest_difference(proxyfl->model(proxyfl->prepare(peer, proxyfl->start(peer), 3, {})),
                           gossip->prepare(peer, gossip->start(peer), 3, {})) < 1e-6);
}

/// The public samples of a round by the seeds' places alone.
Tensor drawn_public(const Peer& peer, std::int64_t count, std::uint64_t round) {
  const Seed seed = peer.run_seeds.child("fedmd").child("public").child(round);
  return peer.public_samples.index_select(0, permutation(peer.public_samples.size(0), seed).narrow(0, 0, count));
}

Tensor logits_of_state(const Peer& peer, const StateDict& state, const Tensor& x) {
  const auto model = peer.make_model();
  model->load(state);
  return logits_of(*model, x);
}

TEST_CASE("fedmd: a message is the logits on the round's public samples, the same ones at all peers") {
  const Peers peers(2, test::small_spec(Norm::batch));
  PeerOptions options = small_options("fedmd");
  options.fedmd.public_samples = 10;
  const auto fedmd = peer_method_row("fedmd").make(options);
  for (const Peer& peer : peers.peers) {
    for (const std::uint64_t round : {1U, 2U}) {
      const StateDict message = fedmd->message(peer, peer.pretrained, static_cast<std::int64_t>(round));
      REQUIRE(message.tensors().size() == 1);
      CHECK(at::equal(message.at("logits"), logits_of_state(peer, peer.pretrained, drawn_public(peer, 10, round))));
    }
  }
  const Peer& peer = peers.peers[0];
  CHECK_FALSE(at::equal(drawn_public(peer, 10, 1), drawn_public(peer, 10, 2)));
  CHECK(at::equal(drawn_public(peer, 10, 1), drawn_public(peers.peers[1], 10, 1)));
  for (const std::int64_t all : {0, 40, 5000}) {
    options.fedmd.public_samples = all;
    const StateDict message = peer_method_row("fedmd").make(options)->message(peer, peer.pretrained, 1);
    CHECK(at::equal(message.at("logits"), logits_of_state(peer, peer.pretrained, peer.public_samples)));
  }
}

TEST_CASE("fedmd: a round by hand: the mean of all answers by absolute error, then the own samples") {
  const Peers peers(3, test::small_spec(Norm::batch));
  PeerOptions options = small_options("fedmd");
  options.fedmd = {.public_samples = 20, .private_epochs = 2};
  options.train.optimizer = {.kind = OptimizerKind::sgd, .lr = 0.05, .momentum = 0, .weight_decay = 0};
  const auto fedmd = peer_method_row("fedmd").make(options);
  const Peer& peer = peers.peers[0];
  const Parts received = peers.first_messages(*fedmd, 0);
  const StateDict after = fedmd->combine(peer, peer.pretrained, received, 1, {});

  const Tensor x = drawn_public(peer, 20, 1);
  Tensor sum = torch::zeros({20, 4}, torch::kFloat64);
  for (const Peer& other : peers.peers) sum += logits_of_state(other, other.pretrained, x);
  const Tensor mean = (sum / 3).to(torch::kFloat32);
  const auto model = peer.make_model();
  model->load(peer.pretrained);
  model->set_training(true);
  // One batch, in the order that was drawn.
  const Tensor order = permutation(20, peer.seeds.child("peers").child(1).child("order"));
  const Tensor loss = (model->forward(x.index_select(0, order)) - mean.index_select(0, order)).abs().mean();
  loss.backward();
  {
    const at::NoGradGuard no_grad;
    for (const Tensor& parameter : model->parameters()) {
      parameter.sub_(parameter.grad(), 0.05);
      parameter.mutable_grad().reset();
    }
  }
  const StateDict fitted = model->state();
  train(*model, peer.training, options.train,
        epoch_orders(peer.training.size(), 2, peer.seeds.child("train").child(1)));
  CHECK(largest_difference(after, model->state()) < 1e-5);

  options.fedmd.private_epochs = 0;
  const StateDict public_only = peer_method_row("fedmd").make(options)->combine(peer, peer.pretrained, received, 1, {});
  CHECK(largest_difference(public_only, fitted) < 1e-6);
  CHECK(largest_difference(public_only, peer.pretrained) > 1e-3);
}

TEST_CASE("fedmd: equal answers have themselves for their mean, whoever is missing") {
  const Peers peers(4, test::small_spec(Norm::batch));
  const auto fedmd = peer_method_row("fedmd").make(small_options("fedmd"));
  const Peer& peer = peers.peers[0];
  const StateDict own = fedmd->message(peer, peer.pretrained, 1);
  const auto after = [&](const Parts& received) { return fedmd->combine(peer, peer.pretrained, received, 1, {}); };
  const StateDict alone = after({});
  CHECK(bitwise_equal(after({{"silo-1", own}}), alone));
  CHECK(bitwise_equal(after({{"silo-1", own}, {"silo-2", own}}), alone));
  CHECK_FALSE(bitwise_equal(after({{"silo-1", fedmd->message(peers.peers[1], peers.peers[1].pretrained, 1)}}), alone));
}

TEST_CASE("fedmd: answers that are no numbers, or not to these samples, are left out") {
  const Peers peers(3, test::small_spec(Norm::none));
  const auto fedmd = peer_method_row("fedmd").make(small_options("fedmd"));
  const Peer& peer = peers.peers[0];
  const Parts both = peers.first_messages(*fedmd, 0);
  const auto after = [&](const Parts& received) { return fedmd->combine(peer, peer.pretrained, received, 1, {}); };
  const StateDict without = after({{"silo-2", both.at("silo-2")}});
  CHECK_FALSE(bitwise_equal(after(both), without));
  const auto with = [&](StateDict other) {
    return after({{"silo-1", std::move(other)}, {"silo-2", both.at("silo-2")}});
  };
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    StateDict broken = both.at("silo-1").clone();
    broken.at("logits")[3][2].fill_(bad);
    CHECK(bitwise_equal(with(broken), without));
  }
  CHECK(bitwise_equal(with(StateDict({{"logits", torch::zeros({39, 4})}})), without));
  CHECK(bitwise_equal(with(StateDict({{"logits", torch::zeros({40, 4}, torch::kFloat64)}})), without));
  CHECK(bitwise_equal(with(StateDict({{"answers", torch::zeros({40, 4})}})), without));
  CHECK(bitwise_equal(with(StateDict()), without));
  Peer deaf = peer;
  deaf.public_samples = Tensor();
  CHECK(test::error_of(Errc::data, [&] { (void)fedmd->message(deaf, peer.pretrained, 1); }) ==
        "fedmd: there are no public samples");
}

TEST_CASE("def-kt, proxyfl and fedmd repeat their rounds with the same bits") {
  const Peers peers(3, test::small_spec(Norm::batch));
  for (const char* name : {"def-kt", "proxyfl", "fedmd"}) {
    CAPTURE(name);
    PeerOptions options = small_options(name);
    options.fedmd = {.public_samples = 24, .private_epochs = 1};
    std::vector<std::vector<StateDict>> runs;
    for (int run = 0; run < 2; ++run) {
      const auto method = peer_method_row(name).make(options);
      std::vector<StateDict> states = peers.start(*method);
      for (std::int64_t round = 1; round <= 2; ++round) peers.run_round(*method, states, round);
      runs.push_back(std::move(states));
    }
    for (std::size_t i = 0; i < peers.peers.size(); ++i) CHECK(bitwise_equal(runs[0][i], runs[1][i]));
  }
}

TEST_CASE("a method that nobody knows is refused with those that there are") {
  CHECK(test::error_of(Errc::usage, [] {
          (void)peer_method_row("telepathy");
        }).starts_with("peers.method 'telepathy': expected one of kd, alone, gossip"));
}

}  // namespace
}  // namespace headstart::learn
