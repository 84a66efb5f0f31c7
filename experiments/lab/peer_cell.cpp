#include "experiments/lab/peer_cell.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/peers/graph.hpp"
#include "shared/learn/peers/peer_method.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::lab {

namespace {

using learn::StateDict;
using learn::Tensor;
using nlohmann::json;

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::uint64_t bytes_of(const StateDict& state) { return state.schema().num_bytes(); }

/// What one round leaves, a number a peer.
struct RoundFigures {
  std::vector<double> global, own, loss, global_first, own_first, validation;
  std::vector<std::uint64_t> bytes;

  [[nodiscard]] json as_json() const {
    json figures = {{"global", global}, {"own", own}, {"loss", loss}, {"bytes", bytes}};
    if (!global_first.empty()) {
      figures["global_first"] = global_first;
      figures["own_first"] = own_first;
    }
    if (!validation.empty()) figures["validation"] = validation;
    return figures;
  }
  [[nodiscard]] json summary() const {
    const auto [worst, best] = std::ranges::minmax(global);
    return {{"global", mean_of(global)}, {"own", mean_of(own)}, {"spread", best - worst}};
  }
};

/// All peers of a cell and what each holds.
class Peers {
 public:
  Peers(Participants& participants, const PeerCell& cell, std::stop_token stop)
      : participants_(participants),
        cell_(cell),
        stop_(std::move(stop)),
        graph_(learn::make_graph(cell.settings.graph, participants.size(), participants.seeds().child("graph"))),
        method_(learn::peer_method_row(cell.settings.peers.method).make(cell.settings.peers)) {
    for (std::int64_t i = 0; i < participants.size(); ++i) peers_.push_back(peer_of(i));
  }

  json run() {
    json metrics = {{"edges", graph_.edges()}, {"peers", json::array()}, {"rounds", json::array()}};
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      metrics["peers"].push_back(
          {{"name", peers_[i].name}, {"num_samples", peers_[i].training.size()}, {"classes", class_counts_[i]}});
    }
    for (const learn::Peer& peer : peers_) states_.push_back(method_->start(peer));
    // Of the models that every peer has without the others, whatever the method begins from.
    const RoundFigures before = figures_of(pretrained(), 0, std::vector<std::uint64_t>(peers_.size(), 0));
    metrics["ensemble"] = ensemble_accuracy();
    metrics["rounds"].push_back(before.as_json());
    RoundFigures after = before;
    double bytes = 0;
    for (std::int64_t round = 1; round <= cell_.settings.peers.rounds; ++round) {
      after = run_round(round);
      metrics["rounds"].push_back(after.as_json());
      bytes += mean_of({after.bytes.begin(), after.bytes.end()});
    }
    for (const StateDict& state : states_) metrics["digests"].push_back(wire::PackedState(state).digest());
    metrics["before"] = before.summary();
    metrics["after"] = after.summary();
    metrics["gain"] = mean_of(after.global) - mean_of(before.global);
    metrics["bytes"] = bytes;
    return metrics;
  }

 private:
  learn::Peer peer_of(std::int64_t index) {
    const Participant& participant = participants_.at(index, stop_);
    learn::Peer peer;
    peer.name = participant.name;
    peer.seeds = participants_.seeds().child("client").child(participant.name);
    peer.run_seeds = participants_.seeds();
    peer.training = participant.training;
    peer.public_samples = participants_.public_large().x;
    peer.num_classes = participants_.num_classes();
    peer.pretrained = participant.state;
    peer.make_model = [this] { return participants_.untrained(); };
    for (std::int64_t i = 0; i < participants_.size(); ++i) peer.everyone.push_back(name_of(i));
    const learn::MixingWeights row = learn::mixing_weights(graph_, index);
    for (const auto& [other, weight] : row.shares) {
      peer.mixing[name_of(other)] = weight;
      if (other != index) peer.neighbours.push_back(name_of(other));
    }
    for (const auto& [one, other] : graph_.edges()) peer.edges.emplace_back(std::minmax(name_of(one), name_of(other)));
    std::ranges::sort(peer.edges);
    std::ranges::sort(peer.everyone);
    std::ranges::sort(peer.neighbours);
    const Tensor counts = at::bincount(peer.training.y.cpu(), {}, peer.num_classes);
    class_counts_.emplace_back(counts.data_ptr<std::int64_t>(), counts.data_ptr<std::int64_t>() + counts.numel());
    return peer;
  }
  std::string name_of(std::int64_t index) { return participants_.at(index, stop_).name; }

  RoundFigures run_round(std::int64_t round) {
    const learn::PeerWork work{.progress = {}, .stop = stop_};
    std::vector<learn::Parts> received(peers_.size());
    std::vector<std::uint64_t> bytes(peers_.size(), 0);
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      states_[i] = method_->prepare(peers_[i], std::move(states_[i]), round, work);
      const std::vector<std::string> recipients = method_->recipients(peers_[i], round);
      if (recipients.empty()) continue;
      const StateDict message = method_->message(peers_[i], states_[i], round);
      for (const std::string& recipient : recipients) {
        received[index_of(recipient)].emplace(peers_[i].name, message);
        bytes[i] += bytes_of(message);
      }
    }
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      states_[i] = method_->combine(peers_[i], std::move(states_[i]), received[i], round, work);
    }
    std::vector<StateDict> models;
    for (const StateDict& state : states_) models.push_back(method_->model(state));
    return figures_of(models, round, std::move(bytes));
  }

  std::size_t index_of(const std::string& name) const {
    const auto found = std::ranges::find(peers_, name, &learn::Peer::name);
    if (found == peers_.end()) throw Error(Errc::internal, "a message to nobody: " + name);
    return static_cast<std::size_t>(found - peers_.begin());
  }

  [[nodiscard]] std::vector<StateDict> pretrained() const {
    std::vector<StateDict> models;
    for (const learn::Peer& peer : peers_) models.push_back(peer.pretrained);
    return models;
  }

  RoundFigures figures_of(const std::vector<StateDict>& models, std::int64_t round, std::vector<std::uint64_t> bytes) {
    RoundFigures figures;
    figures.bytes = std::move(bytes);
    const auto network = participants_.untrained();
    const auto answering = static_cast<std::size_t>(method_->answering(round) == learn::Head::first ? 0 : 1);
    for (std::size_t i = 0; i < models.size(); ++i) {
      network->load(models[i]);
      const auto heads = learn::evaluate_heads(*network, participants_.test(), participants_.num_classes(), 256, stop_);
      const learn::Evaluation& answer = heads.at(answering);
      figures.global.push_back(answer.mean_class_accuracy());
      figures.own.push_back(answer.accuracy_on(class_counts_[i]));
      figures.loss.push_back(answer.loss());
      if (heads.size() > 1) {
        figures.global_first.push_back(heads.front().mean_class_accuracy());
        figures.own_first.push_back(heads.front().accuracy_on(class_counts_[i]));
      }
      if (participants_.validation().size() == 0) continue;
      const auto validated =
          learn::evaluate_heads(*network, participants_.validation(), participants_.num_classes(), 256, stop_);
      figures.validation.push_back(validated.at(answering).accuracy());
    }
    return figures;
  }

  double ensemble_accuracy() {
    const auto network = participants_.untrained();
    Tensor sum;
    for (const learn::Peer& peer : peers_) {
      network->load(peer.pretrained);
      const Tensor answers = learn::logits_of(*network, participants_.test().x, 256, stop_).softmax(1);
      sum = sum.defined() ? sum + answers : answers;
    }
    return learn::evaluate_logits(sum.log(), participants_.test().y.cpu(), participants_.num_classes())
        .mean_class_accuracy();
  }

  Participants& participants_;
  const PeerCell& cell_;
  std::stop_token stop_;
  learn::PeerGraph graph_;
  std::unique_ptr<learn::PeerMethod> method_;
  std::vector<learn::Peer> peers_;
  std::vector<std::vector<std::int64_t>> class_counts_;
  std::vector<StateDict> states_;
};

}  // namespace

json measure_peers(Participants& participants, const PeerCell& cell, std::stop_token stop) {
  return Peers(participants, cell, std::move(stop)).run();
}

}  // namespace headstart::lab
