// ProxyFL: each peer's model stays at home and learns from a proxy, which travels. Without the differential privacy of
// the paper: neither are the proxy's gradients clipped nor is noise added.
// Source: Kalra et al. 2023, Nature Communications (arXiv 2111.11343); the offsets as in the authors' program.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>
#include <utility>

#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/distill/losses.hpp"
#include "shared/learn/peers/peer_method.hpp"
#include "shared/learn/train/epoch_loop.hpp"

namespace headstart::learn {

namespace {

const std::string proxy_part = "proxy";

ModelWithParts parts_of(const StateDict& state) { return split(state, std::span(&proxy_part, 1)); }

/// (1 - weight) CE(y, p) + weight KL(p_other || p), the other constant. Mean over the batch, T 1.
Tensor one_sided_loss(const Tensor& logits, const Tensor& other, const Tensor& labels, double weight) {
  return (1 - weight) * at::cross_entropy_loss(logits, labels) + weight * kl_divergence(other.detach(), logits, 1);
}

/// Whom a peer sends its proxy to in `round`, and whose it gets: 2^(t mod k) places further, and as many before, in the
/// ring of all peers by name. t counts from 0, k = floor(log2(N - 1)) + 1. Nobody where it is alone.
struct Exchange {
  std::string to, from;
};
std::optional<Exchange> exchange_of(const Peer& peer, std::int64_t round) {
  const auto n = std::ssize(peer.everyone);
  if (n < 2) return std::nullopt;
  const std::int64_t i = std::ranges::find(peer.everyone, peer.name) - peer.everyone.begin();
  if (i == n) throw Error(Errc::internal, "peer " + peer.name + " is not among all peers");
  const std::int64_t k = std::bit_width(static_cast<std::uint64_t>(n - 1));
  const std::int64_t offset = std::int64_t{1} << ((round - 1) % k);
  const auto at = [&peer](std::int64_t place) { return peer.everyone[static_cast<std::size_t>(place)]; };
  return Exchange{.to = at((i + offset) % n), .from = at((i + n - offset) % n)};
}

class ProxyFl final : public PeerMethod {
 public:
  explicit ProxyFl(PeerOptions options) : options_(std::move(options)) {}

  [[nodiscard]] StateDict start(const Peer& peer) const override {
    return joined(peer.pretrained, {{proxy_part, peer.make_model()->state()}});
  }

  [[nodiscard]] StateDict prepare(const Peer& peer, StateDict state, std::int64_t round,
                                  const PeerWork& work) const override {
    const ModelWithParts held = parts_of(state);
    const auto own = peer.make_model();
    own->load(held.model);
    const auto proxy = peer.make_model();
    proxy->load(held.parts.at(proxy_part));
    const Seed seed = peer.seeds.child("train").child(static_cast<std::uint64_t>(round));
    const auto lease = lease_for(*own, seed.child("layers"));
    train_both(*own, *proxy, peer.training, seed, work);
    return joined(own->state(), {{proxy_part, proxy->state()}});
  }

  [[nodiscard]] std::vector<std::string> recipients(const Peer& peer, std::int64_t round) const override {
    const auto exchange = exchange_of(peer, round);
    return exchange ? std::vector{exchange->to} : std::vector<std::string>{};
  }

  [[nodiscard]] StateDict message(const Peer&, const StateDict& state, std::int64_t) const override {
    return parts_of(state).parts.at(proxy_part);
  }

  /// Where no proxy came, the own one stays.
  [[nodiscard]] StateDict combine(const Peer& peer, StateDict state, const Parts& received, std::int64_t round,
                                  const PeerWork&) const override {
    const auto exchange = exchange_of(peer, round);
    const auto sent = exchange ? received.find(exchange->from) : received.end();
    if (sent == received.end()) return state;
    return joined(parts_of(state).model, {{proxy_part, sent->second}});
  }

  [[nodiscard]] StateDict model(const StateDict& state) const override { return parts_of(state).model; }

 private:
  /// Both at once on the same batches, each by an optimiser of its own.
  void train_both(Model& own, Model& proxy, const Samples& samples, Seed seed, const PeerWork& work) const {
    if (samples.size() == 0) throw Error(Errc::data, "there are no samples to train a model and its proxy on");
    const TrainOptions& train = options_.train;
    EpochLoop loop("training with a proxy", train.batch_size, samples.x.device(), samples.size() * train.epochs);
    Optimizer own_optimizer(own.parameters(), train.optimizer);
    Optimizer proxy_optimizer(proxy.parameters(), train.optimizer);
    const auto step = [&](const Tensor& batch) {
      const Samples chosen = samples.select(batch);
      own_optimizer.zero_grad();
      proxy_optimizer.zero_grad();
      const Tensor own_logits = own.forward(chosen.x);
      const Tensor proxy_logits = proxy.forward(chosen.x);
      const Tensor loss = one_sided_loss(own_logits, proxy_logits, chosen.y, options_.proxyfl.alpha) +
                          one_sided_loss(proxy_logits, own_logits, chosen.y, options_.proxyfl.beta);
      loss.backward();
      own_optimizer.step();
      proxy_optimizer.step();
      return loss;
    };
    own.set_training(true);
    proxy.set_training(true);
    for (const Tensor& order : epoch_orders(samples.size(), train.epochs, seed)) {
      loop.run(order, step, work.progress, work.stop);
    }
  }

  PeerOptions options_;
};

}  // namespace

std::unique_ptr<PeerMethod> make_proxyfl(const PeerOptions& options) { return std::make_unique<ProxyFl>(options); }

}  // namespace headstart::learn
