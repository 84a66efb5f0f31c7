#include "shared/learn/peers/peer_method.hpp"

#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

std::vector<std::string> method_words() {
  std::vector<std::string> words;
  for (const PeerMethodRow& row : peer_methods()) words.emplace_back(row.name);
  return words;
}

}  // namespace

StateDict PeerMethod::start(const Peer& peer) const { return peer.pretrained; }

StateDict PeerMethod::prepare(const Peer&, StateDict state, std::int64_t, const PeerWork&) const { return state; }

std::vector<std::string> PeerMethod::recipients(const Peer& peer, std::int64_t) const { return peer.neighbours; }

StateDict PeerMethod::message(const Peer&, const StateDict& state, std::int64_t) const { return state; }

StateDict PeerMethod::model(const StateDict& state) const { return state; }

Head PeerMethod::answering(std::int64_t) const { return Head::first; }

std::span<const PeerMethodRow> peer_methods() {
  static constexpr std::array rows = {
      PeerMethodRow{.name = "kd",
                    .sentence = "distils the neighbours' models into its own, on its own samples",
                    .make = make_peer_distillation,
                    .needs_second_head = true},
      PeerMethodRow{.name = "alone",
                    .sentence = "trains as long as kd on its own labels, and sends nothing: the control",
                    .make = make_alone,
                    .needs_second_head = true,
                    .ignores_graph = true},
      PeerMethodRow{.name = "gossip",
                    .sentence = "trains, and averages its model with its neighbours' by Metropolis weights",
                    .make = make_gossip},
      PeerMethodRow{.name = "def-kt",
                    .sentence = "in pairs of neighbours, drawn each round, one trains and sends its model; the other "
                                "trains both by mutual learning and keeps the one that came",
                    .make = make_def_kt},
      PeerMethodRow{.name = "proxyfl",
                    .sentence = "trains its model with a proxy, by mutual learning, and passes the proxy on round a "
                                "ring of all peers, 1, 2, 4, ... places further; it does not use the graph, and adds "
                                "no noise (no differential privacy)",
                    .make = make_proxyfl,
                    .ignores_graph = true},
      PeerMethodRow{.name = "fedmd",
                    .sentence = "fits the mean of its own and its neighbours' logits on public samples, then trains",
                    .make = make_fedmd,
                    .needs_public_set = true}};
  return rows;
}

const PeerMethodRow& peer_method_row(std::string_view name) {
  for (const PeerMethodRow& row : peer_methods()) {
    if (row.name == name) return row;
  }
  throw Error(Errc::usage, fmt::format("peers.method '{}': expected one of {}", name, fmt::join(method_words(), ", ")));
}

void declare_fields(Fields& fields, PeerOptions& options) {
  fields.group("peers", "How peers learn from each other");
  std::string sentence = "What a peer makes of its neighbours' messages.";
  for (const PeerMethodRow& row : peer_methods()) sentence += fmt::format(" {}: {}.", row.name, row.sentence);
  fields.word("peers.method", options.method, std::move(sentence), method_words());
  fields.integer("peers.rounds", options.rounds, "Rounds of exchange.", {.min = 1, .max = 1e6});
  fields.choice("peers.trains", options.trains,
                "kd, alone: what training through the second head changes. all: every parameter. head: the head's "
                "own, and the rest stays as it was pre-trained.",
                Choices<Trains>(trains_words));
  fields.flag("peers.teaches_itself", options.teaches_itself,
              "kd: the peer's own model of the round before is one of its teachers.");
  fields.choice("peers.gossip_start", options.gossip_start,
                "gossip: begins from the same untrained model at all peers, or from each one's pre-trained model.",
                Choices<GossipStart>(gossip_start_words));
  fields.group("kd", "kd, alone: how a round distils");
  declare_fields(fields, "kd", options.kd);
  declare_fields(fields, "train", options.train);
  fields.group("proxyfl", "proxyfl: how a model and its proxy learn from each other");
  fields.number("proxyfl.alpha", options.proxyfl.alpha,
                "Weight of what the proxy says in the model's loss; the rest is the labels'.", {.min = 0, .max = 1});
  fields.number("proxyfl.beta", options.proxyfl.beta,
                "Weight of what the model says in the proxy's loss; the rest is the labels'.", {.min = 0, .max = 1});
  fields.group("fedmd", "fedmd: what a round fits");
  fields.integer("fedmd.public_samples", options.fedmd.public_samples,
                 "Public samples of a round, drawn anew each round. 0, or more than there are: all.",
                 {.min = 0, .max = 1e9});
  fields.integer("fedmd.private_epochs", options.fedmd.private_epochs,
                 "Epochs on a peer's own samples after the public ones. 0: none.", {.min = 0, .max = 1e6});
}

}  // namespace headstart::learn
