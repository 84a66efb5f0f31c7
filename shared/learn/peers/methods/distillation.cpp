// Distillation between peers: each distils its neighbours' frozen models into the second head of its own, on its own
// samples. Sources: Molo et al., SISAP 2024 (one round) and FGCS 176 (several).

#include <spdlog/spdlog.h>
#include <torch/types.h>

#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/peers/peer_method.hpp"

namespace headstart::learn {

namespace {

/// The state of a model, of which `part` need not have the second head: that of `whole` then stays.
StateDict completed(const StateDict& part, const StateDict& whole) {
  std::vector<NamedTensor> tensors = part.tensors();
  std::set<std::string> names;
  for (const NamedTensor& named : tensors) names.insert(named.name);
  for (const NamedTensor& named : whole.tensors()) {
    if (!names.contains(named.name)) tensors.push_back(named);
  }
  return StateDict(std::move(tensors));
}

class PeerDistillation : public PeerMethod {
 public:
  explicit PeerDistillation(PeerOptions options) : options_(std::move(options)) {}

  /// Before round 1 second heads are untrained, and stay at home.
  [[nodiscard]] StateDict message(const Peer& peer, const StateDict& state, std::int64_t round) const override {
    if (round > 1) return state;
    const std::string prefix = peer.make_model()->head_prefix(Head::second);
    std::vector<NamedTensor> sent = state.tensors();
    std::erase_if(sent, [&prefix](const NamedTensor& named) { return named.name.starts_with(prefix); });
    return StateDict(std::move(sent));
  }

  [[nodiscard]] StateDict combine(const Peer& peer, StateDict state, const Parts& received, std::int64_t round,
                                  const PeerWork& work) const override {
    Parts teachers = received;
    if (options_.teaches_itself) teachers.emplace(peer.name, state);
    const Tensor logits = answers_of(peer, teachers, round, work);
    if (!logits.defined()) return trained_alone(peer, std::move(state), round, work);
    return distilled(peer, std::move(state), logits, options_.kd, round, work);
  }

  [[nodiscard]] Head answering(std::int64_t round) const override { return round == 0 ? Head::first : Head::second; }

 protected:
  /// As long as a distillation takes, on the labels alone.
  [[nodiscard]] StateDict trained_alone(const Peer& peer, StateDict state, std::int64_t round,
                                        const PeerWork& work) const {
    DistillOptions labels = options_.kd;
    labels.alpha = 0;  // whoever answers then has no part in it
    labels.average = TeacherAverage::probabilities;
    const Tensor nobody = torch::zeros({1, peer.training.size(), peer.num_classes});
    return distilled(peer, std::move(state), nobody, labels, round, work);
  }

 private:
  /// Of the teachers on the peer's own samples, [K, n, C], in name order, those left out that are not finite;
  /// undefined: nobody is left. Before the first round first heads answer, then second ones.
  static Tensor answers_of(const Peer& peer, const Parts& teachers, std::int64_t round, const PeerWork& work) {
    std::vector<Tensor> logits;
    const auto model = peer.make_model();
    const StateDict untrained = model->state();
    const auto view = view_of_head(*model, round == 1 ? Head::first : Head::second, Trains::all);
    for (const auto& [name, teacher] : teachers) {
      model->load(completed(teacher, untrained));
      Tensor answers = logits_of(*view, peer.training.x, 256, work.stop);
      if (at::isfinite(answers).all().item<bool>()) {
        logits.push_back(std::move(answers));
      } else {
        spdlog::warn("{}, round {}: {}'s model does not teach, its logits are not finite", peer.name, round, name);
      }
    }
    return logits.empty() ? Tensor() : torch::stack(logits);
  }

  [[nodiscard]] StateDict distilled(const Peer& peer, StateDict state, const Tensor& logits,
                                    const DistillOptions& options, std::int64_t round, const PeerWork& work) const {
    const auto student = peer.make_model();
    student->load(state);
    const auto view = view_of_head(*student, Head::second, options_.trains);
    const Guidance teachers = guidance(logits, equal_weights(logits.size(0), peer.num_classes), options);
    // The same orders for every measure, so that they differ in nothing else.
    const Seed seed = peer.seeds.child("peers").child(static_cast<std::uint64_t>(round));
    const auto lease = lease_for(*student, seed.child("layers"));
    distill(*view, peer.training, teachers, options, seed, work.progress, work.stop);
    return student->state();
  }

  PeerOptions options_;
};

class Alone final : public PeerDistillation {
 public:
  using PeerDistillation::PeerDistillation;
  [[nodiscard]] std::vector<std::string> recipients(const Peer&, std::int64_t) const override { return {}; }
  [[nodiscard]] StateDict combine(const Peer& peer, StateDict state, const Parts&, std::int64_t round,
                                  const PeerWork& work) const override {
    return trained_alone(peer, std::move(state), round, work);
  }
};

}  // namespace

std::unique_ptr<PeerMethod> make_peer_distillation(const PeerOptions& options) {
  return std::make_unique<PeerDistillation>(options);
}

std::unique_ptr<PeerMethod> make_alone(const PeerOptions& options) { return std::make_unique<Alone>(options); }

}  // namespace headstart::learn
