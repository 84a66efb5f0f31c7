#include "server/phases/head_from_sums.hpp"

#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/disclosure.hpp"
#include "server/phases/feature_sums.hpp"
#include "shared/learn/train/head_sums.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

using learn::Tensor;

class HeadFitting {
 public:
  HeadFitting(const RunContext& context, DigestedState model, std::int64_t round)
      : context_(context), model_(std::move(model)), round_(round) {}

  net::Task<FittedHead> run() {
    const PhaseKind kind = PhaseKind::head_fitting;
    context_.observer.on_phase({kind, round_}, context_.roster.active().size());
    SummedFeatures features;
    auto preparing = net::offload(context_.pool, [this, &features] { prepare(features); });
    co_await std::move(preparing);
    FeatureSums sums(context_, std::move(features), kind);
    auto asking = sums.moments();
    const FeatureTotal moments = co_await std::move(asking);
    if (!sums.has_quorum(moments)) co_return unchanged(moments.num_silos);
    auto fitting = context_.options().head.method == HeadMethod::steps ? step(sums, moments) : solve(sums, moments);
    co_return co_await std::move(fitting);
  }

 private:
  [[nodiscard]] const HeadOptions& options() const { return context_.options().head; }
  [[nodiscard]] ValidationSource source() const { return context_.options().validation; }

  /// What the server itself computes of the model. On the pool.
  void prepare(SummedFeatures& features) {
    const auto network = context_.make_global_model();
    network->load(model_.state.state());
    own_head_ = learn::head_of(*network);
    features.size = own_head_.size(0);
    features.models = [this](const std::string&) {
      return std::vector<ReleasedState>{DisclosurePolicy::release_model(
          round_ == 0 ? "start model" : fmt::format("model of round {}", round_), model_)};
    };
    if (source() == ValidationSource::server) {
      features.validation_inputs = learn::head_inputs(*network, context_.data.validation.x.to(context_.device));
    } else {
      // A model that shows no features is refused before silos are asked.
      (void)learn::head_inputs(*network, at::zeros(sample_shape()).to(context_.device));
    }
  }
  /// Of one sample that is nobody's.
  [[nodiscard]] std::vector<std::int64_t> sample_shape() const {
    std::vector<std::int64_t> shape = context_.data.task.shape;
    shape.insert(shape.begin(), 1);
    return shape;
  }

  /// HeadMethod::steps.
  net::Task<FittedHead> step(FeatureSums& sums, const FeatureTotal& moments) {
    learn::HeadFit fit(learn::from_fixed_point(moments.sum), moments.num_samples, options().damping, own_head_);
    JudgedHead best;
    std::int64_t kept_step = 0;
    nlohmann::json losses = nlohmann::json::array();
    for (std::int64_t number = 0;; ++number) {
      const bool is_last = number == options().steps;
      FeatureTotal gradient;
      if (!is_last || source() == ValidationSource::federated) {
        auto asking = sums.gradient(fit.point());
        gradient = co_await std::move(asking);
      }
      JudgedHead judged = sums.judged(fit.point(), gradient);
      losses.push_back(judged.loss());
      if (source() == ValidationSource::none || judged.loss() < best.loss() || !best.head.defined()) {
        best = std::move(judged);
        kept_step = number;
      }
      if (is_last || !sums.has_quorum(gradient)) break;  // what there is counts
      fit.step(learn::from_fixed_point(gradient.sum), gradient.num_samples);
    }
    nlohmann::json report = report_of(moments, best);
    report["steps"] = options().steps;
    report["kept_step"] = kept_step;
    if (source() != ValidationSource::none) report["validation_losses"] = std::move(losses);
    auto finishing = finished(best, kept_step > 0, std::move(report));
    co_return co_await std::move(finishing);
  }

  /// HeadMethod::ridge and gaussian.
  net::Task<FittedHead> solve(FeatureSums& sums, const FeatureTotal& moments) {
    auto asking = sums.gradient(torch::zeros_like(own_head_));
    const FeatureTotal class_sums = co_await std::move(asking);
    if (!sums.has_quorum(class_sums) || class_sums.num_samples != moments.num_samples) {
      co_return unchanged(class_sums.num_silos);
    }
    const bool is_ridge = options().method == HeadMethod::ridge;
    const auto solve_for = is_ridge ? learn::ridge_head : learn::gaussian_head;
    const Tensor head = solve_for(learn::from_fixed_point(moments.sum), learn::from_fixed_point(class_sums.sum),
                                  moments.num_samples, options().damping);
    // Targets of least squares are no logits, and Gaussians of one covariance are too sure: a factor makes up for both.
    static constexpr double ridge_scales[] = {1, 2, 4, 8, 12, 16, 24};
    static constexpr double gaussian_scales[] = {0.05, 0.1, 0.2, 0.3, 0.5, 1};
    std::vector<Tensor> heads{own_head_};
    std::vector<double> scales{0};
    const auto add = [&](double scale) {
      heads.push_back(head * scale);
      scales.push_back(scale);
    };
    is_ridge ? static_cast<void>(std::ranges::for_each(ridge_scales, add))
             : static_cast<void>(std::ranges::for_each(gaussian_scales, add));
    auto judging = best_of(sums, heads);
    const JudgedHead best = co_await std::move(judging);
    const auto place = std::ranges::find_if(heads, [&best](const Tensor& other) { return other.is_same(best.head); });
    const double scale = scales[static_cast<std::size_t>(place - heads.begin())];
    nlohmann::json report = report_of(moments, best);
    report["method"] = word_of(Choices<HeadMethod>(head_method_words), options().method);
    report["kept_scale"] = scale;
    auto finishing = finished(best, scale > 0, std::move(report));
    co_return co_await std::move(finishing);
  }

  net::Task<FittedHead> finished(const JudgedHead& best, bool is_changed, nlohmann::json report) {
    auto finishing = net::offload(context_.pool, [this, &best, is_changed] {
      const auto network = context_.make_global_model();
      network->load(model_.state.state());
      if (is_changed) learn::set_head(*network, best.head);
      return wire::PackedState(network->state());
    });
    wire::PackedState state = co_await std::move(finishing);
    co_return FittedHead{std::move(state), std::move(report)};
  }

  [[nodiscard]] nlohmann::json report_of(const FeatureTotal& moments, const JudgedHead& best) const {
    nlohmann::json report = {{"silos", moments.num_silos}, {"samples", moments.num_samples}};
    if (source() == ValidationSource::none) return report;
    report["validation_accuracy"] = best.rating ? nlohmann::json(best.rating->accuracy()) : nlohmann::json();
    return report;
  }

  [[nodiscard]] FittedHead unchanged(std::int64_t num_silos) const {
    const std::string why =
        fmt::format("{} silos sent their sums, and {} are needed", num_silos, quorum_of(context_.options()));
    context_.observer.on_note("the head of the model stays as it is: " + why);
    return {model_.state, {{"kept_step", 0}, {"silos", num_silos}, {"reason", why}}};
  }

  const RunContext& context_;
  DigestedState model_;
  std::int64_t round_;
  Tensor own_head_;
};

}  // namespace

net::Task<FittedHead> with_head_from_sums(const RunContext& context, wire::PackedState state, std::int64_t round) {
  auto hashing = net::offload(context.pool, [&state] { return state.digest(); });
  const std::string digest = co_await std::move(hashing);
  DigestedState model{digest, std::move(state)};
  HeadFitting fitting(context, std::move(model), round);
  auto running = fitting.run();
  co_return co_await std::move(running);
}

}  // namespace headstart::server
