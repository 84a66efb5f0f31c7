#include "shared/learn/peers/graph.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

using test::error_of;

namespace {

using Edges = std::vector<Edge>;
using Row = std::vector<double>;
using Shares = std::vector<MixingWeights::Share>;

constexpr std::uint64_t num_seeds = 20;

PeerGraph graph_of(const GraphOptions& options, std::int64_t num_peers, std::uint64_t seed = 1) {
  return make_graph(options, num_peers, Seed(seed));
}

PeerGraph path_of(std::int64_t num_peers) {
  Edges edges;
  for (PeerIndex i = 1; i < num_peers; ++i) edges.emplace_back(i - 1, i);
  return {num_peers, edges};
}

std::string refusal_of(std::int64_t num_peers, const Edges& edges) {
  return error_of(Errc::usage, [&] { PeerGraph(num_peers, edges); });
}

std::string refusal_of(const GraphOptions& options, std::int64_t num_peers) {
  return error_of(Errc::usage, [&] { graph_of(options, num_peers); });
}

std::int64_t rounds_of(const PeerGraph& graph) { return rounds_to_agree(second_eigenvalue(graph)); }

void check_rows(const std::vector<Row>& found, const std::vector<Row>& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    REQUIRE(found[i].size() == expected[i].size());
    for (std::size_t j = 0; j < found.size(); ++j) CHECK(std::abs(found[i][j] - expected[i][j]) < 1e-15);
  }
}

/// Symmetric and doubly stochastic, in integers; the matrix says the same.
void check_weights(const PeerGraph& graph) {
  std::vector<MixingWeights> rows;
  for (PeerIndex i = 0; i < graph.num_peers(); ++i) rows.push_back(mixing_weights(graph, i));
  const std::vector<Row> matrix = mixing_matrix(graph);
  const auto share_of = [&](PeerIndex i, PeerIndex j) {
    const Shares& shares = rows[static_cast<std::size_t>(i)].shares;
    const auto found = std::ranges::lower_bound(shares, j, {}, &MixingWeights::Share::peer);
    return found != shares.end() && found->peer == j ? found->numerator : 0;
  };
  for (PeerIndex i = 0; i < graph.num_peers(); ++i) {
    const auto& [shares, denominator] = rows[static_cast<std::size_t>(i)];
    CHECK(denominator <= max_denominator);
    std::int64_t sum = 0;
    std::int64_t common = denominator;
    for (const auto& [peer, numerator] : shares) {
      CHECK(numerator > 0);
      sum += numerator;
      common = std::gcd(common, numerator);
    }
    // A row that sums to 1, and with its mirror image the column; no smaller denominator would do.
    CHECK(sum == denominator);
    CHECK(common == 1);
    CHECK(shares.size() == graph.neighbours(i).size() + 1);
    CHECK(std::ranges::is_sorted(shares, {}, &MixingWeights::Share::peer));
    for (PeerIndex j = 0; j < graph.num_peers(); ++j) {
      const std::int64_t mirrored = rows[static_cast<std::size_t>(j)].denominator;
      __extension__ using Wide = __int128;
      CHECK(Wide{share_of(i, j)} * mirrored == Wide{share_of(j, i)} * denominator);
      const double weight = static_cast<double>(share_of(i, j)) / static_cast<double>(denominator);
      CHECK(std::abs(matrix[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] - weight) < 1e-14);
      CHECK(matrix[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] ==
            matrix[static_cast<std::size_t>(j)][static_cast<std::size_t>(i)]);
    }
  }
}

void check_draw(const PeerGraph& graph, std::int64_t num_peers) {
  CHECK(graph.num_peers() == num_peers);
  CHECK(graph.is_connected());
  std::int64_t sum = 0;
  for (PeerIndex i = 0; i < num_peers; ++i) sum += graph.degree(i);
  CHECK(sum == 2 * std::ssize(graph.edges()));
  check_weights(graph);
}

}  // namespace

TEST_CASE("a graph of peers: edges in one order, neighbours, pieces") {
  const PeerGraph graph(6, {{4, 2}, {1, 0}, {2, 1}, {3, 5}});
  CHECK(graph.num_peers() == 6);
  CHECK(graph.edges() == Edges{{0, 1}, {1, 2}, {2, 4}, {3, 5}});
  CHECK(graph.neighbours(2) == std::vector<PeerIndex>{1, 4});
  CHECK(graph.degree(2) == 2);
  CHECK(graph.degree(5) == 1);
  CHECK(graph.components() == std::vector<std::vector<PeerIndex>>{{0, 1, 2, 4}, {3, 5}});
  CHECK_FALSE(graph.is_connected());
  CHECK(graph == PeerGraph(6, {{5, 3}, {4, 2}, {1, 2}, {0, 1}}));
  CHECK(graph != PeerGraph(7, graph.edges()));

  const PeerGraph alone(1, {});
  CHECK(alone.is_connected());
  CHECK(alone.degree(0) == 0);
  CHECK_FALSE(PeerGraph(2, {}).is_connected());
  CHECK(test::code_of([&] { (void)graph.neighbours(6); }) == Errc::internal);
  CHECK(test::code_of([&] { (void)graph.degree(-1); }) == Errc::internal);
}

TEST_CASE("a graph of peers: refused edges are named") {
  CHECK(refusal_of(5, {{0, 1}, {3, 9}}) == "edge 3-9 of a graph: there is no peer 9, expected 0 to 4");
  CHECK(refusal_of(5, {{-1, 2}}) == "edge -1-2 of a graph: there is no peer -1, expected 0 to 4");
  CHECK(refusal_of(5, {{2, 2}}) == "edge 2-2 of a graph: expected two different peers");
  CHECK(refusal_of(5, {{0, 1}, {1, 0}}) == "edge 0-1 of a graph: it is named twice");
  CHECK(refusal_of(5, {{0, 1}, {2, 3}, {0, 1}}) == "edge 0-1 of a graph: it is named twice");
  CHECK(refusal_of(0, {}) == "a graph of 0 peers: expected at least 1");
}

TEST_CASE("a graph of peers: kinds without chance") {
  CHECK(graph_of({.kind = "full"}, 4).edges() == Edges{{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}});
  CHECK(graph_of({.kind = "full"}, 2).edges() == Edges{{0, 1}});
  CHECK(graph_of({.kind = "ring"}, 4).edges() == Edges{{0, 1}, {0, 3}, {1, 2}, {2, 3}});
  CHECK(graph_of({.kind = "ring"}, 3) == graph_of({.kind = "full"}, 3));
  CHECK(graph_of({.kind = "star"}, 4).edges() == Edges{{0, 1}, {0, 2}, {0, 3}});
  CHECK(graph_of({.kind = "edges", .edges = "2-1,0-1"}, 3) == path_of(3));
}

TEST_CASE("a graph of peers: what cannot be is refused, with setting, expected and got") {
  CHECK(refusal_of({.kind = "wheel"}, 4) ==
        "graph.kind 'wheel': expected one of full, ring, star, regular, small-world, erdos-renyi, edges");
  CHECK(refusal_of({.kind = "full"}, 1) == "graph.kind full of 1 peers: expected at least 2");
  CHECK(refusal_of({.kind = "ring"}, 2) == "graph.kind ring of 2 peers: expected at least 3");

  CHECK(refusal_of({.kind = "regular", .degree = 4}, 4) == "graph.degree 4, regular, of 4 peers: expected 2 to 3");
  CHECK(refusal_of({.kind = "regular", .degree = 3}, 7) ==
        "graph.degree 3, regular, of 7 peers: expected an even degree, as the number of peers is odd");
  CHECK(refusal_of({.kind = "regular", .degree = 1}, 4) == "graph.degree 1, regular, of 4 peers: expected 2 to 3");
  CHECK(graph_of({.kind = "regular", .degree = 1}, 2).edges() == Edges{{0, 1}});

  CHECK(refusal_of({.kind = "small-world", .degree = 4}, 4) ==
        "graph.degree 4, small-world, of 4 peers: expected an even number, 2 to 3");
  CHECK(refusal_of({.kind = "small-world", .degree = 3}, 9) ==
        "graph.degree 3, small-world, of 9 peers: expected an even number, 2 to 8");
  CHECK(refusal_of({.kind = "small-world", .rewiring = 1.5}, 9) == "graph.rewiring 1.5: expected 0 to 1");
  CHECK(refusal_of({.kind = "erdos-renyi", .edge_probability = NAN}, 9) ==
        "graph.edge_probability nan: expected 0 to 1");
  CHECK(refusal_of({.kind = "erdos-renyi", .edge_probability = 1e-6}, 9) ==
        "graph.kind erdos-renyi of 9 peers: none of 1000 draws is a graph in one piece; take a higher "
        "graph.edge_probability");

  CHECK(refusal_of({.kind = "edges", .edges = "0-1,2-3"}, 4) ==
        "graph.edges leaves no path from peer 0 to peer 2: expected a graph in one piece, got 2");
  for (const std::string piece : {"", "1", "1-", "-1", "0--1", "1-2-3", "a-b", " 0-1", "1-99999999999999999999"}) {
    CHECK(refusal_of({.kind = "edges", .edges = "0-1," + piece}, 3) ==
          fmt::format("graph.edges '{}': expected two peers, as in '0-1,1-2'", piece));
  }
  CHECK(refusal_of({.kind = "edges", .edges = "0-1,1-3"}, 3) ==
        "edge 1-3 of a graph: there is no peer 3, expected 0 to 2");
}

TEST_CASE("a graph of peers: settings") {
  GraphOptions options;
  Fields fields;
  declare_fields(fields, "graph", options);
  for (const std::string set : {"graph.kind=small-world", "graph.degree=6", "graph.rewiring=0.5",
                                "graph.edge_probability=0.25", "graph.edges=0-1,1-2"}) {
    fields.set(set);
  }
  CHECK(options.kind == "small-world");
  CHECK(options.degree == 6);
  CHECK(options.rewiring == 0.5);
  CHECK(options.edge_probability == 0.25);
  CHECK(options.edges == "0-1,1-2");
  CHECK(test::code_of([&] { fields.set("graph.kind=wheel"); }) == Errc::usage);
  CHECK(test::code_of([&] { fields.set("graph.rewiring=2"); }) == Errc::usage);
}

TEST_CASE("random graphs of peers: connected, as dense as asked for, with doubly stochastic weights") {
  for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
    CAPTURE(seed);
    for (const auto& [n, degree] :
         Edges{{3, 2}, {5, 4}, {8, 3}, {10, 4}, {10, 5}, {10, 7}, {10, 8}, {10, 9}, {21, 10}}) {
      CAPTURE(n);
      CAPTURE(degree);
      const PeerGraph graph = graph_of({.kind = "regular", .degree = degree}, n, seed);
      check_draw(graph, n);
      for (PeerIndex i = 0; i < n; ++i) CHECK(graph.degree(i) == degree);
      CHECK(mixing_weights(graph, 0).denominator == degree + 1);
    }
    for (const auto& [n, degree] : Edges{{3, 2}, {5, 4}, {6, 4}, {10, 2}, {20, 4}}) {
      for (const double rewiring : {0.0, 0.2, 1.0}) {
        CAPTURE(n);
        CAPTURE(degree);
        CAPTURE(rewiring);
        const PeerGraph graph = graph_of({.kind = "small-world", .degree = degree, .rewiring = rewiring}, n, seed);
        check_draw(graph, n);
        CHECK(2 * std::ssize(graph.edges()) == n * degree);
        // Each peer keeps the near ends of its own edges.
        for (PeerIndex i = 0; i < n; ++i) CHECK(graph.degree(i) >= degree / 2);
        if (rewiring == 0) CHECK(graph.degree(0) == degree);
      }
    }
    for (const std::int64_t n : {2, 3, 10, 40}) check_draw(graph_of({.kind = "erdos-renyi"}, n, seed), n);
    CHECK(graph_of({.kind = "erdos-renyi", .edge_probability = 1}, 9, seed) == graph_of({.kind = "full"}, 9));
  }
}

TEST_CASE("random graphs of peers: each edge as likely as it should be") {
  constexpr std::int64_t n = 60;
  constexpr double pairs = n * (n - 1) / 2.0;
  double of_erdos_renyi = 0;
  double of_first_peer = 0;
  std::vector<double> of_regular(n, 0.0);
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const PeerGraph graph = graph_of({.kind = "erdos-renyi", .edge_probability = 0.3}, n, seed);
    of_erdos_renyi += static_cast<double>(graph.edges().size()) / 200;
    of_first_peer += static_cast<double>(graph.degree(0)) / 200;
    const PeerGraph regular = graph_of({.kind = "regular", .degree = 6}, n, seed);
    for (const PeerIndex neighbour : regular.neighbours(0)) ++of_regular[static_cast<std::size_t>(neighbour)];
  }
  // Five deviations of each mean.
  CHECK(std::abs(of_erdos_renyi - pairs * 0.3) < 5 * std::sqrt(pairs * 0.3 * 0.7 / 200));
  CHECK(std::abs(of_first_peer - (n - 1) * 0.3) < 5 * std::sqrt((n - 1) * 0.3 * 0.7 / 200));
  for (std::size_t i = 1; i < n; ++i) CHECK(std::abs(of_regular[i] - 200 * 6.0 / 59) < 5 * std::sqrt(200 * 6.0 / 59));
}

TEST_CASE("random graphs of peers: golden edges") {
  const nlohmann::json graphs = read_json("tests/golden/peer_graphs.json");
  REQUIRE(graphs.size() == 24);
  for (const nlohmann::json& golden : graphs) {
    CAPTURE(golden.dump());
    const GraphOptions options{.kind = golden.at("kind"),
                               .degree = golden.value("degree", std::int64_t{4}),
                               .rewiring = golden.value("rewiring", 0.2),
                               .edge_probability = golden.value("edge_probability", 0.0)};
    const PeerGraph graph = graph_of(options, golden.at("peers"), golden.at("seed"));
    CHECK(graph.edges() == golden.at("edges").get<Edges>());
    CHECK(graph == graph_of(options, golden.at("peers"), golden.at("seed")));
    // Of fewer peers there are so few graphs that two seeds may meet.
    if (golden.at("peers") == 12) CHECK(graph != graph_of(options, 12, 100));
  }
}

TEST_CASE("Metropolis weights: a path and a star") {
  const PeerGraph path = path_of(3);
  check_rows(mixing_matrix(path), {{2.0 / 3, 1.0 / 3, 0}, {1.0 / 3, 1.0 / 3, 1.0 / 3}, {0, 1.0 / 3, 2.0 / 3}});
  CHECK(mixing_weights(path, 0).shares == Shares{{0, 2}, {1, 1}});
  CHECK(mixing_weights(path, 1).shares == Shares{{0, 1}, {1, 1}, {2, 1}});
  CHECK(mixing_weights(path, 2).shares == Shares{{1, 1}, {2, 2}});
  CHECK(mixing_weights(path, 2).denominator == 3);

  const PeerGraph star = graph_of({.kind = "star"}, 4);
  check_rows(mixing_matrix(star),
             {{0.25, 0.25, 0.25, 0.25}, {0.25, 0.75, 0, 0}, {0.25, 0, 0.75, 0}, {0.25, 0, 0, 0.75}});
  CHECK(mixing_weights(star, 0).shares == Shares{{0, 1}, {1, 1}, {2, 1}, {3, 1}});
  CHECK(mixing_weights(star, 3).shares == Shares{{0, 1}, {3, 3}});
  CHECK(mixing_weights(star, 3).denominator == 4);

  // PeerIndex 2 has three neighbours: 1/4 for each of them, and 1/3 for the two others among themselves.
  const PeerGraph mixed(4, {{0, 1}, {0, 2}, {1, 2}, {2, 3}});
  CHECK(mixing_weights(mixed, 0).shares == Shares{{0, 5}, {1, 4}, {2, 3}});
  CHECK(mixing_weights(mixed, 0).denominator == 12);
  check_weights(mixed);
  CHECK(mixing_weights(PeerGraph(1, {}), 0).shares == Shares{{0, 1}});
}

TEST_CASE("Metropolis weights: eigenvalues and rounds of rings, stars and full graphs") {
  struct Known {
    std::int64_t n;
    double ring;
    std::int64_t rounds_of_ring, rounds_of_star;
  };
  for (const Known& known :
       {Known{10, 0.872678, 51, 66}, Known{20, 0.967371, 209, 135}, Known{50, 0.994743, 1311, 342}}) {
    const auto n = static_cast<double>(known.n);
    const PeerGraph ring = graph_of({.kind = "ring"}, known.n);
    CHECK(std::abs(second_eigenvalue(ring) - known.ring) < 5e-7);
    CHECK(std::abs(second_eigenvalue(ring) - (1 + 2 * std::cos(2 * M_PI / n)) / 3) < 1e-12);
    CHECK(rounds_of(ring) == known.rounds_of_ring);
    CHECK(mixing_weights(ring, 0).shares == Shares{{0, 1}, {1, 1}, {known.n - 1, 1}});
    check_weights(ring);

    const PeerGraph star = graph_of({.kind = "star"}, known.n);
    CHECK(std::abs(second_eigenvalue(star) - (1 - 1 / n)) < 1e-12);
    CHECK(rounds_of(star) == known.rounds_of_star);
    check_weights(star);

    const PeerGraph full = graph_of({.kind = "full"}, known.n);
    CHECK(second_eigenvalue(full) < 1e-12);
    CHECK(rounds_of(full) == 1);
    for (const auto& [peer, numerator] : mixing_weights(full, 3).shares) CHECK(numerator == 1);
    CHECK(mixing_weights(full, 3).denominator == known.n);
  }
  // The ring of four: 1, 1/3, 1/3 and -1/3.
  CHECK(std::abs(second_eigenvalue(graph_of({.kind = "ring"}, 4)) - 1.0 / 3) < 1e-12);
  CHECK(second_eigenvalue(PeerGraph(1, {})) == 0);
  CHECK(rounds_to_agree(0) == 1);
  CHECK(rounds_to_agree(0.001) == 1);
  CHECK(rounds_to_agree(0.1) == 3);
  CHECK(std::abs(second_eigenvalue(PeerGraph(5, {{0, 1}, {2, 3}, {3, 4}})) - 1) < 1e-12);
  CHECK(error_of(Errc::usage, [] { rounds_to_agree(1); }) ==
        "averaging with a second eigenvalue of 1 never agrees: expected a graph in one piece");
  CHECK(error_of(Errc::usage, [] { rounds_of(PeerGraph(5, {{0, 1}, {2, 3}, {3, 4}})); }) != "(no error)");
}

TEST_CASE("Metropolis weights: averaging agrees as fast as the eigenvalue says") {
  const PeerGraph ring = graph_of({.kind = "ring"}, 20);
  const std::vector<Row> matrix = mixing_matrix(ring);
  // The slowest disagreement of a ring is a wave round it.
  Row values(20);
  for (std::size_t i = 0; i < 20; ++i) values[i] = 5 + std::cos(2 * M_PI * static_cast<double>(i) / 20);
  for (std::int64_t round = 0; round < rounds_of(ring); ++round) {
    Row next(20, 0.0);
    for (std::size_t i = 0; i < 20; ++i) {
      for (std::size_t j = 0; j < 20; ++j) next[i] += matrix[i][j] * values[j];
    }
    values = next;
    if (round == rounds_of(ring) - 2) CHECK(values[0] - 5 > 0.001);
  }
  CHECK(values[0] - 5 <= 0.001);
  CHECK(std::accumulate(values.begin(), values.end(), 0.0) == doctest::Approx(100));
}

TEST_CASE("Metropolis weights: random graphs mix as those of NetworkX do") {
  struct Known {
    std::string kind;
    std::int64_t n;
    double mean, deviation;  ///< Of the second eigenvalue over 200 connected draws of NetworkX 3.6.1.
    double ours;             ///< The mean of seeds 0 to 19, as in shared/learn/README.md.
    std::int64_t rounds;     ///< At that mean.
  };
  for (const Known& known :
       {Known{"regular", 10, 0.613, 0.061, 0.5867, 13}, Known{"regular", 20, 0.776, 0.036, 0.7800, 28},
        Known{"regular", 50, 0.851, 0.018, 0.8587, 46}, Known{"small-world", 10, 0.724, 0.053, 0.7095, 21},
        Known{"small-world", 20, 0.882, 0.026, 0.8942, 62}, Known{"small-world", 50, 0.944, 0.014, 0.9441, 121},
        Known{"erdos-renyi", 10, 0.772, 0.083, 0.7654, 26}, Known{"erdos-renyi", 20, 0.804, 0.058, 0.7903, 30},
        Known{"erdos-renyi", 50, 0.814, 0.051, 0.8078, 33}}) {
    CAPTURE(known.kind);
    CAPTURE(known.n);
    double mean = 0;
    for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
      mean += second_eigenvalue(graph_of({.kind = known.kind}, known.n, seed)) / num_seeds;
    }
    // Four deviations of a mean of 20.
    CHECK(std::abs(mean - known.mean) < 4 * known.deviation / std::sqrt(double{num_seeds}));
    CHECK(std::abs(mean - known.ours) < 5e-5 + 1e-9);
    CHECK(rounds_to_agree(mean) == known.rounds);
  }
}

TEST_CASE("Metropolis weights: denominators stay within what can be summed") {
  // A centre whose neighbours have `first` to `last` neighbours, most of them leaves of their own.
  const auto flower = [](std::int64_t first, std::int64_t last) {
    Edges edges;
    PeerIndex next = 1;
    for (std::int64_t degree = first; degree <= last; ++degree) {
      const PeerIndex petal = next++;
      edges.emplace_back(0, petal);
      for (std::int64_t leaf = 1; leaf < degree; ++leaf) edges.emplace_back(petal, next++);
    }
    return PeerGraph(next, edges);
  };
  // lcm(19, ..., 36) = lcm(1, ..., 36), the largest of at most 35 neighbours.
  const PeerGraph largest = flower(18, 35);
  CHECK(mixing_weights(largest, 0).denominator == 144403552893600);
  const auto& shares = mixing_weights(largest, 0).shares;
  CHECK(std::accumulate(shares.begin(), shares.end(), std::int64_t{0},
                        [](std::int64_t sum, const auto& share) { return sum + share.numerator; }) == 144403552893600);
  CHECK(error_of(Errc::usage, [&] { mixing_weights(flower(19, 37), 0); }) ==
        "peer 0 of 19 neighbours: the denominator of its weights exceeds 2^50; take a graph of at most 35 neighbours a "
        "peer, or of equally many");
  CHECK(test::code_of([&] { mixing_weights(flower(60, 130), 0); }) == Errc::usage);
  CHECK(mixing_weights(graph_of({.kind = "star"}, 1000), 7).denominator == 1000);
  CHECK(mixing_weights(graph_of({.kind = "full"}, 100), 7).denominator == 100);
}

}  // namespace headstart::learn
