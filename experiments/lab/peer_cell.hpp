// Computes one cell of a study of peers: all peers over all rounds, in one process.
#pragma once

#include <stop_token>

#include <nlohmann/json.hpp>

#include "experiments/lab/participants.hpp"
#include "experiments/lab/peer_settings.hpp"

namespace headstart::lab {

/// All accuracies are 0..1, of the test set. *Global*: mean recall over its classes. *Own*: what is to be expected on
/// data with the classes of the peer's training samples.
///   edges                   of the graph, as pairs of peers
///   peers                   of each: name, num_samples, classes (samples of each)
///   rounds                  of each, from 0 (before anything is sent), one number a peer:
///                             global, own, loss             of the head that answers
///                             global_first, own_first       of the first head, where the model has two
///                             validation                    accuracy on the validation samples; absent without any
///                             bytes                         sent in the round
///   digests                 SHA-256 of each peer's state after the last round, as headstart-peer records it
///   before, after           {global, own, spread}: of rounds 0 and the last, means over the peers, and the difference
///                           between the best and the worst peer's global accuracy
///   gain                    after.global - before.global
///   bytes                   that a peer sends in all, mean
///   ensemble                global accuracy of the mean of all peers' probabilities before round 1
nlohmann::json measure_peers(Participants& participants, const PeerCell& cell, std::stop_token stop);

}  // namespace headstart::lab
