#include "shared/learn/train/head_sums.hpp"

#include <cmath>
#include <limits>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {
namespace {

struct Golden {
  Golden() : document(read_json("tests/golden/head_vectors.json")) {}
  [[nodiscard]] Tensor at(const char* key) const { return test::tensor_of(document.at(key)); }
  [[nodiscard]] Tensor labels() const {
    return torch::tensor(document.at("labels").get<std::vector<std::int64_t>>(), torch::kLong);
  }
  nlohmann::json document;
};

TEST_CASE("head from sums: moments, gradient and steps are PyTorch's") {
  const Golden golden;
  const Tensor inputs = golden.at("inputs");
  CHECK(test::largest_difference(moments_of(inputs), golden.at("moments")) < test::golden_tolerance);
  CHECK(test::largest_difference(head_gradient(inputs, golden.labels(), golden.at("head")), golden.at("gradient")) <
        test::golden_tolerance);
  HeadFit fit(moments_of(inputs), inputs.size(0), golden.document.at("damping"), golden.at("head"));
  for (const nlohmann::json& point : golden.document.at("points")) {
    CHECK(test::largest_difference(fit.point(), test::tensor_of(point)) < test::golden_tolerance);
    fit.step(head_gradient(inputs, golden.labels(), fit.point()), inputs.size(0));
  }
}

double mean_loss(const Tensor& inputs, const Tensor& labels, const Tensor& head) {
  return evaluate_logits(inputs.matmul(head), labels, head.size(1)).loss();
}

TEST_CASE("head from sums: many steps reach what no step improves") {
  const Golden golden;
  const Tensor inputs = golden.at("inputs");
  const Tensor labels = golden.labels();
  HeadFit fit(moments_of(inputs), inputs.size(0), 1e-3, golden.at("head"));
  const double before = mean_loss(inputs, labels, fit.point());
  for (int step = 0; step < 3000; ++step) fit.step(head_gradient(inputs, labels, fit.point()), inputs.size(0));
  CHECK(mean_loss(inputs, labels, fit.point()) < before - 0.3);
  CHECK(head_gradient(inputs, labels, fit.point()).abs().max().item<double>() < 1e-3);
}

TEST_CASE("head from sums: however samples are divided among silos, the sums are the same") {
  for (std::uint64_t draw = 0; draw < 20; ++draw) {
    CAPTURE(draw);
    const Seed seed = Seed(7).child(draw);
    const std::int64_t count = 100 + static_cast<std::int64_t>(draw) * 17;
    const Tensor inputs = torch::cat(
        {30 * torch::randn({count, 8}, generator(seed), torch::kDouble), torch::ones({count, 1}, torch::kDouble)}, 1);
    const Tensor labels = torch::randint(4, {count}, generator(seed.child("labels")), torch::kLong);
    const Tensor head = torch::randn({9, 4}, generator(seed.child("head")), torch::kDouble);
    const Tensor order = permutation(count, seed.child("order"));
    Tensor moments, gradient, reversed;
    std::int64_t begin = 0;
    std::vector<Tensor> parts;
    for (const std::int64_t size : {std::int64_t{1}, count / 3, count - 1 - count / 3}) {
      const Tensor rows = order.narrow(0, begin, size);
      begin += size;
      const Tensor part = to_fixed_point(moments_of(inputs.index_select(0, rows)));
      parts.push_back(part);
      moments = moments.defined() ? moments + part : part;
      const Tensor part_gradient =
          to_fixed_point(head_gradient(inputs.index_select(0, rows), labels.index_select(0, rows), head));
      gradient = gradient.defined() ? gradient + part_gradient : part_gradient;
    }
    for (auto part = parts.rbegin(); part != parts.rend(); ++part)
      reversed = reversed.defined() ? reversed + *part : *part;
    CHECK(torch::equal(moments, reversed));
    const Tensor whole = moments_of(inputs);
    CHECK(test::largest_difference(from_fixed_point(moments), whole) < 1e-9 * whole.abs().max().item<double>());
    const Tensor whole_gradient = head_gradient(inputs, labels, head);
    CHECK(test::largest_difference(from_fixed_point(gradient), whole_gradient) <
          1e-9 * std::max(1e4, whole_gradient.abs().max().item<double>()));
  }
}

TEST_CASE("head from sums: a head is what the model computes its logits with") {
  for (const Norm norm : {Norm::none, Norm::batch}) {
    ModelSpec spec = test::small_spec(norm);
    spec.second_head = norm == Norm::batch;
    const auto model = make_model(spec, test::small_task, Seed(3));
    const Samples samples = test::separable_samples(20, Seed(4));
    const Tensor inputs = head_inputs(*model, samples.x, 7);
    CHECK((inputs.sizes() == at::IntArrayRef{20, 17}));
    CHECK(test::largest_difference(inputs.matmul(head_of(*model)), logits_of(*model, samples.x)) < 1e-5);
    const Tensor other = torch::randn({17, 4}, generator(Seed(5)), torch::kDouble);
    set_head(*model, other);
    CHECK(test::largest_difference(inputs.matmul(other), logits_of(*model, samples.x)) < 1e-4);
  }
}

/// Of tests/golden/named_heads.py.
std::unique_ptr<Model> named_head(const std::string& name) {
  return make_model({.name = "script:tests/golden/named_heads/" + name + ".pt"}, test::small_task, Seed(3));
}

TEST_CASE("head from sums: a script that names its head shows it, and one that does so wrongly is refused") {
  const auto model = named_head("Named");
  CHECK(model->shows_features());
  CHECK(model->head_prefix(Head::first) == "head.");
  const Samples samples = test::separable_samples(20, Seed(4));
  const Tensor inputs = head_inputs(*model, samples.x, 7);
  CHECK(test::largest_difference(inputs.matmul(head_of(*model)), logits_of(*model, samples.x)) < 1e-5);
  const auto refusal = [&](const std::string& name) {
    return test::error_of(Errc::data, [&] { head_inputs(*named_head(name), samples.x); });
  };
  CHECK(refusal("Scaled").find("forward() must return head(features(x))") != std::string::npos);
  CHECK(
      refusal("Narrow").find("features() must map samples to [20, 12], what head.weight reads; got float32 [20, 3]") !=
      std::string::npos);
  const auto silent = make_model({.name = "script:tests/golden/two_heads/Sum.pt"}, test::small_task, Seed(3));
  CHECK_FALSE(silent->shows_features());
  CHECK(test::error_of(Errc::usage, [&] { head_inputs(*silent, samples.x); }).find("client/scripts.md") !=
        std::string::npos);
}

TEST_CASE("head from sums: what cannot be summed or fitted is refused in a sentence") {
  const auto failure = [](const auto& call) { return test::error_of(Errc::run_failed, call); };
  const double infinite = std::numeric_limits<double>::infinity();
  CHECK(failure([&] { to_fixed_point(torch::full({2}, infinite, torch::kDouble)); }) ==
        "a sum over samples is not finite");
  CHECK(failure([&] { to_fixed_point(torch::full({2}, std::nan(""), torch::kDouble)); }) ==
        "a sum over samples is not finite");
  CHECK(failure([&] { to_fixed_point(torch::full({2}, 1e10, torch::kDouble)); }).find("1e+10") != std::string::npos);
  const Tensor none = torch::cat({torch::zeros({5, 3}, torch::kDouble), torch::ones({5, 1}, torch::kDouble)}, 1);
  const Tensor head = torch::zeros({4, 2}, torch::kDouble);
  CHECK(failure([&] { HeadFit(moments_of(none), 5, 0.01, head); }).find("the model's features are all zero") !=
        std::string::npos);
  // Equal features are no obstacle: the damping makes the moments regular.
  const Tensor equal = torch::ones({5, 4}, torch::kDouble);
  HeadFit fit(moments_of(equal), 5, 0.01, head);
  fit.step(head_gradient(equal, torch::zeros({5}, torch::kLong), head), 5);
  CHECK(at::isfinite(fit.point()).all().item<bool>());
}

}  // namespace
}  // namespace headstart::learn
