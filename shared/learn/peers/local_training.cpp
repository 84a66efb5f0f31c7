#include "shared/learn/peers/local_training.hpp"

namespace headstart::learn {

void train_locally(Model& model, const Peer& peer, const TrainOptions& options, std::int64_t round,
                   const PeerWork& work) {
  const Seed seed = peer.seeds.child("train").child(static_cast<std::uint64_t>(round));
  const auto lease = lease_for(model, seed.child("layers"));
  train(model, peer.training, options, epoch_orders(peer.training.size(), options.epochs, seed), work.progress,
        work.stop);
}

StateDict trained_locally(const Peer& peer, const StateDict& state, const TrainOptions& options, std::int64_t round,
                          const PeerWork& work) {
  const auto model = peer.make_model();
  model->load(state);
  train_locally(*model, peer, options, round, work);
  return model->state();
}

}  // namespace headstart::learn
