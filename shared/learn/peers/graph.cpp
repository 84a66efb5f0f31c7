#include "shared/learn/peers/graph.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string_view>

#include <ATen/Functions.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/error.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"

namespace headstart::learn {

static_assert(max_denominator == max_total_examples);

namespace {

constexpr int most_draws = 1000;

std::size_t place(PeerIndex peer) { return static_cast<std::size_t>(peer); }

Edge ordered(PeerIndex a, PeerIndex b) { return {std::min(a, b), std::max(a, b)}; }

void require(bool holds, const std::string& sentence) {
  if (!holds) throw Error(Errc::usage, sentence);
}

/// A random stream. What the engine gives is in the standard of C++, unlike what its distributions make of it.
class Stream {
 public:
  explicit Stream(Seed seed) : engine_(seed.value()) {}

  /// 0 to count-1, each as likely.
  PeerIndex below(PeerIndex count) {
    const auto size = static_cast<std::uint64_t>(count);
    const std::uint64_t uneven = (std::uint64_t{0} - size) % size;  // 2^64 mod size: so many draws are one too many.
    for (;;) {
      const std::uint64_t drawn = engine_();
      if (drawn >= uneven) return static_cast<PeerIndex>(drawn % size);
    }
  }

  /// In steps of 2^-32, so that no last bit of a logarithm makes another graph.
  bool happens(double chance) { return (engine_() >> 32) < static_cast<std::uint64_t>(std::llround(chance * 0x1p32)); }

  void shuffle(std::vector<PeerIndex>& peers) {
    for (PeerIndex i = std::ssize(peers) - 1; i > 0; --i) std::swap(peers[place(i)], peers[place(below(i + 1))]);
  }

 private:
  std::mt19937_64 engine_;
};

using Edges = std::vector<Edge>;

struct GraphKind {
  std::string_view name;
  /// Nothing where a draw led nowhere.
  std::optional<Edges> (*draw)(const GraphOptions& options, PeerIndex num_peers, Stream& stream);
  /// Throws Error(usage) for settings of which no graph comes.
  void (*check)(const GraphOptions& options, PeerIndex num_peers) = [](const GraphOptions&, PeerIndex) {};
  std::string_view advice = {};  ///< What makes connected draws likelier; empty: nothing is drawn.
};

std::optional<Edges> full_edges(const GraphOptions&, PeerIndex num_peers, Stream&) {
  Edges edges;
  for (PeerIndex i = 0; i < num_peers; ++i) {
    for (PeerIndex j = i + 1; j < num_peers; ++j) edges.emplace_back(i, j);
  }
  return edges;
}

void check_ring(const GraphOptions&, PeerIndex num_peers) {
  require(num_peers >= 3, fmt::format("graph.kind ring of {} peers: expected at least 3", num_peers));
}

std::optional<Edges> ring_edges(const GraphOptions&, PeerIndex num_peers, Stream&) {
  Edges edges;
  for (PeerIndex i = 0; i < num_peers; ++i) edges.emplace_back(i, (i + 1) % num_peers);
  return edges;
}

std::optional<Edges> star_edges(const GraphOptions&, PeerIndex num_peers, Stream&) {
  Edges edges;
  for (PeerIndex leaf = 1; leaf < num_peers; ++leaf) edges.emplace_back(0, leaf);
  return edges;
}

void check_regular(const GraphOptions& options, PeerIndex num_peers) {
  const std::string found = fmt::format("graph.degree {}, regular, of {} peers", options.degree, num_peers);
  // Peers of one neighbour are pairs.
  require(options.degree >= (num_peers == 2 ? 1 : 2) && options.degree < num_peers,
          fmt::format("{}: expected {} to {}", found, num_peers == 2 ? 1 : 2, num_peers - 1));
  require(num_peers % 2 == 0 || options.degree % 2 == 0,
          fmt::format("{}: expected an even degree, as the number of peers is odd", found));
}

/// Open ends are paired at random; those of pairs that cannot be are paired again.
std::optional<Edges> paired_ends(PeerIndex num_peers, std::int64_t degree, Stream& stream) {
  constexpr int most_idle_turns = 20;
  std::vector<PeerIndex> open;
  for (PeerIndex i = 0; i < num_peers; ++i) open.insert(open.end(), place(degree), i);
  std::set<Edge> edges;
  for (int idle = 0; !open.empty() && idle < most_idle_turns;) {
    stream.shuffle(open);
    std::vector<PeerIndex> left;
    for (std::size_t i = 0; i < open.size(); i += 2) {
      const Edge edge = ordered(open[i], open[i + 1]);
      const bool is_new = edge.first != edge.second && edges.insert(edge).second;
      if (!is_new) left.insert(left.end(), {open[i], open[i + 1]});
    }
    idle = left.size() < open.size() ? 0 : idle + 1;
    open = std::move(left);
  }
  if (!open.empty()) return std::nullopt;
  return Edges(edges.begin(), edges.end());
}

std::optional<Edges> regular_edges(const GraphOptions& options, PeerIndex num_peers, Stream& stream) {
  if (2 * options.degree <= num_peers - 1) return paired_ends(num_peers, options.degree, stream);
  // Pairing is slow where little is left to choose: the edges that are missing are fewer.
  const std::optional<Edges> missing = paired_ends(num_peers, num_peers - 1 - options.degree, stream);
  if (!missing) return std::nullopt;
  Edges edges;
  std::ranges::set_difference(*full_edges(options, num_peers, stream), *missing, std::back_inserter(edges));
  return edges;
}

void check_small_world(const GraphOptions& options, PeerIndex num_peers) {
  require(options.degree >= 2 && options.degree < num_peers && options.degree % 2 == 0,
          fmt::format("graph.degree {}, small-world, of {} peers: expected an even number, 2 to {}", options.degree,
                      num_peers, num_peers - 1));
  require(options.rewiring >= 0 && options.rewiring <= 1,
          fmt::format("graph.rewiring {}: expected 0 to 1", options.rewiring));
}

/// A ring on which everybody knows the next `degree` / 2 peers; then each edge gets another far end by chance, its near
/// ends in order, the shorter edges first.
std::optional<Edges> small_world_edges(const GraphOptions& options, PeerIndex num_peers, Stream& stream) {
  std::set<Edge> edges;
  for (PeerIndex reach = 1; reach <= options.degree / 2; ++reach) {
    for (PeerIndex i = 0; i < num_peers; ++i) edges.insert(ordered(i, (i + reach) % num_peers));
  }
  std::vector<std::int64_t> degrees(place(num_peers), options.degree);
  for (PeerIndex reach = 1; reach <= options.degree / 2; ++reach) {
    for (PeerIndex i = 0; i < num_peers; ++i) {
      if (!stream.happens(options.rewiring) || degrees[place(i)] == num_peers - 1) continue;
      const PeerIndex old_end = (i + reach) % num_peers;
      PeerIndex new_end = i;
      while (new_end == i || edges.contains(ordered(i, new_end))) new_end = stream.below(num_peers);
      edges.erase(ordered(i, old_end));
      edges.insert(ordered(i, new_end));
      --degrees[place(old_end)];
      ++degrees[place(new_end)];
    }
  }
  return Edges(edges.begin(), edges.end());
}

void check_erdos_renyi(const GraphOptions& options, PeerIndex) {
  require(options.edge_probability >= 0 && options.edge_probability <= 1,
          fmt::format("graph.edge_probability {}: expected 0 to 1", options.edge_probability));
}

std::optional<Edges> erdos_renyi_edges(const GraphOptions& options, PeerIndex num_peers, Stream& stream) {
  const auto n = static_cast<double>(num_peers);
  const double chance = options.edge_probability > 0 ? options.edge_probability : std::min(1.0, 2 * std::log(n) / n);
  Edges edges;
  for (PeerIndex i = 0; i < num_peers; ++i) {
    for (PeerIndex j = i + 1; j < num_peers; ++j) {
      if (stream.happens(chance)) edges.emplace_back(i, j);
    }
  }
  return edges;
}

/// -1 where it is no number.
PeerIndex peer_in(std::string_view text) {
  PeerIndex peer = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), peer);
  return code == std::errc() && end == text.data() + text.size() ? peer : -1;
}

std::optional<Edges> listed_edges(const GraphOptions& options, PeerIndex, Stream&) {
  Edges edges;
  std::string_view rest = options.edges;
  for (bool is_last = false; !is_last;) {
    const std::size_t comma = rest.find(',');
    is_last = comma == std::string_view::npos;
    const std::string_view piece = rest.substr(0, comma);
    if (!is_last) rest.remove_prefix(comma + 1);
    const std::size_t dash = piece.find('-');
    const PeerIndex first = peer_in(piece.substr(0, dash));
    const PeerIndex second = dash == std::string_view::npos ? -1 : peer_in(piece.substr(dash + 1));
    require(first >= 0 && second >= 0, fmt::format("graph.edges '{}': expected two peers, as in '0-1,1-2'", piece));
    edges.emplace_back(first, second);
  }
  return edges;
}

std::span<const GraphKind> graph_kinds() {
  static constexpr std::array kinds = {
      GraphKind{.name = "full", .draw = full_edges},
      GraphKind{.name = "ring", .draw = ring_edges, .check = check_ring},
      GraphKind{.name = "star", .draw = star_edges},
      GraphKind{
          .name = "regular", .draw = regular_edges, .check = check_regular, .advice = "a higher or lower graph.degree"},
      GraphKind{.name = "small-world",
                .draw = small_world_edges,
                .check = check_small_world,
                .advice = "a higher graph.degree or a lower graph.rewiring"},
      GraphKind{.name = "erdos-renyi",
                .draw = erdos_renyi_edges,
                .check = check_erdos_renyi,
                .advice = "a higher graph.edge_probability"},
      GraphKind{.name = "edges", .draw = listed_edges}};
  return kinds;
}

const GraphKind& kind_named(const std::string& name) {
  const auto kinds = graph_kinds();
  const auto kind = std::ranges::find(kinds, name, &GraphKind::name);
  require(kind != kinds.end(),
          fmt::format("graph.kind '{}': expected one of {}", name, fmt::join(graph_words(), ", ")));
  return *kind;
}

/// N w_ij is N / this.
std::int64_t denominator_of(const PeerGraph& graph, PeerIndex i, PeerIndex j) {
  return 1 + std::max(graph.degree(i), graph.degree(j));
}

}  // namespace

PeerGraph::PeerGraph(std::int64_t num_peers, std::vector<Edge> edges) : edges_(std::move(edges)) {
  require(num_peers >= 1, fmt::format("a graph of {} peers: expected at least 1", num_peers));
  const auto refuse = [](const Edge& edge, const std::string& why) {
    throw Error(Errc::usage, fmt::format("edge {}-{} of a graph: {}", edge.first, edge.second, why));
  };
  for (Edge& edge : edges_) {
    for (const PeerIndex end : {edge.first, edge.second}) {
      if (end >= 0 && end < num_peers) continue;
      refuse(edge, fmt::format("there is no peer {}, expected 0 to {}", end, num_peers - 1));
    }
    if (edge.first == edge.second) refuse(edge, "expected two different peers");
    edge = ordered(edge.first, edge.second);
  }
  std::ranges::sort(edges_);
  const auto twin = std::ranges::adjacent_find(edges_);
  if (twin != edges_.end()) refuse(*twin, "it is named twice");
  neighbours_.resize(place(num_peers));
  for (const auto& [first, second] : edges_) {
    neighbours_[place(first)].push_back(second);
    neighbours_[place(second)].push_back(first);
  }
  for (std::vector<PeerIndex>& list : neighbours_) std::ranges::sort(list);
}

const std::vector<PeerIndex>& PeerGraph::neighbours(PeerIndex peer) const {
  if (peer < 0 || peer >= num_peers()) {
    throw Error(Errc::internal, fmt::format("there is no peer {} in a graph of {}", peer, num_peers()));
  }
  return neighbours_[place(peer)];
}

std::vector<std::vector<PeerIndex>> PeerGraph::components() const {
  std::vector<std::vector<PeerIndex>> pieces;
  std::vector<bool> is_seen(neighbours_.size(), false);
  for (PeerIndex start = 0; start < num_peers(); ++start) {
    if (is_seen[place(start)]) continue;
    is_seen[place(start)] = true;
    std::vector<PeerIndex> piece = {start};
    for (std::size_t next = 0; next < piece.size(); ++next) {
      for (const PeerIndex neighbour : neighbours_[place(piece[next])]) {
        if (is_seen[place(neighbour)]) continue;
        is_seen[place(neighbour)] = true;
        piece.push_back(neighbour);
      }
    }
    std::ranges::sort(piece);
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

std::vector<std::string> graph_words() {
  std::vector<std::string> words;
  for (const GraphKind& kind : graph_kinds()) words.emplace_back(kind.name);
  return words;
}

void declare_fields(Fields& fields, const std::string& prefix, GraphOptions& options) {
  fields.group(prefix, "Who exchanges with whom");
  fields.word(prefix + ".kind", options.kind, "Who is whose neighbour.", graph_words());
  fields.integer(prefix + ".degree", options.degree,
                 "regular: neighbours of each peer. small-world: those before rewiring, an even number.",
                 {.min = 1, .max = 100000});
  fields.number(prefix + ".rewiring", options.rewiring,
                "small-world: the probability that an edge of the ring gets another end.", {.min = 0, .max = 1});
  fields.number(prefix + ".edge_probability", options.edge_probability,
                "erdos-renyi: the probability of each edge. 0: 2 ln n / n, of n peers.", {.min = 0, .max = 1});
  fields.text(prefix + ".edges", options.edges, "edges: pairs of peers, which count from 0, as in 0-1,1-2.");
}

PeerGraph make_graph(const GraphOptions& options, std::int64_t num_peers, Seed seed) {
  const GraphKind& kind = kind_named(options.kind);
  require(num_peers >= 2, fmt::format("graph.kind {} of {} peers: expected at least 2", kind.name, num_peers));
  kind.check(options, num_peers);
  const int num_draws = kind.advice.empty() ? 1 : most_draws;
  for (int draw = 0; draw < num_draws; ++draw) {
    Stream stream(seed.child("graph").child(static_cast<std::uint64_t>(draw)));
    std::optional<Edges> edges = kind.draw(options, num_peers, stream);
    if (!edges) continue;
    PeerGraph graph(num_peers, *std::move(edges));
    const std::vector<std::vector<PeerIndex>> pieces = graph.components();
    if (pieces.size() == 1) return graph;
    require(!kind.advice.empty(),
            fmt::format("graph.edges leaves no path from peer {} to peer {}: expected a graph in one piece, got {}",
                        pieces[0][0], pieces[1][0], pieces.size()));
  }
  throw Error(Errc::usage, fmt::format("graph.kind {} of {} peers: none of {} draws is a graph in one piece; take {}",
                                       kind.name, num_peers, num_draws, kind.advice));
}

MixingWeights mixing_weights(const PeerGraph& graph, PeerIndex peer) {
  MixingWeights weights;
  for (const PeerIndex neighbour : graph.neighbours(peer)) {
    const std::int64_t denominator = denominator_of(graph, peer, neighbour);
    const std::int64_t factor = denominator / std::gcd(weights.denominator, denominator);
    if (factor > max_denominator / weights.denominator) {
      throw Error(Errc::usage,
                  fmt::format("peer {} of {} neighbours: the denominator of its weights exceeds 2^50; take a graph of "
                              "at most 35 neighbours a peer, or of equally many",
                              peer, graph.degree(peer)));
    }
    weights.denominator *= factor;
  }
  std::int64_t own = weights.denominator;
  for (const PeerIndex neighbour : graph.neighbours(peer)) {
    const std::int64_t numerator = weights.denominator / denominator_of(graph, peer, neighbour);
    own -= numerator;
    weights.shares.push_back({neighbour, numerator});
  }
  weights.shares.insert(std::ranges::lower_bound(weights.shares, peer, {}, &MixingWeights::Share::peer), {peer, own});
  return weights;
}

std::vector<std::vector<double>> mixing_matrix(const PeerGraph& graph) {
  const std::size_t n = place(graph.num_peers());
  std::vector<std::vector<double>> matrix(n, std::vector<double>(n, 0.0));
  for (const auto& [i, j] : graph.edges()) {
    const double weight = 1.0 / static_cast<double>(denominator_of(graph, i, j));
    matrix[place(i)][place(j)] = matrix[place(j)][place(i)] = weight;
  }
  for (std::size_t i = 0; i < n; ++i) matrix[i][i] = 1 - std::accumulate(matrix[i].begin(), matrix[i].end(), 0.0);
  return matrix;
}

double second_eigenvalue(const PeerGraph& graph) {
  const std::int64_t n = graph.num_peers();
  if (n == 1) return 0;
  Tensor matrix = at::empty({n, n}, at::kDouble);
  auto* target = matrix.data_ptr<double>();
  for (const std::vector<double>& row : mixing_matrix(graph)) target = std::ranges::copy(row, target).out;
  // Ascending; the last is 1.
  const Tensor values = at::linalg_eigvalsh(matrix);
  return std::max(std::abs(values[0].item<double>()), std::abs(values[n - 2].item<double>()));
}

std::int64_t rounds_to_agree(double eigenvalue) {
  require(
      eigenvalue < 1 - 1e-12,
      fmt::format("averaging with a second eigenvalue of {} never agrees: expected a graph in one piece", eigenvalue));
  const double rounds = std::ceil(std::log(1000.0) / -std::log(eigenvalue));
  return std::max(std::int64_t{1}, static_cast<std::int64_t>(rounds));
}

}  // namespace headstart::learn
