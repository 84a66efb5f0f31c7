#include "shared/learn/distill/experts.hpp"

#include <limits>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/models/mixed_precision.hpp"
#include "shared/learn/train/head_sums.hpp"
#include "shared/learn/train/train.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {
namespace {

struct Golden {
  Golden() : document(read_json("tests/golden/expert_vectors.json")) {}
  [[nodiscard]] Tensor at(const char* key) const { return test::tensor_of(document.at(key)); }
  [[nodiscard]] Tensor labels() const {
    return torch::tensor(document.at("labels").get<std::vector<std::int64_t>>(), torch::kLong);
  }
  nlohmann::json document;
};

/// The optimum is found by another method; its own stop leaves so much.
constexpr double optimum_tolerance = 1e-6;

TEST_CASE("experts: log-odds, targets and heads in closed form are PyTorch's") {
  const Golden golden;
  const double penalty = golden.document.at("penalty");
  CHECK(test::largest_difference(density_log_odds(golden.at("own"), golden.at("public"), penalty),
                                 golden.at("log_odds")) < optimum_tolerance);
  CHECK(test::largest_difference(
            expert_targets(golden.at("logits"), golden.at("weights"), golden.document.at("temperature")),
            golden.at("targets")) < 1e-6);
  const FeatureMap map{.projection = golden.at("projection"), .lift = golden.at("lift")};
  const Tensor inputs = mapped(golden.at("features"), map);
  CHECK(test::largest_difference(inputs, golden.at("mapped")) < test::golden_tolerance);
  const double damping = golden.document.at("damping");
  const auto class_sums = [&](const Tensor& u) {
    return head_gradient(u, golden.labels(), torch::zeros({u.size(1), 3}, torch::kDouble));
  };
  CHECK(test::largest_difference(ridge_head(moments_of(inputs), class_sums(inputs), inputs.size(0), damping),
                                 golden.at("ridge")) < optimum_tolerance);
  const Tensor plain = mapped(golden.at("features"), {});
  CHECK(test::largest_difference(gaussian_head(moments_of(plain), class_sums(plain), plain.size(0), damping),
                                 golden.at("gaussian")) < optimum_tolerance);
}

TEST_CASE("experts: a sample counts for the silo whose own it is like") {
  const Tensor here = torch::randn({200, 3}, generator(Seed(1)), torch::kDouble);
  const Tensor there = here + torch::tensor({6.0, 0.0, 0.0}, torch::kDouble);
  const Tensor open = torch::cat({here.narrow(0, 0, 50), there.narrow(0, 0, 50)});
  for (const Density density : {Density::ratio, Density::bounded}) {
    const Tensor weights = density_weights(density_log_odds(here, open), density);
    CHECK(weights.narrow(0, 0, 50).mean().item<double>() > 5 * weights.narrow(0, 50, 50).mean().item<double>());
    CHECK(weights.ge(0).all().item<bool>());
    if (density == Density::bounded) CHECK(weights.le(1).all().item<bool>());
  }
  // Features that are all equal tell nothing apart.
  const Tensor alike = density_log_odds(torch::ones({7, 2}, torch::kDouble), torch::ones({5, 2}, torch::kDouble));
  CHECK(alike.abs().max().item<double>() < 1e-9);
  const Tensor broken = torch::full({7, 2}, std::numeric_limits<double>::infinity(), torch::kDouble);
  CHECK(test::error_of(Errc::run_failed, [&] {
          density_log_odds(broken, torch::ones({5, 2}, torch::kDouble));
        }).find("features are not finite") != std::string::npos);
}

TEST_CASE("experts: a Gaussian head never answers a class that no silo has, though sums are rounded") {
  constexpr std::int64_t num_classes = 10;  // the ninth and last is nobody's
  Tensor moments, class_sums;
  std::int64_t num_samples = 0;
  for (std::uint64_t silo = 0; silo < 3; ++silo) {
    const Seed seed = Seed(11).child(silo);
    const Tensor inputs = mapped(torch::randn({333, 4}, generator(seed), torch::kDouble) + 2, {});
    const Tensor labels = torch::randint(num_classes - 1, {333}, generator(seed.child("labels")), torch::kLong);
    const Tensor part = to_fixed_point(moments_of(inputs));
    const Tensor zeros = torch::zeros({5, num_classes}, torch::kDouble);
    const Tensor part_of_classes = to_fixed_point(head_gradient(inputs, labels, zeros));
    moments = moments.defined() ? moments + part : part;
    class_sums = class_sums.defined() ? class_sums + part_of_classes : part_of_classes;
    num_samples += 333;
  }
  const Tensor head = gaussian_head(from_fixed_point(moments), from_fixed_point(class_sums), num_samples, 0.01);
  const Tensor logits = mapped(torch::randn({200, 4}, generator(Seed(12)), torch::kDouble) + 2, {}).matmul(head);
  CHECK(logits.argmax(1).max().item<std::int64_t>() < num_classes - 1);
}

TEST_CASE("experts: packed answers come back, whatever their width, and their sum is any order's") {
  for (const std::int64_t bits : answer_widths) {
    CAPTURE(bits);
    const double most = static_cast<double>((std::int64_t{1} << bits) - 1);
    Tensor sum, reversed;
    std::vector<Tensor> all;
    for (std::uint64_t silo = 0; silo < 5; ++silo) {
      Tensor answers = torch::rand({7, 3}, generator(Seed(9).child(silo)), torch::kDouble);
      answers[0][0] = 0;
      answers[6][2] = 1;
      const Tensor packed = packed_answers(answers, bits);
      CHECK(packed.size(0) == answer_bytes(21, bits));
      const Tensor back = unpacked_answers(packed, 21, bits).view({7, 3});
      CHECK(test::largest_difference(back.to(torch::kDouble) / most, answers) <= 0.5 / most + 1e-12);
      sum = sum.defined() ? sum + back : back;
      all.push_back(back);
    }
    for (auto one = all.rbegin(); one != all.rend(); ++one) reversed = reversed.defined() ? reversed + *one : *one;
    CHECK(torch::equal(sum, reversed));
    const Tensor targets = targets_of_sum(sum);
    CHECK(test::largest_difference(targets.sum(1).to(torch::kDouble), torch::ones({7}, torch::kDouble)) < 1e-6);
  }
  CHECK((targets_of_sum(torch::zeros({1, 4}, torch::kLong)) == 0.25).all().item<bool>());
  CHECK(test::error_of(Errc::run_failed, [] {
          packed_answers(torch::tensor({0.5, 1.5}), 12);
        }).find("not within 0 and 1") != std::string::npos);
  Tensor odd = packed_answers(torch::tensor({0.5, 0.5, 0.5}, torch::kDouble), 12);
  odd[4] = 0xf0;
  CHECK(test::error_of(Errc::run_failed, [&] { unpacked_answers(odd, 3, 12); }).find("no answer's") !=
        std::string::npos);
}

TEST_CASE("feature map: principal directions are uncorrelated, of deviation 1, and no more than vary") {
  for (const std::int64_t count : {40, 6}) {  // more samples than features, and fewer
    CAPTURE(count);
    const Tensor features = torch::randn({count, 12}, generator(Seed(2)), torch::kDouble) + 3;
    const Tensor projection = principal_projection(features, 5);
    const Tensor z = mapped(features, {.projection = projection, .lift = {}}).narrow(1, 0, projection.size(1));
    const Tensor covariance = z.t().matmul(z) / static_cast<double>(count);
    CHECK(test::largest_difference(covariance, torch::eye(projection.size(1), torch::kDouble)) < 1e-8);
    CHECK(z.mean(0).abs().max().item<double>() < 1e-9);
  }
  CHECK(principal_projection(torch::randn({6, 12}, generator(Seed(2)), torch::kDouble), 12).size(1) == 5);
  CHECK(test::error_of(Errc::run_failed, [] {
          principal_projection(torch::ones({4, 3}, torch::kDouble), 2);
        }).find("all equal") != std::string::npos);
  CHECK(test::error_of(Errc::protocol, [] {
          mapped(torch::ones({4, 3}, torch::kDouble), {.projection = torch::ones({3, 2}, torch::kDouble), .lift = {}});
        }).find("projection is not for the model's features") != std::string::npos);
}

TEST_CASE("mixed precision: float32 outside, near float32 inside, the same bits twice") {
  const auto plain = make_model(test::small_spec(Norm::batch), test::small_task, Seed(3));
  const auto make = [] {
    return in_precision(make_model(test::small_spec(Norm::batch), test::small_task, Seed(3)), Precision::bf16_emulated);
  };
  const auto mixed = make();
  const Samples samples = test::separable_samples(64, Seed(4));
  plain->set_training(false);
  mixed->set_training(false);
  const Tensor expected = plain->forward(samples.x);
  const Tensor got = mixed->forward(samples.x);
  CHECK((got.scalar_type() == torch::kFloat));
  CHECK(test::largest_difference(got, expected) < 0.05 * expected.abs().max().item<double>());
  CHECK_FALSE(torch::equal(got, expected));
  CHECK((plain->schema() == mixed->schema()));

  TrainOptions options;
  options.batch_size = 16;
  const auto trained = [&] {
    const auto model = make();
    const double loss = train(*model, samples, options, epoch_orders(64, 3, Seed(5)));
    return std::pair(loss, model->state());
  };
  const auto [first_loss, first] = trained();
  const auto [second_loss, second] = trained();
  CHECK(first_loss == second_loss);
  CHECK(bitwise_equal(first, second));
  for (const NamedTensor& named : first.tensors()) {
    if (named.tensor.is_floating_point()) CHECK((named.tensor.scalar_type() == torch::kFloat));
  }
  const double loss_in_float32 = train(*plain, samples, options, epoch_orders(64, 3, Seed(5)));
  CHECK(first_loss == doctest::Approx(loss_in_float32).epsilon(0.05));
}

}  // namespace
}  // namespace headstart::learn
