// FedMD: peers tell each other their logits on public samples, fit the mean, and train on their own samples.
// Source: Li & Wang 2019 (arXiv 1910.03581). The authors have one server for all; here the neighbours take its place,
// so that in the full graph the mean is theirs.

#include <cstdint>
#include <utility>

#include <spdlog/spdlog.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/peers/local_training.hpp"
#include "shared/learn/train/epoch_loop.hpp"

namespace headstart::learn {

namespace {

constexpr const char* logits_name = "logits";
constexpr std::int64_t public_batch_size = 128;

/// Of a round, the same at all peers: in the order of the set where it is all of it, else as drawn.
Tensor public_samples_of(const Peer& peer, std::int64_t wanted, std::int64_t round) {
  const Tensor& all = peer.public_samples;
  if (!all.defined() || all.size(0) == 0) throw Error(Errc::data, "fedmd: there are no public samples");
  if (wanted == 0 || wanted >= all.size(0)) return all;
  const Seed seed = peer.run_seeds.child("fedmd").child("public").child(static_cast<std::uint64_t>(round));
  return all.index_select(0, permutation(all.size(0), seed).narrow(0, 0, wanted).to(all.device()));
}

/// Whether `message` is logits [n, C] of numbers.
bool has_logits(const StateDict& message, std::int64_t num_samples, std::int64_t num_classes) {
  if (message.tensors().size() != 1 || message.tensors().front().name != logits_name) return false;
  const Tensor& logits = message.tensors().front().tensor;
  return logits.scalar_type() == torch::kFloat32 && logits.sizes() == at::IntArrayRef{num_samples, num_classes} &&
         at::isfinite(logits).all().item<bool>();
}

class FedMd final : public PeerMethod {
 public:
  explicit FedMd(PeerOptions options) : options_(std::move(options)) {}

  [[nodiscard]] StateDict message(const Peer& peer, const StateDict& state, std::int64_t round) const override {
    const auto model = peer.make_model();
    model->load(state);
    const Tensor samples = public_samples_of(peer, options_.fedmd.public_samples, round);
    return StateDict({{logits_name, logits_of(*model, samples)}});
  }

  /// Own answers count as one more peer's. Those of others that are no finite logits on the round's samples are left
  /// out; where none are left, nothing is fitted.
  [[nodiscard]] StateDict combine(const Peer& peer, StateDict state, const Parts& received, std::int64_t round,
                                  const PeerWork& work) const override {
    const auto model = peer.make_model();
    model->load(state);
    const Tensor samples = public_samples_of(peer, options_.fedmd.public_samples, round);
    Parts answers = received;
    answers[peer.name] = StateDict({{logits_name, logits_of(*model, samples, 256, work.stop)}});
    const Tensor mean = mean_of(answers, peer, samples.size(0), round);
    if (mean.defined()) fit(*model, samples, mean, peer, round, work);
    TrainOptions own = options_.train;
    own.epochs = options_.fedmd.private_epochs;
    if (own.epochs > 0) train_locally(*model, peer, own, round, work);
    return model->state();
  }

 private:
  /// In double, by name: n equal answers have themselves for their mean. Undefined: nobody is left.
  static Tensor mean_of(const Parts& answers, const Peer& peer, std::int64_t num_samples, std::int64_t round) {
    Tensor sum;
    std::int64_t count = 0;
    for (const auto& [name, answer] : answers) {
      if (!has_logits(answer, num_samples, peer.num_classes)) {
        spdlog::warn("{}, round {}: {}'s answers do not count, they are not {} x {} finite logits", peer.name, round,
                     name, num_samples, peer.num_classes);
        continue;
      }
      const Tensor logits = answer.at(logits_name).to(torch::kFloat64);
      sum = sum.defined() ? sum + logits : logits;
      ++count;
    }
    return sum.defined() ? (sum / static_cast<double>(count)).to(torch::kFloat32) : Tensor();
  }

  /// One epoch towards `targets` by mean absolute error, over batch and classes.
  void fit(Model& model, const Tensor& samples, const Tensor& targets, const Peer& peer, std::int64_t round,
           const PeerWork& work) const {
    const Tensor wanted = targets.to(samples.device());
    EpochLoop loop("fitting the public logits", public_batch_size, samples.device(), samples.size(0));
    Optimizer optimizer(model.parameters(), options_.train.optimizer);
    const auto step = [&](const Tensor& batch) {
      optimizer.zero_grad();
      const Tensor loss = at::l1_loss(model.forward(samples.index_select(0, batch)), wanted.index_select(0, batch));
      loss.backward();
      optimizer.step();
      return loss;
    };
    const Seed seed = peer.seeds.child("peers").child(static_cast<std::uint64_t>(round));
    const auto lease = lease_for(model, seed.child("layers"));
    model.set_training(true);
    loop.run(permutation(samples.size(0), seed.child("order")), step, work.progress, work.stop);
  }

  PeerOptions options_;
};

}  // namespace

std::unique_ptr<PeerMethod> make_fedmd(const PeerOptions& options) { return std::make_unique<FedMd>(options); }

}  // namespace headstart::learn
