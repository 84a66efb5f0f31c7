// Def-KT: of each pair of neighbours one trains and sends its model, and the other lets it and its own learn from each
// other on its samples. Source: Li, Li & Varshney 2020 (arXiv 2012.13063).

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "shared/base/error.hpp"
#include "shared/learn/distill/pair_methods.hpp"
#include "shared/learn/peers/local_training.hpp"

namespace headstart::learn {

namespace {

struct Pair {
  std::string sender;
  std::string receiver;
};

/// The pairs of a round: the edges in an order that the run's seed draws, each taken whose ends are both still free.
/// So nobody is in two, no further edge could be added, and all peers that know the graph agree.
std::vector<Pair> pairs_of(const Peer& peer, std::int64_t round) {
  if (peer.edges.empty() && !peer.neighbours.empty()) {
    throw Error(Errc::internal, "def-kt: peer " + peer.name + " was not told the edges of the graph");
  }
  const Seed seed = peer.run_seeds.child("def-kt").child(static_cast<std::uint64_t>(round));
  std::vector<std::tuple<std::uint64_t, std::string, std::string>> ranked;
  for (const auto& [one, other] : peer.edges) ranked.emplace_back(seed.child(one).child(other).value(), one, other);
  std::ranges::sort(ranked);
  std::vector<Pair> pairs;
  std::set<std::string> taken;
  for (const auto& [rank, one, other] : ranked) {
    if (taken.contains(one) || taken.contains(other)) continue;
    taken.insert({one, other});
    const bool is_turned = seed.child(one).child(other).child("direction").value() % 2 == 1;
    pairs.push_back(is_turned ? Pair{other, one} : Pair{one, other});
  }
  return pairs;
}

/// The pair that the peer is in, if any.
std::optional<Pair> pair_of(const Peer& peer, std::int64_t round) {
  for (Pair& pair : pairs_of(peer, round)) {
    if (pair.sender == peer.name || pair.receiver == peer.name) return std::move(pair);
  }
  return std::nullopt;
}

class DefKt final : public PeerMethod {
 public:
  explicit DefKt(PeerOptions options) : options_(std::move(options)) {}

  [[nodiscard]] StateDict prepare(const Peer& peer, StateDict state, std::int64_t round,
                                  const PeerWork& work) const override {
    if (recipients(peer, round).empty()) return state;
    return trained_locally(peer, state, options_.train, round, work);
  }

  [[nodiscard]] std::vector<std::string> recipients(const Peer& peer, std::int64_t round) const override {
    const auto pair = pair_of(peer, round);
    if (!pair || pair->sender != peer.name) return {};
    return {pair->receiver};
  }

  /// Senders, peers in no pair, and those whose partner's model did not come keep their state.
  [[nodiscard]] StateDict combine(const Peer& peer, StateDict state, const Parts& received, std::int64_t round,
                                  const PeerWork& work) const override {
    const auto pair = pair_of(peer, round);
    if (!pair || pair->receiver != peer.name) return state;
    const auto sent = received.find(pair->sender);
    if (sent == received.end()) return state;
    const auto guest = peer.make_model();
    guest->load(sent->second);
    const auto own = peer.make_model();
    own->load(state);
    const DistillOptions mutual{.epochs = options_.train.epochs,
                                .batch_size = options_.train.batch_size,
                                .optimizer = options_.train.optimizer};
    const Seed seed = peer.seeds.child("peers").child(static_cast<std::uint64_t>(round));
    const auto lease = lease_for(*guest, seed.child("layers"));
    learn_mutually(*guest, *own, peer.training, mutual, seed, work.progress, work.stop);
    return guest->state();
  }

 private:
  PeerOptions options_;
};

}  // namespace

std::unique_ptr<PeerMethod> make_def_kt(const PeerOptions& options) { return std::make_unique<DefKt>(options); }

}  // namespace headstart::learn
