#include "experiments/lab/peer_study.hpp"

#include <algorithm>
#include <map>
#include <set>

#include <doctest/doctest.h>

#include "experiments/lab/pair_study.hpp"
#include "shared/base/error.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::lab {
namespace {

using Rows = std::map<std::string, nlohmann::json>;

class SmallPeers {
 public:
  SmallPeers() {
    write(learn::Split::train, 400, Seed(1));
    write(learn::Split::test, 80, Seed(2));
    study.settings.data = {.set = "tensors", .path = (folder / "data").string()};
    study.settings.draws = {
        .validation = 40, .public_large = 40, .public_small = 0, .public_labeled = 0, .clients = 240, .test = 80};
    study.settings.partition.num_clients = 4;
    study.settings.partition.min_samples = 10;
    study.settings.model = test::small_spec(learn::Norm::none);
    study.settings.model.second_head = true;
    study.settings.pretrain.max_epochs = 2;
    study.settings.peers.kd.epochs = 1;
    study.settings.peers.train.epochs = 1;
    study.plan.partitions = {"uniform"};
    study.plan.measures = {"kl"};
  }

  Rows run(const std::string& name, Share share = {}) {
    const StudyData data = load_study_data(study.settings.data);
    StudyStore store(folder / name, description_of(study, data));
    StudyObserver silent;
    run_peer_study(study, data, store, {.share = share, .num_jobs = 2, .models = folder / "models"}, silent,
                   std::chrono::steady_clock::now, {});
    return rows_of(store);
  }
  static Rows rows_of(const StudyStore& store) {
    Rows rows;
    store.for_each_done([&rows](const DoneCell& done) { rows[done.cell.key] = done.result.metrics; });
    return rows;
  }

  test::TemporaryFolder folder;
  PeerStudy study;

 private:
  void write(learn::Split split, std::int64_t count, Seed seed) const {
    const learn::Samples samples = test::separable_samples(count, seed);
    std::vector<std::int64_t> all(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) all[static_cast<std::size_t>(i)] = i;
    const learn::Dataset dataset{.name = "separable", .images = samples.x, .labels = samples.y, .num_classes = 4};
    learn::save_tensors(dataset, all, split, folder / "data");
  }
};

double mean_of(const nlohmann::json& values) {
  double sum = 0;
  for (const auto& value : values) sum += value.get<double>();
  return sum / static_cast<double>(values.size());
}

TEST_CASE("peer study: every cell of the plan once, and what a row says adds up") {
  SmallPeers small;
  small.study.plan.graphs = {"full", "ring"};
  small.study.plan.measures = {"kl", "td"};
  small.study.plan.alphas = {0.2, 0.8};
  small.study.settings.peers.rounds = 2;
  const Rows rows = small.run("study.sqlite");
  CHECK(rows.size() == 2 * (4 + 1) + 1);  // alone is the same in every graph
  CHECK(rows.contains("uniform/seed-1/ring/kd/td/probabilities/alpha-0.8/T-1"));
  CHECK(rows.contains("uniform/seed-1/full/alone"));
  for (const auto& [key, metrics] : rows) {
    CAPTURE(key);
    const bool is_ring = key.find("/ring/") != std::string::npos;
    CHECK(metrics.at("edges").size() == (is_ring ? 4 : 6));
    CHECK(metrics.at("peers").size() == 4);
    const nlohmann::json& rounds = metrics.at("rounds");
    REQUIRE(rounds.size() == 3);
    CHECK(mean_of(rounds[0].at("global")) == doctest::Approx(metrics.at("before").at("global").get<double>()));
    CHECK(mean_of(rounds[2].at("own")) == doctest::Approx(metrics.at("after").at("own").get<double>()));
    CHECK(metrics.at("gain").get<double>() == doctest::Approx(metrics.at("after").at("global").get<double>() -
                                                              metrics.at("before").at("global").get<double>()));
    CHECK(metrics.at("bytes").get<double>() ==
          doctest::Approx(mean_of(rounds[1].at("bytes")) + mean_of(rounds[2].at("bytes"))));
    // Before anything is sent all methods stand where the peers' own models do.
    CHECK(rounds[0] == rows.at("uniform/seed-1/full/alone").at("rounds")[0]);
    if (key.ends_with("/alone")) CHECK(metrics.at("bytes") == 0);
  }
  // A peer sends its model to each neighbour: three in the full graph, two in the ring; without the untrained head
  // once.
  const auto bytes = [&rows](const char* graph, const char* method, int round) {
    return rows.at(std::string("uniform/seed-1/") + graph + "/" + method)
        .at("rounds")[round]
        .at("bytes")[0]
        .get<double>();
  };
  const char* kd = "kd/kl/probabilities/alpha-0.2/T-1";
  CHECK(bytes("full", kd, 1) * 2 == bytes("ring", kd, 1) * 3);
  CHECK(bytes("ring", kd, 2) == bytes("ring", "gossip", 2));
  CHECK(bytes("ring", kd, 1) < bytes("ring", kd, 2));
  CHECK(peer_summary(StudyStore(small.folder / "study.sqlite")).find("uniform/ring/gossip") != std::string::npos);
}

TEST_CASE("peer study: methods that pair peers, pass proxies on, or answer on public samples") {
  SmallPeers small;
  small.study.plan.graphs = {"full", "ring"};
  small.study.plan.methods = {"def-kt", "proxyfl", "fedmd", "gossip"};
  small.study.settings.peers.rounds = 2;
  small.study.settings.peers.train = {.optimizer = {.lr = 0.1}, .epochs = 4, .batch_size = 8};
  small.study.settings.peers.fedmd = {.public_samples = 30, .private_epochs = 4};
  const Rows rows = small.run("study.sqlite");
  CHECK(rows.size() == 2 * 3 + 1);  // proxyfl is the same in every graph
  const auto bytes = [&rows](const std::string& graph_and_method, std::size_t round) {
    return rows.at("uniform/seed-1/" + graph_and_method).at("rounds").at(round).at("bytes").get<std::vector<double>>();
  };
  const double model = bytes("ring/gossip", 1).front() / 2;
  for (const std::size_t round : {1U, 2U}) {
    // Two disjoint pairs in either graph of four: one model each.
    for (const char* def_kt : {"full/def-kt", "ring/def-kt"}) {
      std::vector<double> sent = bytes(def_kt, round);
      std::ranges::sort(sent);
      CHECK(sent == std::vector<double>({0, 0, model, model}));
    }
    CHECK(bytes("full/proxyfl", round) == std::vector<double>(4, model));
    CHECK(bytes("full/fedmd", round) == std::vector<double>(4, 3 * 30 * 4 * 4));
    CHECK(bytes("ring/fedmd", round) == std::vector<double>(4, 2 * 30 * 4 * 4));
  }
  for (const auto& [key, metrics] : rows) {
    CAPTURE(key);
    CHECK(metrics.at("rounds")[0] == rows.at("uniform/seed-1/ring/gossip").at("rounds")[0]);
    CHECK(metrics.at("after").at("global").get<double>() > 0.4);  // of four classes: every method trains
  }
  CHECK(peer_summary(StudyStore(small.folder / "study.sqlite")).find("uniform/ring/fedmd") != std::string::npos);
}

TEST_CASE("peer study: shares joined are the whole, and a cell is repeated from its row") {
  SmallPeers small;
  const Rows whole = small.run("whole.sqlite");
  const Rows first = small.run("0.sqlite", {0, 2});
  const Rows second = small.run("1.sqlite", {1, 2});
  CHECK(first.size() + second.size() == whole.size());
  StudyStore joined(small.folder / "joined.sqlite", StudyStore(small.folder / "0.sqlite").settings());
  for (const char* share : {"0.sqlite", "1.sqlite"}) joined.merge(StudyStore(small.folder / share));
  CHECK(SmallPeers::rows_of(joined) == whole);
  const StudyData data = load_study_data(small.study.settings.data);
  StudyStore(small.folder / "whole.sqlite").for_each_done([&](const DoneCell& done) {
    CHECK(is_peer_cell(done.cell));
    CHECK(to_cell(peer_cell_of(done.cell)).settings == done.cell.settings);
    // Without the store of pre-trained models, too.
    CHECK(compute_peer_cell(done.cell, data, small.folder / "no models", std::chrono::steady_clock::now).metrics ==
          done.result.metrics);
  });
}

TEST_CASE("peer study: what cannot be is refused before anything is trained, with the setting to change") {
  const auto refusal = [](const std::function<void(PeerStudy&)>& change) {
    SmallPeers small;
    change(small.study);
    return test::error_of(Errc::usage, [&] { check(small.study); });
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  CHECK(refusal([](PeerStudy&) {}) == "(no error)");
  CHECK(has(refusal([](PeerStudy& s) { s.plan.graphs.clear(); }), "study.graphs"));
  CHECK(has(refusal([](PeerStudy& s) { s.settings.partition.num_clients = 1; }), "partition.clients"));
  CHECK(has(refusal([](PeerStudy& s) { s.settings.model.second_head = false; }), "model.second_head"));
  CHECK(has(refusal([](PeerStudy& s) { s.plan.methods = {"fedmd"}, s.settings.draws.public_large = 0; }),
            "draw.public_large"));
  CHECK(has(refusal([](PeerStudy& s) { s.plan.methods = {"kd"}, s.plan.alphas.clear(); }), "study.measures"));
  CHECK(has(refusal([](PeerStudy& s) { s.plan.graphs = {"regular"}, s.settings.graph.degree = 4; }), "graph.degree"));
  CHECK(
      has(refusal([](PeerStudy& s) { s.plan.graphs = {"edges"}, s.settings.graph.edges = "0-1,2-3"; }), "graph.edges"));
  CHECK(has(refusal([](PeerStudy& s) { s.plan.graphs = {"edges"}, s.settings.graph.edges = "0-1,1-2,2-7"; }), "7"));
}

}  // namespace
}  // namespace headstart::lab
