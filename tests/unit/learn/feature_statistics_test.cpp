#include "shared/learn/data/feature_statistics.hpp"

#include <cmath>
#include <limits>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/random.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

namespace {

constexpr float nothing = std::numeric_limits<float>::quiet_NaN();

/// The formula of tests/golden/feature_statistics.py: columns of very different scale, with holes.
Tensor pooled_samples() {
  const Tensor place = torch::arange(600, torch::kDouble).view({200, 3});
  Tensor x = (torch::sin(place * 0.7) * torch::tensor({1.0, 1e-3, 5e4}, torch::kDouble) +
              torch::tensor({0.0, 12.0, 3e6}, torch::kDouble))
                 .to(torch::kFloat);
  x.index_put_({torch::arange(0, 200, 7), 1}, nothing);
  return x;
}

void check_near(const Tensor& got, const nlohmann::json& expected, double most = 1e-9) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double wanted = expected[i].get<double>();
    CHECK(std::abs(got[static_cast<std::int64_t>(i)].item<double>() - wanted) <=
          most * std::max(1e-3, std::abs(wanted)));
  }
}

FeatureStatistics of_parts(const Tensor& x, const std::vector<std::int64_t>& sizes) {
  std::vector<FeatureStatistics> parts;
  for (const Tensor& part : x.split_with_sizes(sizes)) parts.push_back(statistics_of(part));
  FeatureStatistics total = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) total = merged(total, parts[i]);
  return total;
}

}  // namespace

TEST_CASE("feature statistics: those of numpy over all samples, however these are divided") {
  const nlohmann::json expected = read_json("tests/golden/feature_statistics.json");
  const Tensor x = pooled_samples();
  for (const std::vector<std::int64_t>& sizes :
       {std::vector<std::int64_t>{200}, std::vector<std::int64_t>{1, 199}, std::vector<std::int64_t>{50, 3, 100, 47}}) {
    const FeatureStatistics total = of_parts(x, sizes);
    check_near(total.count, expected["count"]);
    check_near(total.missing, expected["missing"]);
    check_near(total.mean, expected["mean"]);
    check_near((total.squares / total.count).sqrt(), expected["deviation"]);
    check_near(total.least, expected["least"]);
    check_near(total.greatest, expected["greatest"]);
  }
  // Of an image a channel has a value for each pixel.
  const FeatureStatistics image = statistics_of(x.select(1, 0).reshape({20, 1, 5, 2}));
  check_near(image.mean, nlohmann::json::array({expected["mean"][0]}));
  CHECK(image.count[0].item<double>() == 200);
}

TEST_CASE("feature statistics: a place without values of a feature changes nothing of it") {
  const FeatureStatistics none = statistics_of(torch::full({4, 1}, nothing));
  CHECK(none.missing[0].item<double>() == 4);
  const FeatureStatistics some = statistics_of(torch::tensor({5.0F, 7.0F}).view({2, 1}));
  for (const FeatureStatistics& both : {merged(none, some), merged(some, none)}) {
    CHECK(both.count[0].item<double>() == 2);
    CHECK(both.mean[0].item<double>() == 6);
    CHECK(both.squares[0].item<double>() == 2);
    CHECK(both.least[0].item<double>() == 5);
    CHECK(both.greatest[0].item<double>() == 7);
  }
}

TEST_CASE("feature statistics: a feature that does not vary, has no values or is no number is not scaled") {
  TableTerms table{.label = "y"};
  table.add({"same", {}});
  table.add({"none", {}});
  table.add({"kind", {"a", "b"}});
  table.add({"varies", {}});
  const Tensor x = torch::tensor({{0.1F, nothing, 1.0F, 0.0F, 1.0F}, {0.1F, nothing, 0.0F, 1.0F, 3.0F}});
  const FeatureScaling scaling = scaling_of(statistics_of(x.repeat({333, 1})), table);
  CHECK(scaling.deviation == std::vector<double>{1, 1, 1, 1, 1});
  CHECK(scaling.mean[0] == doctest::Approx(0.1).epsilon(1e-6));
  CHECK(std::vector<double>(scaling.mean.begin() + 1, scaling.mean.end()) == std::vector<double>{0, 0, 0, 2});
  CHECK(feature_names(table, 5) == std::vector<std::string>{"same", "none", "kind=a", "kind=b", "varies"});
  CHECK(feature_names({}, 2) == std::vector<std::string>{"0", "1"});
}

TEST_CASE("feature statistics: what a silo releases") {
  TableTerms table{.label = "y"};
  table.add({"age", {}});
  table.add({"rare", {}});
  table.add({"kind", {"a"}});
  const FeatureStatistics own = statistics_of(
      torch::tensor({{1.0F, 9.0F, 1.0F}, {2.0F, nothing, 1.0F}, {6.0F, nothing, nothing}, {nothing, nothing, 0.0F}}));
  const FeatureStatistics said = released(own, table, 3, false);
  CHECK(said.count.equal(torch::tensor({3.0, 0.0, 0.0}, torch::kDouble)));
  CHECK(said.missing.equal(torch::tensor({1.0, 4.0, 1.0}, torch::kDouble)));
  CHECK(said.mean.equal(torch::tensor({3.0, 0.0, 0.0}, torch::kDouble)));
  CHECK(said.squares.equal(torch::tensor({14.0, 0.0, 0.0}, torch::kDouble)));
  CHECK(said.least.abs().sum().item<double>() == 0);
  CHECK(said.greatest.abs().sum().item<double>() == 0);
  const FeatureStatistics shown = released(own, table, 3, true);
  CHECK(shown.greatest.equal(torch::tensor({6.0, 0.0, 0.0}, torch::kDouble)));
}

TEST_CASE("feature statistics: they travel whole, and what no samples have is refused") {
  const FeatureStatistics own = statistics_of(pooled_samples());
  const FeatureStatistics back = unpacked(packed(own), true);
  CHECK(packed(back).equal(packed(own)));
  const auto refusal = [&own](std::int64_t row, double value) {
    Tensor changed = packed(own).clone();
    changed[row][0] = value;
    return test::error_of(Errc::data, [&] { (void)unpacked(changed, true); });
  };
  const double no_number = std::nan("");
  CHECK(refusal(0, 1.5).find("a number of samples that is none") != std::string::npos);
  CHECK(refusal(1, -1).find("a number of samples that is none") != std::string::npos);
  CHECK(refusal(0, 0).find("a mean of no values") != std::string::npos);
  CHECK(refusal(2, no_number).find("a mean that is no number") != std::string::npos);
  CHECK(refusal(2, 1e300).find("a mean that is no number") != std::string::npos);
  CHECK(refusal(3, -1).find("a sum of squares") != std::string::npos);
  CHECK(refusal(3, no_number).find("a sum of squares") != std::string::npos);
  CHECK(refusal(4, 1e6).find("a mean outside of its range") != std::string::npos);
}

}  // namespace headstart::learn
