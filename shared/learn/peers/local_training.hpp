// A peer's own training in a round, as all methods have it that train on labels alone. Private to peers.
#pragma once

#include <cstdint>

#include "shared/learn/peers/peer_method.hpp"

namespace headstart::learn {

/// options.epochs on the peer's own samples, by the first head. Orders from peer.seeds.child("train").child(round).
/// Takes the process-wide generators where the model needs them (lease_for). Throws as train() does.
void train_locally(Model& model, const Peer& peer, const TrainOptions& options, std::int64_t round,
                   const PeerWork& work);

/// The same of a state.
StateDict trained_locally(const Peer& peer, const StateDict& state, const TrainOptions& options, std::int64_t round,
                          const PeerWork& work);

}  // namespace headstart::learn
