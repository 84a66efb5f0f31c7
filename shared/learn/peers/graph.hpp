// Who exchanges with whom where there is no server, and the weights by which neighbours average.
// Weights: Xiao, Boyd & Lall 2005 ("Metropolis"); small worlds: Watts & Strogatz 1998. Plain C++, without LibTorch.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/fields.hpp"
#include "shared/base/seed.hpp"

namespace headstart::learn {

/// A place in the list of peers.
using PeerIndex = std::int64_t;
using Edge = std::pair<PeerIndex, PeerIndex>;

/// An undirected graph over the peers 0 to n-1. It may be in pieces.
class PeerGraph {
 public:
  /// Throws Error(usage) naming the edge: one to a peer that does not exist, one of a peer to itself, one that is named
  /// twice, whichever end comes first. Also for less than one peer.
  PeerGraph(std::int64_t num_peers, std::vector<Edge> edges);

  [[nodiscard]] std::int64_t num_peers() const { return static_cast<std::int64_t>(neighbours_.size()); }
  /// The smaller end first, ascending.
  [[nodiscard]] const std::vector<Edge>& edges() const { return edges_; }
  /// Ascending, without the peer itself.
  [[nodiscard]] const std::vector<PeerIndex>& neighbours(PeerIndex peer) const;
  [[nodiscard]] std::int64_t degree(PeerIndex peer) const { return std::ssize(neighbours(peer)); }

  [[nodiscard]] bool is_connected() const { return components().size() == 1; }
  /// The pieces: ascending within a piece, ordered by their smallest peer.
  [[nodiscard]] std::vector<std::vector<PeerIndex>> components() const;

  bool operator==(const PeerGraph&) const = default;

 private:
  std::vector<Edge> edges_;
  std::vector<std::vector<PeerIndex>> neighbours_;
};

struct GraphOptions {
  std::string kind = "full";    ///< Of graph_words().
  std::int64_t degree = 4;      ///< regular: neighbours of each peer. small-world: those before rewiring, even.
  double rewiring = 0.2;        ///< small-world: the chance of an edge to get another end.
  double edge_probability = 0;  ///< erdos-renyi: the chance of each edge. 0: 2 ln n / n, at most 1.
  std::string edges;            ///< edges: "0-1,1-2".
};

/// The kinds, in the order of the help.
std::vector<std::string> graph_words();

/// "PREFIX.kind", "PREFIX.degree", ... Messages of make_graph() name them under "graph".
void declare_fields(Fields& fields, const std::string& prefix, GraphOptions& options);

/// Always connected. Random kinds are drawn again, at most 1,000 times, until they are. The same seed gives the same
/// graph on every machine. Throws Error(usage) naming the setting: a graph that cannot be, an edge list in pieces, or
/// no connected draw.
PeerGraph make_graph(const GraphOptions& options, std::int64_t num_peers, Seed seed);

/// The largest denominator of weights: WeightedMean counts no more examples. Where nobody has more than 35 neighbours,
/// all denominators stay below it, as lcm(1, ..., 36) < 2^50; where all have equally many, they are degree + 1.
inline constexpr std::int64_t max_denominator = std::int64_t{1} << 50;

/// Row i of the Metropolis weights: w_ij = 1 / (1 + max(d_i, d_j)) for each neighbour j, the rest for i itself.
/// As integers n_j = N w_ij over the least common denominator N, so that they may be numbers of examples.
struct MixingWeights {
  struct Share {
    PeerIndex peer;
    std::int64_t numerator;  ///< At least 1.
    bool operator==(const Share&) const = default;
  };
  std::vector<Share> shares;     ///< Ascending by peer, the peer itself among them.
  std::int64_t denominator = 1;  ///< The sum of the numerators.
};

/// Throws Error(usage) where the denominator would exceed max_denominator.
MixingWeights mixing_weights(const PeerGraph& graph, PeerIndex peer);

/// All rows: symmetric and doubly stochastic. n^2 numbers.
std::vector<std::vector<double>> mixing_matrix(const PeerGraph& graph);

/// The second largest modulus among the eigenvalues of mixing_matrix(): the factor by which a round of averaging
/// shrinks disagreement. 0 for one peer, 1 for a graph in pieces, each but for rounding. n^3 steps.
double second_eigenvalue(const PeerGraph& graph);

/// Rounds of averaging until disagreement falls 1,000-fold: ceil(ln 1000 / -ln eigenvalue), at least 1. Throws
/// Error(usage) for 1, within 1e-12: pieces never agree.
std::int64_t rounds_to_agree(double eigenvalue);

}  // namespace headstart::learn
