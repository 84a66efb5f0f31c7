// A method of decentralised learning: what a peer does before a round, what it sends to whom, and what it makes of what
// came. One file and one row of peer_methods() each. Knows no network, no clock and no files.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/base/seed.hpp"
#include "shared/learn/core/parts.hpp"
#include "shared/learn/core/progress.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/learn/peers/peer_options.hpp"

namespace headstart::learn {

/// One peer, as its method sees it. Lives as long as the run.
struct Peer {
  std::string name;
  std::vector<std::string> neighbours;  ///< Of the graph, in name order, itself not among them.
  std::vector<std::string> everyone;    ///< All peers of the run, in name order.
  /// Of the whole graph, the smaller name first, ascending: the same at all peers. For what neighbours must agree on
  /// without a message, as who is paired with whom: that hangs on edges between others, too.
  std::vector<std::pair<std::string, std::string>> edges;
  /// Its row of the mixing matrix, times a common denominator: itself and its neighbours.
  std::map<std::string, std::int64_t> mixing;
  Samples training;       ///< Its own, on the run's device.
  Tensor public_samples;  ///< [n, ...], unlabeled, the same at all peers; undefined: there are none.
  std::int64_t num_classes = 0;
  std::function<std::unique_ptr<Model>()>
      make_model;            ///< On the device; untrained, with the same weights at all peers.
  StateDict pretrained;      ///< Trained on its own samples alone; of make_model()'s schema.
  Seed seeds = Seed(0);      ///< Its own.
  Seed run_seeds = Seed(0);  ///< The same at all peers.
};

/// How work under way reports and is stopped.
struct PeerWork {
  ProgressCallback progress = {};
  std::stop_token stop = {};
};

/// A peer's state is all that it holds from round to round: a model, with parts (joined()) where the method has more.
/// Each call is a function of the state, of what came, of the peer and of the round: neither the clock nor the order of
/// arrival has a part in it, so that a peer that is started again goes on with the same bits. Rounds count from 1. All
/// work throws as train() and distill() do.
class PeerMethod {
 public:
  PeerMethod() = default;
  PeerMethod(const PeerMethod&) = delete;
  PeerMethod& operator=(const PeerMethod&) = delete;
  virtual ~PeerMethod() = default;

  /// The state before round 1. By default the pre-trained model.
  [[nodiscard]] virtual StateDict start(const Peer& peer) const;
  /// What a peer does in a round before it sends. By default nothing.
  [[nodiscard]] virtual StateDict prepare(const Peer& peer, StateDict state, std::int64_t round,
                                          const PeerWork& work) const;
  /// Whom it sends to, in name order. By default its neighbours.
  [[nodiscard]] virtual std::vector<std::string> recipients(const Peer& peer, std::int64_t round) const;
  /// What it sends to them. By default its state.
  [[nodiscard]] virtual StateDict message(const Peer& peer, const StateDict& state, std::int64_t round) const;
  /// The state after a round. `received`: by sender; those that had nothing to send or did not answer are missing.
  [[nodiscard]] virtual StateDict combine(const Peer& peer, StateDict state, const Parts& received, std::int64_t round,
                                          const PeerWork& work) const = 0;
  /// The model to be judged and used, of make_model()'s schema. By default the state.
  [[nodiscard]] virtual StateDict model(const StateDict& state) const;
  /// Which of its heads answers after `round`; 0: before round 1.
  [[nodiscard]] virtual Head answering(std::int64_t round) const;
};

/// One row: a method, what it needs, and how it is made.
struct PeerMethodRow {
  std::string_view name;      ///< The word of peers.method.
  std::string_view sentence;  ///< For the help, after "NAME: ".
  std::unique_ptr<PeerMethod> (*make)(const PeerOptions& options);
  bool needs_second_head = false;
  bool needs_public_set = false;
  bool ignores_graph = false;  ///< It does the same whatever the graph.
};

/// In the order of the help.
std::span<const PeerMethodRow> peer_methods();
/// Throws Error(usage) where there is none of that name, listing those that there are.
const PeerMethodRow& peer_method_row(std::string_view name);

std::unique_ptr<PeerMethod> make_peer_distillation(const PeerOptions& options);
std::unique_ptr<PeerMethod> make_alone(const PeerOptions& options);
std::unique_ptr<PeerMethod> make_gossip(const PeerOptions& options);
std::unique_ptr<PeerMethod> make_def_kt(const PeerOptions& options);
std::unique_ptr<PeerMethod> make_proxyfl(const PeerOptions& options);
std::unique_ptr<PeerMethod> make_fedmd(const PeerOptions& options);

}  // namespace headstart::learn
