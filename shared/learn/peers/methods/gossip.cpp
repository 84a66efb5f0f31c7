// Gossip averaging: local epochs, then the average with the neighbours' models by the mixing weights.
// Sources: Lian et al. 2017 (D-PSGD, of one local step); Xiao, Boyd and Lall 2006 (Metropolis weights).

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"
#include "shared/learn/peers/local_training.hpp"

namespace headstart::learn {

namespace {

class Gossip final : public PeerMethod {
 public:
  explicit Gossip(const PeerOptions& options) : options_(options) {}

  [[nodiscard]] StateDict start(const Peer& peer) const override {
    return options_.gossip_start == GossipStart::pretrained ? peer.pretrained : peer.make_model()->state();
  }

  [[nodiscard]] StateDict prepare(const Peer& peer, StateDict state, std::int64_t round,
                                  const PeerWork& work) const override {
    return trained_locally(peer, state, options_.train, round, work);
  }

  /// Who did not answer counts as if it had sent this peer's own model: the rows of the mixing matrix still sum to 1.
  [[nodiscard]] StateDict combine(const Peer& peer, StateDict state, const Parts& received, std::int64_t round,
                                  const PeerWork&) const override {
    WeightedMean mean(state.schema());
    std::int64_t own = peer.mixing.at(peer.name);
    for (const std::string& neighbour : peer.neighbours) {
      const std::int64_t weight = peer.mixing.at(neighbour);
      const auto found = received.find(neighbour);
      if (found == received.end()) {
        own += weight;
      } else if (const auto violation = add_update(mean, found->second, weight)) {
        throw Error(Errc::run_failed, fmt::format("round {}: {}'s model: {}", round, neighbour, *violation));
      }
    }
    if (own > 0) {
      if (const auto violation = add_update(mean, state, own)) {
        throw Error(Errc::run_failed, fmt::format("round {}: {}'s own model: {}", round, peer.name, *violation));
      }
    }
    return std::move(mean).report();
  }

 private:
  PeerOptions options_;
};

}  // namespace

std::unique_ptr<PeerMethod> make_gossip(const PeerOptions& options) { return std::make_unique<Gossip>(options); }

}  // namespace headstart::learn
