#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/data/stratified.hpp"
#include "shared/learn/partition/manifest.hpp"
#include "shared/learn/partition/scheme.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

using test::error_of;

namespace {

using Indices = std::vector<std::int64_t>;

constexpr std::uint64_t num_seeds = 20;

/// Labels in random order: `per_class[c]` samples of class c.
Tensor labels_of(const Indices& per_class, std::uint64_t seed) {
  const auto num_classes = static_cast<std::int64_t>(per_class.size());
  const Tensor ordered = torch::arange(num_classes).repeat_interleave(torch::tensor(per_class, at::kLong));
  return ordered.index_select(0, permutation(ordered.size(0), Seed(seed).child("labels")));
}

Tensor balanced_labels(std::int64_t num_classes, std::int64_t per_class, std::uint64_t seed) {
  return labels_of(Indices(static_cast<std::size_t>(num_classes), per_class), seed);
}

Indices iota(std::int64_t count) {
  Indices indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), std::int64_t{0});
  return indices;
}

Indices count_classes(const Indices& indices, const Tensor& labels, std::int64_t num_classes) {
  Indices counts(static_cast<std::size_t>(num_classes), 0);
  for (const std::int64_t i : indices) ++counts[static_cast<std::size_t>(labels[i].item<std::int64_t>())];
  return counts;
}

std::int64_t sum(const Indices& values) { return std::accumulate(values.begin(), values.end(), std::int64_t{0}); }

/// Every index of 0..size-1 is in exactly one of the ascending lists.
void check_shares_everything_out(const std::vector<Indices>& lists, std::int64_t size) {
  Indices all;
  for (const Indices& list : lists) {
    CHECK(std::ranges::is_sorted(list));
    all.insert(all.end(), list.begin(), list.end());
  }
  std::ranges::sort(all);
  CHECK(all == iota(size));
}

void check_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    CAPTURE(part);
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  }
}

PartitionOptions options_of(const std::string& kind, std::int64_t num_clients) {
  PartitionOptions options;
  options.kind = kind;
  options.num_clients = num_clients;
  options.min_samples = 3;
  options.chunk_min = 5;
  options.chunk_max = 12;
  return options;
}

Dataset dataset_of(const Tensor& labels, std::int64_t num_classes, const std::string& name = "tensors") {
  return {name, torch::zeros({labels.size(0), 1, 1, 1}), labels, num_classes, {}, {}};
}

DrawOptions small_draws() {
  return {.validation = 60, .public_large = 101, .public_small = 33, .public_labeled = 20, .clients = 500, .test = 70};
}

Manifest small_manifest(std::uint64_t seed, const std::string& kind = "label-dirichlet") {
  const Dataset train = dataset_of(balanced_labels(10, 100, 1), 10);
  const Dataset test = dataset_of(balanced_labels(10, 20, 2), 10);
  return draw_manifest(train, test, small_draws(), options_of(kind, 5), seed);
}

const std::vector<std::pair<std::string, Indices Manifest::*>>& draws_of_training_split() {
  static const std::vector<std::pair<std::string, Indices Manifest::*>> lists = {
      {"validation", &Manifest::validation},
      {"public_large", &Manifest::public_large},
      {"public_small", &Manifest::public_small},
      {"public_labeled", &Manifest::public_labeled}};
  return lists;
}

}  // namespace

TEST_CASE("every partition gives each sample to one client or lists it as unused, and repeats from its seed") {
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes = {{3, 10}, {10, 2}, {10, 10}, {10, 100}, {25, 10}};
  for (const std::string& kind : partition_words()) {
    for (const auto& [num_clients, num_classes] : shapes) {
      CAPTURE(kind);
      CAPTURE(num_clients);
      CAPTURE(num_classes);
      const PartitionOptions options = options_of(kind, num_clients);
      const Tensor labels = balanced_labels(num_classes, 2000 / num_classes, 0);
      std::set<std::vector<Indices>> different;
      for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
        CAPTURE(seed);
        const Partition drawn = partition(labels, num_classes, options, Seed(seed));
        REQUIRE(drawn.clients.size() == static_cast<std::size_t>(num_clients));
        std::vector<Indices> lists = drawn.clients;
        lists.push_back(drawn.unused);
        check_shares_everything_out(lists, labels.size(0));
        for (const Indices& client : drawn.clients) CHECK(std::ssize(client) >= options.min_samples);
        if (kind != "random-chunks") CHECK(drawn.unused.empty());
        CHECK(partition(labels, num_classes, options, Seed(seed)).clients == drawn.clients);
        different.insert(drawn.clients);
      }
      CHECK(different.size() == num_seeds);
    }
  }
}

TEST_CASE("uniform counts differ by at most one, per class and in all") {
  for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
    for (const std::int64_t num_clients : {3, 10, 25}) {
      const Tensor labels = labels_of({97, 251, 60, 33, 104}, seed);
      const Partition drawn = partition(labels, 5, options_of("uniform", num_clients), Seed(seed));
      for (std::size_t c = 0; c < 5; ++c) {
        Indices held;
        for (const Indices& client : drawn.clients) held.push_back(count_classes(client, labels, 5)[c]);
        const auto [least, most] = std::ranges::minmax(held);
        CHECK(most - least <= 1);
      }
      const auto [least, most] = std::ranges::minmax(drawn.clients, {}, &Indices::size);
      CHECK(most.size() - least.size() <= 1);
    }
  }
}

TEST_CASE("specialized: ten clients of ten classes hold 91% of their own class and 1% of each other") {
  for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
    const Tensor labels = balanced_labels(10, 600, seed);
    const Partition drawn = partition(labels, 10, options_of("specialized", 10), Seed(seed));
    for (std::size_t i = 0; i < 10; ++i) {
      Indices expected(10, 6);
      expected[i] = 546;
      CHECK(count_classes(drawn.clients[i], labels, 10) == expected);
    }
  }
}

TEST_CASE("specialized: the own share stays within rounding where classes do not divide") {
  const Tensor labels = balanced_labels(10, 597, 3);
  const Partition drawn = partition(labels, 10, options_of("specialized", 10), Seed(3));
  for (std::size_t i = 0; i < 10; ++i) {
    const Indices held = count_classes(drawn.clients[i], labels, 10);
    // 597 = 543 own (543.27) + 54 = 9 x 6.
    CHECK(held[i] == 543);
    CHECK(sum(held) == 597);
  }
}

TEST_CASE("specialized: owners of one class share it, a class without owner is spread") {
  const auto counts = [](std::int64_t num_clients, std::int64_t num_classes, std::int64_t per_class) {
    const Tensor labels = balanced_labels(num_classes, per_class, 4);
    std::vector<Indices> held;
    const PartitionOptions options = options_of("specialized", num_clients);
    for (const Indices& client : partition(labels, num_classes, options, Seed(4)).clients) {
      held.push_back(count_classes(client, labels, num_classes));
    }
    return held;
  };
  SUBCASE("20 clients, 10 classes of 2,000: 910 of the own class, 10 of each other") {
    const std::vector<Indices> held = counts(20, 10, 2000);
    for (std::size_t i = 0; i < 20; ++i) {
      for (std::size_t c = 0; c < 10; ++c) CHECK(held[i][c] == (i % 10 == c ? 910 : 10));
    }
  }
  SUBCASE("3 clients, 10 classes of 600: 546 own, 27 of the others' own, 200 of each free class") {
    const std::vector<Indices> held = counts(3, 10, 600);
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t c = 0; c < 10; ++c) CHECK(held[i][c] == (c >= 3 ? 200 : i == c ? 546 : 27));
    }
  }
  SUBCASE("25 clients, 10 classes: classes 0 to 4 have three owners, the others two") {
    const std::vector<Indices> held = counts(25, 10, 3000);
    for (std::size_t i = 0; i < 25; ++i) {
      for (std::size_t c = 0; c < 10; ++c) {
        const double owners = c < 5 ? 3 : 2;
        const double expected = i % 10 == c ? 0.91 * 3000 / owners : 0.09 * 3000 / (25 - owners);
        CHECK(std::abs(static_cast<double>(held[i][c]) - expected) < 1);
      }
    }
  }
  SUBCASE("a single client holds everything") { CHECK(counts(1, 3, 50) == std::vector<Indices>{{50, 50, 50}}); }
}

TEST_CASE("random chunks: each holding is made of whole chunks, and a class is left only when it is spent") {
  for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
    PartitionOptions options = options_of("random-chunks", 10);
    options.chunk_min = 100;
    options.chunk_max = 500;
    const Tensor labels = balanced_labels(10, 2000, seed);
    const Partition drawn = partition(labels, 10, options, Seed(seed));
    std::vector<bool> is_held(10, false);
    for (const Indices& client : drawn.clients) {
      CHECK(client.size() >= 100);
      const Indices held = count_classes(client, labels, 10);
      for (std::size_t c = 0; c < 10; ++c) {
        CHECK((held[c] == 0 || held[c] >= 100));
        if (held[c] > 0) is_held[c] = true;
      }
    }
    const Indices unused = count_classes(drawn.unused, labels, 10);
    for (std::size_t c = 0; c < 10; ++c) CHECK((is_held[c] ? unused[c] < 100 : unused[c] == 2000));
  }
}

TEST_CASE("random chunks: chunk sizes and numbers of classes are uniform over their ranges") {
  PartitionOptions options = options_of("random-chunks", 1);
  options.chunk_min = 3;
  options.chunk_max = 6;
  options.min_samples = 0;
  // One client and classes of one chunk at most: what it holds of a class is a chunk, its classes are its k.
  const Tensor labels = balanced_labels(5, 6, 0);
  std::map<std::int64_t, int> chunks;
  std::map<std::int64_t, int> classes;
  constexpr int num_draws = 1000;
  for (std::uint64_t seed = 0; seed < num_draws; ++seed) {
    const Indices held = count_classes(partition(labels, 5, options, Seed(seed)).clients[0], labels, 5);
    classes[5 - std::ranges::count(held, 0)]++;
    for (const std::int64_t count : held) {
      if (count > 0) chunks[count]++;
    }
  }
  REQUIRE(classes.size() == 5);
  // 200 expected, standard deviation 13.
  for (const auto& [k, times] : classes) CHECK(std::abs(times - num_draws / 5) < 60);
  // A first chunk of 3 leaves 3, which are a second chunk: 6 comes from 3 and from 6.
  CHECK(chunks.size() == 3);
  CHECK(chunks.count(3) == 0);
  const int total = chunks[4] + chunks[5] + chunks[6];
  CHECK(std::abs(chunks[4] - total / 4) < 120);
  CHECK(std::abs(chunks[5] - total / 4) < 120);
  CHECK(std::abs(chunks[6] - total / 2) < 140);
}

TEST_CASE("Dirichlet draws have the means and variances of their concentrations") {
  constexpr int num_draws = 400;
  const auto shares = [&](PartitionOptions options) {
    options.min_samples = 0;
    const Tensor labels = balanced_labels(1, 1000, 0);
    std::vector<std::vector<double>> drawn;
    for (std::uint64_t seed = 0; seed < num_draws; ++seed) {
      std::vector<double>& row = drawn.emplace_back();
      for (const Indices& client : partition(labels, 1, options, Seed(seed)).clients) {
        row.push_back(static_cast<double>(client.size()) / 1000);
      }
    }
    return drawn;
  };
  const auto check_moments = [&](const std::vector<std::vector<double>>& drawn, const std::vector<double>& betas) {
    const double all = std::accumulate(betas.begin(), betas.end(), 0.0);
    for (std::size_t i = 0; i < betas.size(); ++i) {
      CAPTURE(i);
      double mean = 0;
      double square = 0;
      for (const std::vector<double>& row : drawn) {
        mean += row[i] / num_draws;
        square += row[i] * row[i] / num_draws;
      }
      const double expected_mean = betas[i] / all;
      const double expected_variance = expected_mean * (1 - expected_mean) / (all + 1);
      // Four standard errors of the mean.
      CHECK(std::abs(mean - expected_mean) < 4 * std::sqrt(expected_variance / num_draws));
      CHECK(square - mean * mean == doctest::Approx(expected_variance).epsilon(0.35));
    }
  };
  check_moments(shares(options_of("quantity-skew", 4)), {0.5, 0.5, 0.5, 0.5});
  check_moments(shares(options_of("label-dirichlet", 5)), {0.1, 0.5, 0.1, 0.5, 0.1});
}

TEST_CASE("quantity skew changes sizes, not the mixture of classes") {
  PartitionOptions options = options_of("quantity-skew", 10);
  const Tensor labels = balanced_labels(4, 5000, 0);
  for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
    const Partition drawn = partition(labels, 4, options, Seed(seed));
    const auto [least, most] = std::ranges::minmax(drawn.clients, {}, &Indices::size);
    CHECK(most.size() > 2 * least.size());
    for (const Indices& client : drawn.clients) {
      const auto size = static_cast<double>(client.size());
      for (const std::int64_t held : count_classes(client, labels, 4)) {
        // Five standard deviations of a hypergeometric count, and one sample.
        CHECK(std::abs(static_cast<double>(held) - size / 4) < 5 * std::sqrt(size * 3 / 16) + 1);
      }
    }
  }
}

TEST_CASE("primary: with a skew beyond all bounds a client has its primary classes alone, dealt as evenly as may be") {
  PartitionOptions options = options_of("primary", 3);
  options.primary_skew = 1e9;
  std::set<Indices> owners_seen;
  for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
    // More classes than clients: each class at one client, 4, 3 and 3 of them.
    options.num_clients = 3;
    const Tensor labels = balanced_labels(10, 30, seed);
    Indices owner(10, -1);
    Indices sizes;
    const Partition few = partition(labels, 10, options, Seed(seed));
    for (std::size_t i = 0; i < 3; ++i) {
      sizes.push_back(std::ssize(few.clients[i]));
      const Indices held = count_classes(few.clients[i], labels, 10);
      for (std::size_t c = 0; c < 10; ++c) {
        CHECK((held[c] == 0 || held[c] == 30));
        if (held[c] > 0) owner[c] = static_cast<std::int64_t>(i);
      }
    }
    CHECK(sizes == Indices{120, 90, 90});
    owners_seen.insert(owner);
    // More clients than classes: each client has one, and each class two clients or three.
    options.num_clients = 10;
    const Tensor coarse = balanced_labels(4, 200, seed);
    Indices holders(4, 0);
    for (const Indices& client : partition(coarse, 4, options, Seed(seed)).clients) {
      const Indices held = count_classes(client, coarse, 4);
      CHECK(std::ranges::count_if(held, [](std::int64_t count) { return count > 0; }) == 1);
      for (std::size_t c = 0; c < 4; ++c) holders[c] += held[c] > 0 ? 1 : 0;
    }
    std::ranges::sort(holders);
    CHECK(holders == Indices{2, 2, 3, 3});
  }
  CHECK(owners_seen.size() == num_seeds);
}

TEST_CASE("primary: a client's share of a class is (1 + s [primary]) over their sum, by chance") {
  constexpr std::int64_t per_class = 4000;
  const Tensor labels = balanced_labels(5, per_class, 0);
  for (const double skew : {0.0, 3.0, 100.0}) {
    CAPTURE(skew);
    PartitionOptions options = options_of("primary", 5);
    options.primary_skew = skew;
    double squares = 0;
    for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
      const Partition drawn = partition(labels, 5, options, Seed(seed));
      Indices owned(5, 0);
      for (const Indices& client : drawn.clients) {
        const Indices held = count_classes(client, labels, 5);
        const auto most = static_cast<std::size_t>(std::ranges::max_element(held) - held.begin());
        ++owned[most];
        for (std::size_t c = 0; c < 5; ++c) {
          const double chance = (skew > 0 && c == most ? 1 + skew : 1) / (5 + skew);
          const double deviation = std::sqrt(per_class * chance * (1 - chance));
          const double off = (static_cast<double>(held[c]) - per_class * chance) / deviation;
          CHECK(std::abs(off) < 5);
          squares += off * off;
        }
      }
      // As many clients as classes: each has one of its own.
      if (skew > 0) CHECK(owned == Indices{1, 1, 1, 1, 1});
    }
    // Counts by chance, not by quota: their squared deviations are 1 in the mean (500 of them, dependent by class).
    CHECK(squares / (25.0 * num_seeds) == doctest::Approx(1).epsilon(0.25));
  }
}

TEST_CASE("impossible partitions are refused with the settings and the best draw") {
  const Tensor labels = balanced_labels(10, 10, 0);
  const auto refusal = [&](const PartitionOptions& options) {
    return error_of(Errc::usage, [&] { partition(labels, 10, options, Seed(1)); });
  };
  PartitionOptions options = options_of("label-dirichlet", 10);
  options.min_samples = 11;
  check_contains(refusal(options), {"label-dirichlet", "100 samples", "clients 10", "label_betas 0.1 / 0.5",
                                    "min_samples 11", "best of 1000 draws", "11 are needed"});
  options.kind = "quantity-skew";
  check_contains(refusal(options), {"quantity-skew", "quantity_beta 0.5", "best of 1000 draws"});
  options.kind = "uniform";
  check_contains(refusal(options), {"uniform", "the smallest client has 10 samples", "11 are needed"});
  options.kind = "specialized";
  check_contains(refusal(options), {"specialized_share 0.91", "min_samples 11"});
  options.kind = "primary";
  check_contains(refusal(options), {"primary_skew 100", "best of 1000 draws"});
  options.kind = "random-chunks";
  options.chunk_min = 11;
  check_contains(refusal(options),
                 {"chunk_min 11, chunk_max 12", "the smallest client has 0 samples", "smaller chunks"});

  const auto refused_with = [&](auto change, const std::string& part) {
    PartitionOptions bad = options_of("uniform", 3);
    change(bad);
    check_contains(refusal(bad), {part});
  };
  refused_with([](PartitionOptions& bad) { bad.num_clients = 0; }, "clients 0");
  refused_with([](PartitionOptions& bad) { bad.quantity_beta = 0; }, "quantity_beta 0");
  refused_with([](PartitionOptions& bad) { bad.quantity_beta = NAN; }, "quantity_beta nan");
  refused_with([](PartitionOptions& bad) { bad.label_betas = {}; }, "label_betas []");
  refused_with([](PartitionOptions& bad) { bad.label_betas = {0.5, -1}; }, "label_betas [0.5, -1]");
  refused_with([](PartitionOptions& bad) { bad.specialized_share = 1.5; }, "specialized_share 1.5");
  refused_with([](PartitionOptions& bad) { bad.primary_skew = -1; }, "primary_skew -1");
  refused_with([](PartitionOptions& bad) { bad.chunk_min = 0; }, "chunk_min 0");
  refused_with([](PartitionOptions& bad) { bad.chunk_max = 4; }, "chunk_max 4 is below chunk_min 5");

  check_contains(error_of(Errc::data, [&] { partition(labels, 9, options_of("uniform", 2), Seed(1)); }),
                 {"label 9", "0 to 8"});
}

TEST_CASE("a draw that once in many succeeds is found") {
  // A single draw leaves a client of ten below 15 of 500 samples nearly always.
  PartitionOptions options = options_of("label-dirichlet", 10);
  options.min_samples = 15;
  const Tensor labels = balanced_labels(10, 50, 0);
  int first_draws_that_fit = 0;
  for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
    for (const Indices& client : partition(labels, 10, options, Seed(seed)).clients) CHECK(client.size() >= 15);
    options.min_samples = 0;
    const Partition first = partition(labels, 10, options, Seed(seed));
    first_draws_that_fit += std::ranges::all_of(first.clients, [](const auto& client) { return client.size() >= 15; });
    options.min_samples = 15;
  }
  CHECK(first_draws_that_fit < 5);
}

TEST_CASE("a stratified draw follows the classes' shares, largest remainders first") {
  for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
    const Tensor labels = labels_of({50, 30, 20, 7}, seed);
    // 10 of 107: quotas 4.67, 2.80, 1.87, 0.65; the three odd places go to classes 2, 1 and 0.
    const Indices drawn = stratified_draw(labels, 4, iota(107), 10, Seed(seed));
    CHECK(count_classes(drawn, labels, 4) == Indices{5, 3, 2, 0});
    CHECK(std::ranges::is_sorted(drawn));
    CHECK(std::set(drawn.begin(), drawn.end()).size() == 10);
    CHECK(drawn == stratified_draw(labels, 4, iota(107), 10, Seed(seed)));
    CHECK(drawn != stratified_draw(labels, 4, iota(107), 10, Seed(seed + 1000)));
  }
  const Tensor labels = balanced_labels(4, 5, 0);
  CHECK(count_classes(stratified_draw(labels, 4, iota(20), 6, Seed(1)), labels, 4) == Indices{2, 2, 1, 1});
  CHECK(stratified_draw(labels, 4, iota(20), 20, Seed(1)) == iota(20));
  CHECK(stratified_draw(labels, 4, iota(20), 0, Seed(1)).empty());
  const Indices few = {3, 8, 11};
  CHECK(stratified_draw(labels, 4, few, 3, Seed(1)) == few);
  check_contains(error_of(Errc::usage, [&] { stratified_draw(labels, 4, few, 4, Seed(1)); }),
                 {"a draw of 4 samples", "there are 3"});
  CHECK_THROWS_AS(stratified_draw(labels, 4, few, -1, Seed(1)), Error);
}

TEST_CASE("every sample of a class has the same chance to be drawn") {
  const Tensor labels = balanced_labels(2, 10, 0);
  std::vector<int> times(20, 0);
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    for (const std::int64_t i : stratified_draw(labels, 2, iota(20), 4, Seed(seed)))
      ++times[static_cast<std::size_t>(i)];
  }
  // 200 expected, standard deviation 13.
  for (const int count : times) CHECK(std::abs(count - 200) < 60);
}

TEST_CASE("a manifest holds disjoint stratified draws and every training sample once") {
  const Tensor labels = balanced_labels(10, 100, 1);
  for (const std::string& kind : partition_words()) {
    for (std::uint64_t seed = 0; seed < num_seeds; ++seed) {
      CAPTURE(kind);
      CAPTURE(seed);
      const Manifest manifest = small_manifest(seed, kind);
      std::vector<Indices> lists = manifest.clients;
      for (const auto& [key, list] : draws_of_training_split()) {
        lists.push_back(manifest.*list);
        const auto [least, most] = std::ranges::minmax(count_classes(manifest.*list, labels, 10));
        CHECK(most - least <= 1);
      }
      lists.push_back(manifest.unused);
      check_shares_everything_out(lists, 1000);
      CHECK(manifest.validation.size() == 60);
      CHECK(manifest.public_large.size() == 101);
      CHECK(manifest.public_small.size() == 33);
      CHECK(manifest.public_labeled.size() == 20);
      CHECK(manifest.test.size() == 70);
      std::size_t held = 0;
      for (std::size_t i = 0; i < manifest.clients.size(); ++i) {
        held += manifest.clients[i].size();
        CHECK(manifest.class_counts[i] == count_classes(manifest.clients[i], labels, 10));
      }
      CHECK((held == 500 || (kind == "random-chunks" && held < 500)));
    }
  }
}

TEST_CASE("one seed gives all kinds of partition the same draws, another seed other ones") {
  const Manifest dirichlet = small_manifest(1);
  const Manifest uniform = small_manifest(1, "uniform");
  const Manifest other = small_manifest(2);
  for (const auto& [key, list] : draws_of_training_split()) {
    CHECK(dirichlet.*list == uniform.*list);
    CHECK(dirichlet.*list != other.*list);
  }
  CHECK(dirichlet.test == uniform.test);
  CHECK(dirichlet.test != other.test);
  CHECK(dirichlet.clients == small_manifest(1).clients);
  CHECK(dirichlet.clients != other.clients);
}

TEST_CASE("without a number of client and test samples a manifest takes all") {
  const Dataset train = dataset_of(balanced_labels(10, 100, 1), 10);
  const Dataset test = dataset_of(balanced_labels(10, 20, 2), 10);
  DrawOptions draws = small_draws();
  draws.clients = 0;
  draws.test = 0;
  const PartitionOptions options = options_of("uniform", 5);
  const Manifest manifest = draw_manifest(train, test, draws, options, 7);
  std::size_t held = 0;
  for (const Indices& client : manifest.clients) held += client.size();
  CHECK(held == 1000 - 60 - 101 - 33 - 20);
  CHECK(manifest.unused.empty());
  CHECK(manifest.test == iota(200));

  draws.clients = 787;
  check_contains(error_of(Errc::usage, [&] { draw_manifest(train, test, draws, options, 7); }),
                 {"public_large 101", "clients 787", "need 1001 samples", "has 1000"});
  draws.clients = 0;
  draws.public_large = 887;
  check_contains(error_of(Errc::usage, [&] { draw_manifest(train, test, draws, options, 7); }), {"need 1001 samples"});
  draws = small_draws();
  draws.test = 201;
  check_contains(error_of(Errc::usage, [&] { draw_manifest(train, test, draws, options, 7); }),
                 {"201 test samples", "has 200"});
  draws.test = -1;
  CHECK_THROWS_AS(draw_manifest(train, test, draws, options, 7), Error);
}

TEST_CASE("a manifest survives its file") {
  const test::TemporaryFolder folder;
  const std::filesystem::path file = folder / "manifest.json";
  Manifest manifest = small_manifest(3, "random-chunks");
  manifest.seed = 0xfedcba9876543210;
  save_manifest(manifest, file);
  const Manifest loaded = load_manifest(file);
  CHECK(loaded.dataset == manifest.dataset);
  CHECK(loaded.train_digest == manifest.train_digest);
  CHECK(loaded.test_digest == manifest.test_digest);
  CHECK(loaded.num_classes == manifest.num_classes);
  CHECK(loaded.seed == manifest.seed);
  CHECK(loaded.settings == manifest.settings);
  CHECK(loaded.settings["partition"]["kind"] == "random-chunks");
  CHECK(loaded.settings["draw"]["public_large"] == 101);
  for (const auto& [key, list] : draws_of_training_split()) CHECK(loaded.*list == manifest.*list);
  CHECK(loaded.unused == manifest.unused);
  CHECK(loaded.test == manifest.test);
  CHECK(loaded.clients == manifest.clients);
  CHECK(loaded.class_counts == manifest.class_counts);
  save_manifest(loaded, folder / "again.json");
  CHECK(read_text(folder / "again.json") == read_text(file));
  CHECK(test::code_of([&] { save_manifest(manifest, folder / "none/manifest.json"); }) == Errc::storage);
}

TEST_CASE("damaged manifests are refused with file and key") {
  const test::TemporaryFolder folder;
  const std::filesystem::path file = folder / "manifest.json";
  save_manifest(small_manifest(3), file);
  const nlohmann::json whole = read_json(file);
  const auto refusal = [&](const std::function<void(nlohmann::json&)>& damage) {
    nlohmann::json document = whole;
    damage(document);
    std::ofstream(file) << document;
    return error_of(Errc::data, [&] { load_manifest(file); });
  };
  using Json = nlohmann::json;
  const std::string name = file.string();
  for (const auto& [key, value] : whole.items()) {
    CAPTURE(key);
    check_contains(refusal([&](Json& d) { d.erase(key); }), {name + ", key '" + key + "'"});
    check_contains(refusal([&](Json& d) { d[key] = nullptr; }), {name + ", key '" + key + "'"});
  }
  check_contains(refusal([](Json& d) { d = Json::array(); }), {"not a manifest"});
  check_contains(refusal([](Json& d) { d["version"] = 2; }), {"key 'version': 2", "reads 1"});
  check_contains(refusal([](Json& d) { d["validation"][4] = -5; }), {"key 'validation': entry 4", "got -5"});
  check_contains(refusal([](Json& d) { d["clients"][1][0] = 1.5; }), {"key 'clients[1]': entry 0", "got 1.5"});
  check_contains(refusal([](Json& d) { d["clients"][1] = "none"; }), {"key 'clients[1]': expected a list"});
  check_contains(refusal([](Json& d) { d["clients"][2][0] = d["public_large"][0]; }),
                 {"listed twice", "clients[2]", "public_large"});
  check_contains(refusal([](Json& d) { d["test"][1] = d["test"][0]; }), {"key 'test'", "listed twice"});
  check_contains(refusal([](Json& d) { d["clients"][0] = Json::array(); }), {"clients[0]", "no samples"});
  check_contains(refusal([](Json& d) { d["class_counts"].erase(0); }), {"class_counts", "4 rows for 5 clients"});
  check_contains(refusal([](Json& d) { d["class_counts"][0][0] = 1000000; }), {"class_counts[0]", "10 counts"});
  check_contains(refusal([](Json& d) { d["clients"] = d["class_counts"] = Json::array(); }), {"clients", "none"});

  const std::string text = whole.dump();
  for (std::size_t length = 0; length < text.size(); length += 97) {
    std::ofstream(file) << text.substr(0, length);
    check_contains(error_of(Errc::data, [&] { load_manifest(file); }), {name});
  }
  CHECK(test::code_of([&] { load_manifest(folder / "none.json"); }) == Errc::data);
}

TEST_CASE("a manifest is held against the data it is used with") {
  const Tensor labels = balanced_labels(10, 100, 1);
  const Dataset train = dataset_of(labels, 10);
  const Dataset test = dataset_of(balanced_labels(10, 20, 2), 10);
  const Manifest manifest = small_manifest(3);
  CHECK_NOTHROW(check_fits(manifest, train, Split::train, "m.json"));
  CHECK_NOTHROW(check_fits(manifest, test, Split::test, "m.json"));

  const auto refusal = [](const Manifest& held, const Dataset& dataset, Split split) {
    return error_of(Errc::data, [&] { check_fits(held, dataset, split, "m.json"); });
  };
  check_contains(refusal(manifest, test, Split::train), {"m.json", "another training split"});
  check_contains(refusal(manifest, train, Split::test), {"m.json", "another test split"});
  check_contains(refusal(manifest, dataset_of(labels, 10, "mnist"), Split::train), {"of tensors", "is mnist"});
  check_contains(refusal(manifest, dataset_of(labels, 11), Split::train), {"10 classes", "with 11"});
  check_contains(refusal(manifest, dataset_of(balanced_labels(10, 100, 9), 10), Split::train), {"another training"});

  Manifest beyond = manifest;
  beyond.clients[2].back() = 1000;
  check_contains(refusal(beyond, train, Split::train), {"key 'clients[2]': sample 1000", "has 1000"});
  beyond = manifest;
  beyond.public_small.back() = 5000;
  check_contains(refusal(beyond, train, Split::train), {"key 'public_small': sample 5000"});
  beyond = manifest;
  beyond.test.back() = 200;
  check_contains(refusal(beyond, test, Split::test), {"key 'test': sample 200"});
  beyond = manifest;
  std::swap(beyond.class_counts[0], beyond.class_counts[1]);
  check_contains(refusal(beyond, train, Split::train), {"class_counts"});
}

TEST_CASE("the summary shows counts of few classes and condenses many") {
  const Manifest few = small_manifest(3, "uniform");
  const std::string table = summary_table(few);
  check_contains(table, {"tensors, uniform, 5 clients, seed 3", "public_large 101", "unused 286", "test 70"});
  std::istringstream lines(table);
  std::string line;
  std::getline(lines, line);
  std::getline(lines, line);
  std::getline(lines, line);
  std::istringstream row(line);
  CHECK(Indices(std::istream_iterator<std::int64_t>(row), {}) ==
        Indices{0, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 100});
  std::getline(lines, line);
  CHECK(line.size() <= 100);

  const Dataset train = dataset_of(balanced_labels(100, 20, 1), 100);
  const DrawOptions draws{
      .validation = 0, .public_large = 0, .public_small = 0, .public_labeled = 0, .clients = 0, .test = 0};
  const PartitionOptions options = options_of("label-dirichlet", 10);
  const Manifest many = draw_manifest(train, train, draws, options, 1);
  std::istringstream condensed(summary_table(many));
  std::getline(condensed, line);
  std::getline(condensed, line);
  check_contains(line, {"classes", "largest class", "share", "total"});
  for (std::size_t client = 0; client < 10; ++client) {
    std::getline(condensed, line);
    CHECK(line.size() <= 100);
    std::istringstream cells(line);
    std::size_t shown = 0;
    std::int64_t classes = 0;
    cells >> shown >> classes;
    CHECK(shown == client);
    CHECK(classes == 100 - std::ranges::count(many.class_counts[client], 0));
  }
}

TEST_CASE("permutations are complete, repeat from their seed, and ignore the process-wide generator") {
  at::manual_seed(1);
  const Tensor order = permutation(1000, Seed(5));
  at::manual_seed(2);
  CHECK(torch::equal(order, permutation(1000, Seed(5))));
  CHECK(torch::equal(std::get<0>(order.sort()), torch::arange(1000)));
  CHECK_FALSE(torch::equal(order, permutation(1000, Seed(6))));
  CHECK(permutation(0, Seed(5)).size(0) == 0);
  const Tensor next = torch::rand({4});
  at::manual_seed(2);
  permutation(1000, Seed(7));
  CHECK(torch::equal(next, torch::rand({4})));
}

TEST_CASE("extension: a scheme needs no more than its row") {
  // All of class i mod N to client i.
  const PartitionScheme owners{.name = "owners",
                               .draw = [](const Pools& pools, const PartitionOptions&, const at::Generator&) {
                                 Counts counts = pools.zeros();
                                 for (std::size_t pool = 0; pool < pools.size(); ++pool) {
                                   counts[pool % pools.num_clients][pool] = pools.sizes[pool];
                                 }
                                 return counts;
                               }};
  const Tensor labels = torch::arange(60, torch::kLong) % 6;
  const Partition drawn = partition(labels, 6, options_of("owners", 3), Seed(1), owners);
  REQUIRE(drawn.clients.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(drawn.clients[i].size() == 20);
    for (const std::int64_t sample : drawn.clients[i]) CHECK(static_cast<std::size_t>(sample) % 3 == i);
  }
  CHECK(error_of(Errc::usage, [&] {
          partition(labels, 6, options_of("owners", 3), Seed(1));
        }).starts_with("partition.kind 'owners': expected one of uniform, quantity-skew"));
}

}  // namespace headstart::learn
