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
  HeadFitting(const RunContext& context, DigestedState model, WithoutSums& without, std::int64_t round)
      : context_(context), model_(std::move(model)), without_(without), round_(round) {}

  net::Task<FittedHead> run() {
    const PhaseKind kind = PhaseKind::head_fitting;
    context_.observer.on_phase({kind, round_}, context_.roster.active().size());
    SummedFeatures features;
    auto preparing = net::offload(context_.pool, [this, &features] { prepare(features); });
    co_await std::move(preparing);
    FeatureSums sums(context_, std::move(features), kind, without_);
    std::string why;
    try {
      auto fitting = options().method == HeadMethod::steps ? step(sums) : solve(sums);
      co_return co_await std::move(fitting);
    } catch (const Error& error) {
      // A round's model is worth more than its head: sums that are of no use end nothing.
      if (error.code() != Errc::run_failed) throw;
      why = error.what();
    }
    co_return unchanged(why);
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
      std::string what = round_ == 0 ? "start model" : fmt::format("model of round {}", round_);
      return std::vector<ReleasedState>{DisclosurePolicy::release_model(std::move(what), model_)};
    };
    if (source() != ValidationSource::server) return;
    features.validation_inputs = learn::head_inputs(*network, context_.data.validation.x.to(context_.device));
  }

  void require_quorum(const FeatureSums& sums, const FeatureTotal& total) const {
    if (sums.has_quorum(total)) return;
    throw Error(Errc::run_failed, fmt::format("{} silos sent their sums, and {} are needed", total.num_silos,
                                              quorum_of(context_.options())));
  }

  /// HeadMethod::steps.
  net::Task<FittedHead> step(FeatureSums& sums) {
    auto asking_for_moments = sums.moments();
    const FeatureTotal moments = co_await std::move(asking_for_moments);
    require_quorum(sums, moments);
    std::optional<learn::HeadFit> fit;
    auto factoring = net::offload(context_.pool, [&] {
      fit.emplace(learn::from_fixed_point(moments.sum), moments.num_samples, options().damping, own_head_);
    });
    co_await std::move(factoring);
    std::vector<JudgedHead> heads;
    for (std::int64_t number = 0;; ++number) {
      const bool is_last = number == options().steps;
      FeatureTotal gradient;
      if (!is_last || source() == ValidationSource::federated) {
        auto asking = sums.gradient(fit->point());
        gradient = co_await std::move(asking);
      }
      auto judging = sums.judged(fit->point(), gradient);
      heads.push_back(co_await std::move(judging));
      if (is_last || !sums.has_quorum(gradient)) break;  // what there is counts
      auto stepping =
          net::offload(context_.pool, [&] { fit->step(learn::from_fixed_point(gradient.sum), gradient.num_samples); });
      co_await std::move(stepping);
    }
    const auto choice = choose_head(heads, context_.metric());
    // Without a source the last head is taken on trust; where nobody can compare them, the own one stays.
    const std::size_t place = choice ? choice->place : source() == ValidationSource::none ? heads.size() - 1 : 0;
    nlohmann::json report = report_of(moments, choice);
    report["steps"] = options().steps;
    report["kept_step"] = place;
    if (choice) report["validation_losses"] = choice->losses;
    auto finishing = finished(heads[place].head, place > 0, std::move(report));
    co_return co_await std::move(finishing);
  }

  /// HeadMethod::ridge and gaussian.
  net::Task<FittedHead> solve(FeatureSums& sums) {
    auto asking = sums.closed_form();
    const FeatureSums::ClosedForm closed = co_await std::move(asking);
    require_quorum(sums, closed.moments);
    require_quorum(sums, closed.class_sums);
    // Targets of least squares are no logits, and Gaussians of one covariance are too sure: a factor makes up for both.
    const bool is_ridge = options().method == HeadMethod::ridge;
    std::vector<double> scales =
        is_ridge ? std::vector<double>{0, 1, 2, 4, 8, 12, 16, 24} : std::vector<double>{0, 0.05, 0.1, 0.2, 0.3, 0.5, 1};
    std::vector<Tensor> heads;
    auto solving = net::offload(context_.pool, [&] {
      const auto solve_for = is_ridge ? learn::ridge_head : learn::gaussian_head;
      const Tensor head =
          solve_for(learn::from_fixed_point(closed.moments.sum), learn::from_fixed_point(closed.class_sums.sum),
                    closed.moments.num_samples, options().damping);
      for (const double scale : scales) heads.push_back(scale == 0 ? own_head_ : head * scale);
    });
    co_await std::move(solving);
    auto judging = sums.judge(heads);
    const std::vector<JudgedHead> judged = co_await std::move(judging);
    const auto choice = choose_head(judged, context_.metric());
    const std::size_t place = choice ? choice->place : 0;
    nlohmann::json report = report_of(closed.moments, choice);
    report["method"] = word_of(Choices<HeadMethod>(head_method_words), options().method);
    report["kept_scale"] = scales[place];
    auto finishing = finished(heads[place], place > 0, std::move(report));
    co_return co_await std::move(finishing);
  }

  net::Task<FittedHead> finished(Tensor head, bool is_changed, nlohmann::json report) {
    auto finishing = net::offload(context_.pool, [this, &head, is_changed] {
      const auto network = context_.make_global_model();
      network->load(model_.state.state());
      if (is_changed) learn::set_head(*network, head);
      return wire::PackedState(network->state());
    });
    wire::PackedState state = co_await std::move(finishing);
    co_return FittedHead{std::move(state), std::move(report)};
  }

  [[nodiscard]] nlohmann::json report_of(const FeatureTotal& moments, const std::optional<HeadChoice>& choice) const {
    nlohmann::json report = {{"silos", moments.num_silos}, {"samples", moments.num_samples}};
    if (source() == ValidationSource::none) return report;
    report["validation_accuracy"] = choice ? nlohmann::json(choice->rating.accuracy()) : nlohmann::json();
    if (choice && !context_.metric().is_accuracy()) report["value"] = context_.metric_value(choice->rating);
    if (!choice) report["reason"] = "no silo rated all of the heads";
    return report;
  }

  [[nodiscard]] FittedHead unchanged(const std::string& why) const {
    context_.observer.on_note("the head of the model stays as it is: " + why);
    return {model_.state, {{"kept_step", 0}, {"reason", why}}};
  }

  const RunContext& context_;
  DigestedState model_;
  WithoutSums& without_;
  std::int64_t round_;
  Tensor own_head_;
};

}  // namespace

net::Task<FittedHead> with_head_from_sums(const RunContext& context, wire::PackedState state, WithoutSums& without,
                                          std::int64_t round) {
  auto hashing = net::offload(context.pool, [&state] { return state.digest(); });
  const std::string digest = co_await std::move(hashing);
  DigestedState model{digest, std::move(state)};
  HeadFitting fitting(context, std::move(model), without, round);
  auto running = fitting.run();
  co_return co_await std::move(running);
}

void require_named_head(const FederationOptions& options, const plan::Terms& terms, const learn::Task& task) {
  const bool is_lifted =
      may_start_from(options, StartModel::kd) && options.consolidation.target == TeachingTarget::lifted;
  if (!fits_heads(options) && !is_lifted) return;
  std::vector<std::int64_t> shape = task.shape;
  shape.insert(shape.begin(), 1);
  try {
    const auto network = learn::make_model(terms.model, task, terms.seeds().child("model"));
    (void)learn::head_inputs(*network, at::zeros(shape));
    if (fits_heads(options)) (void)learn::head_of(*network);
  } catch (const Error& error) {
    throw Error(Errc::usage, fmt::format("start.head, rounds.head or consolidation.target by sums: {}", error.what()));
  }
}

}  // namespace headstart::server
