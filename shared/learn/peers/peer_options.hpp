// The settings of peers that learn from each other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "shared/base/fields.hpp"
#include "shared/learn/distill/distill_options.hpp"
#include "shared/learn/models/heads.hpp"

namespace headstart::learn {

/// What gossip averaging begins from.
enum class GossipStart {
  common,      ///< The same untrained model at all peers, as D-PSGD has it.
  pretrained,  ///< Each peer's pre-trained model.
};
inline constexpr std::pair<GossipStart, std::string_view> gossip_start_words[] = {
    {GossipStart::common, "common"}, {GossipStart::pretrained, "pretrained"}};

/// What each of ProxyFL's two models learns from the other; the rest it learns from the labels.
struct ProxyFlOptions {
  double alpha = 0.5;  ///< The private model's weight of the KL from the proxy.
  double beta = 0.5;   ///< The proxy's weight of the KL from the private model.
};

/// Defaults: the authors' program on CIFAR.
struct FedMdOptions {
  std::int64_t public_samples = 5000;  ///< Of each round, drawn anew; 0: all.
  std::int64_t private_epochs = 10;    ///< On a peer's own samples, after each round's answers; 0: none.
};

struct PeerOptions {
  std::string method = "kd";  ///< Of peer_methods().
  std::int64_t rounds = 1;
  Trains trains = Trains::all;  ///< kd, alone: what the second head's training changes.
  bool teaches_itself = false;  ///< kd: the peer's own model of the round before is one of its teachers.
  GossipStart gossip_start = GossipStart::common;
  /// kd, alone: of each round. Defaults: section 6.1 of the specification, after Molo et al.
  DistillOptions kd{.measure = "kl",
                    .epochs = 10,
                    .batch_size = 32,
                    .optimizer = {.kind = OptimizerKind::sgd, .lr = 0.01, .momentum = 0.9, .weight_decay = 5e-4}};
  TrainOptions train;  ///< All but kd and alone: local training of each round; fedmd has its own number of epochs.
  ProxyFlOptions proxyfl;
  FedMdOptions fedmd;
};

/// "peers.method", ..., "kd.measure", ..., "train.epochs", ...
void declare_fields(Fields& fields, PeerOptions& options);

}  // namespace headstart::learn
