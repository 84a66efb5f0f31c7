#include "server/phases/feature_sums.hpp"

#include <limits>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "server/phases/head_from_sums.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();

learn::Evaluation losing(double loss) { return {{1, 1}, {2, 2}, {2, 2}, loss}; }

JudgedHead judged(std::map<std::string, learn::Evaluation> counts) { return {torch::zeros({1}), std::move(counts)}; }

TEST_CASE("the choice of a head: the lowest loss, the first of equals, nothing where nobody rated all") {
  const auto choice = choose_head({judged({{"", losing(8)}}), judged({{"", losing(4)}}), judged({{"", losing(4)}})});
  REQUIRE(choice);
  CHECK(choice->place == 1);
  CHECK(choice->losses == std::vector<double>{2, 1, 1});
  CHECK_FALSE(choose_head({}));
  CHECK_FALSE(choose_head({judged({}), judged({})}));
  CHECK_FALSE(choose_head({judged({{"a", losing(1)}}), judged({{"b", losing(1)}})}));
}

TEST_CASE("the choice of a head: a silo that is lost half-way makes no later head better") {
  // Silo b has high losses, and is gone at the third head, which is worse for a.
  const auto choice = choose_head({judged({{"a", losing(4)}, {"b", losing(40)}}),
                                   judged({{"a", losing(3)}, {"b", losing(39)}}), judged({{"a", losing(3.5)}})});
  REQUIRE(choice);
  CHECK(choice->place == 1);
  CHECK(choice->rating.num_samples() == 4);
}

TEST_CASE("the choice of a head: one silo's infinite loss decides nothing, that of all does") {
  const auto one = choose_head(
      {judged({{"a", losing(4)}, {"b", losing(infinite)}}), judged({{"a", losing(3)}, {"b", losing(infinite)}})});
  REQUIRE(one);
  CHECK(one->place == 1);
  CHECK(one->losses[1] == 0.75);
  const auto all = choose_head({judged({{"a", losing(infinite)}}), judged({{"a", losing(3)}})});
  REQUIRE(all);
  CHECK(all->place == 1);
}

TEST_CASE("a model without a named head is refused before the run") {
  FederationOptions options;
  plan::Terms terms;
  terms.model.name = "script:tests/golden/two_heads/Sum.pt";
  const auto refusal = [&] {
    return test::error_of(Errc::usage, [&] { require_named_head(options, terms, test::small_task); });
  };
  CHECK(refusal() == "(no error)");
  options.head.rounds = StartHead::sums;
  CHECK(refusal().find("client/scripts.md") != std::string::npos);
  terms.model.name = "script:tests/golden/named_heads/Scaled.pt";
  CHECK(refusal().find("forward() must return head(features(x))") != std::string::npos);
  terms.model.name = "script:tests/golden/named_heads/Named.pt";
  CHECK(refusal() == "(no error)");
}

TEST_CASE("the choice of a head: another metric than accuracy decides, then the loss") {
  const learn::Metric recall{learn::MetricKind::recall, 1};
  const learn::Evaluation none{{4, 0}, {4, 4}, {8, 0}, 1};
  const learn::Evaluation half{{3, 2}, {4, 4}, {5, 3}, 4};
  const learn::Evaluation same{{2, 2}, {4, 4}, {4, 4}, 3};
  const std::vector<JudgedHead> heads = {judged({{"", none}}), judged({{"", half}}), judged({{"", same}})};
  CHECK(choose_head(heads)->place == 0);
  CHECK(choose_head(heads, recall)->place == 2);
}

}  // namespace
}  // namespace headstart::server
