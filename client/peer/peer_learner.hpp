// What a peer computes: its pre-training and the steps of its method, on its own samples. Knows no network and no files
// but the store of pre-trained models.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "client/peer/peer_config.hpp"
#include "client/peer/peers_file.hpp"
#include "client/silo.hpp"
#include "shared/learn/peers/peer_method.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::peer {

/// Calls come one at a time, on a compute thread. Work throws as PeerMethod's does.
class PeerLearner {
 public:
  /// Throws Error(usage | data) where data, model and peers.json do not fit.
  PeerLearner(const PeersFile& file, const std::string& name, const client::SiloOptions& silo, PeerData data);

  /// What is odd about the samples, in sentences.
  [[nodiscard]] const std::vector<std::string>& remarks() const { return silo_.remarks(); }
  /// What all peers must have alike beyond peers.json, by name: the model's schema, and the public samples.
  [[nodiscard]] std::map<std::string, std::string> digests();

  /// Pre-trains (or finds in the store) and returns the state before round 1.
  learn::StateDict start(const learn::PeerWork& work, const Clock& clock);
  learn::StateDict prepare(learn::StateDict state, std::int64_t round, const learn::PeerWork& work);
  [[nodiscard]] std::vector<std::string> recipients(std::int64_t round) const;
  learn::StateDict message(const learn::StateDict& state, std::int64_t round);
  learn::StateDict combine(learn::StateDict state, const learn::Parts& received, std::int64_t round,
                           const learn::PeerWork& work);

  /// Of the model in `state`, after `round`: `held_out` and, with test samples, `global` and `own`, each a list of
  /// accuracies (0..1) by head; `answering`: the place of the head that answers.
  nlohmann::json judge(const learn::StateDict& state, std::int64_t round);
  [[nodiscard]] learn::StateDict model(const learn::StateDict& state) const { return method_->model(state); }
  /// For the file of that model.
  [[nodiscard]] wire::Metadata metadata() const;
  [[nodiscard]] std::int64_t num_samples() const { return peer_.training.size(); }
  [[nodiscard]] const std::vector<std::string>& neighbours() const { return peer_.neighbours; }

 private:
  client::Silo silo_;
  plan::Terms terms_;
  learn::Peer peer_;
  std::unique_ptr<learn::PeerMethod> method_;
  std::optional<learn::Samples> test_;
  std::vector<std::int64_t> class_counts_;
};

}  // namespace headstart::peer
