#include "server/phases/sums_teacher.hpp"

#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/disclosure.hpp"
#include "server/phases/feature_sums.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

using learn::Tensor;

/// Ridge targets are no logits; the factor that makes them such is picked among these.
constexpr double scales[] = {1, 2, 4, 8, 12, 16, 24};
/// Dampings that are tried where that costs no exchange.
constexpr double dampings[] = {1e-4, 1e-3, 1e-2, 1e-1};

class TeacherFitting {
 public:
  TeacherFitting(const RunContext& context, const LocalModels& models, const ConsolidationPlan& plan)
      : context_(context), models_(models), plan_(plan) {}

  net::Task<SumsTeacher> run() {
    context_.observer.on_phase({PhaseKind::teacher_fitting}, context_.roster.active().size());
    SummedFeatures features;
    auto preparing = net::offload(context_.pool, [this, &features] { prepare(features); });
    co_await std::move(preparing);
    FeatureSums sums(context_, std::move(features), PhaseKind::teacher_fitting);
    auto asking = sums.moments();
    const FeatureTotal moments = co_await std::move(asking);
    require_quorum(sums, moments);
    const std::int64_t size = public_inputs_.size(1);
    auto asking_for_classes = sums.gradient(torch::zeros({size, context_.data.task.num_classes}, torch::kDouble));
    const FeatureTotal class_sums = co_await std::move(asking_for_classes);
    require_quorum(sums, class_sums);
    if (class_sums.num_samples != moments.num_samples) {
      throw Error(Errc::run_failed,
                  fmt::format("a teacher from sums: a silo was lost between its two sums, which are of "
                              "{} and {} samples",
                              moments.num_samples, class_sums.num_samples));
    }
    auto picking = pick(sums, moments, class_sums);
    co_return co_await std::move(picking);
  }

 private:
  [[nodiscard]] bool is_joint() const { return context_.options().consolidation.target == TeachingTarget::joint; }

  void require_quorum(const FeatureSums& sums, const FeatureTotal& total) const {
    if (sums.has_quorum(total)) return;
    throw Error(Errc::run_failed, fmt::format("a teacher from sums: {} silos sent their sums, and {} are needed",
                                              total.num_silos, quorum_of(context_.options())));
  }

  /// Features of all models, and the map that the public set gives them. On the pool.
  void prepare(SummedFeatures& features) {
    const learn::KeepFreedMemory keep_freed_memory;
    is_joint() ? find_shared_models() : take_student();
    const Tensor of_public = features_of(context_.data.transfer.x);
    const ConsolidationOptions& options = context_.options().consolidation;
    if (is_joint()) {
      if (options.projection > 0) map_.projection = learn::principal_projection(of_public, options.projection);
    } else {
      map_.projection = learn::scaling_projection(of_public);
      map_.lift = learn::random_lift(of_public.size(1), options.lift, context_.terms().seeds().child("lift"));
    }
    public_inputs_ = learn::mapped(of_public, map_);
    features.map = map_;
    features.size = public_inputs_.size(1);
    features.models = [this](const std::string& recipient) { return released_to(recipient); };
    if (context_.options().validation == ValidationSource::server) {
      features.validation_inputs = learn::mapped(features_of(context_.data.validation.x), map_);
    }
  }

  void take_student() {
    student_ = plan_.student ? models_.load(models_.models().at(*plan_.student))
                             : wire::PackedState(context_.make_global_model()->state());
    student_digest_ = student_.digest();
    networks_.push_back(context_.make_global_model());
    networks_.back()->load(student_.state());
    if (plan_.student) clients_.push_back(*plan_.student);
  }

  void find_shared_models() {
    for (const auto& [name, model] : models_.models()) {
      if (!model.num_bytes || !model.shares_with_peers) continue;
      auto network = learn::make_model(model.spec, context_.data.task, context_.terms().seeds().child("model"));
      if (!network->shows_features() || model.spec.is_scripted()) continue;
      network->load(models_.load(model).state());
      network->to(context_.device);
      networks_.push_back(learn::in_precision(std::move(network), context_.terms().precision));
      clients_.push_back(name);
    }
    if (clients_.empty()) {
      throw Error(
          Errc::run_failed,
          "consolidation.target joint: no pre-trained model with share_model: peers shows its features (cnn and "
          "resnet18 do)");
    }
  }

  [[nodiscard]] Tensor features_of(const Tensor& x) {
    std::vector<Tensor> parts;
    for (const auto& network : networks_) {
      parts.push_back(learn::features_of(*network, x.to(context_.device), 256, context_.stop));
    }
    return torch::cat(parts, 1);
  }

  [[nodiscard]] std::vector<ReleasedState> released_to(const std::string& recipient) const {
    std::vector<ReleasedState> released;
    if (!is_joint()) {
      released.push_back(DisclosurePolicy::release_model("student", DigestedState{student_digest_, student_}));
      return released;
    }
    for (const std::string& name : clients_) {
      const LocalModel& model = models_.models().at(name);
      auto bytes = session::source_of_model_file(context_.folder.model_of(name), *model.num_bytes);
      released.push_back(DisclosurePolicy(recipient).release(name, model, std::move(bytes)));
    }
    return released;
  }

  net::Task<SumsTeacher> pick(FeatureSums& sums, const FeatureTotal& moments, const FeatureTotal& class_sums) {
    const bool is_free = context_.options().validation == ValidationSource::server;
    std::vector<double> tried(std::begin(dampings), std::end(dampings));
    if (!is_free) tried.assign(1, context_.options().head.damping);  // each head that silos rate is an exchange
    std::vector<Tensor> heads;
    std::vector<std::pair<double, double>> settings;
    auto solving = net::offload(context_.pool, [&] {
      for (const double damping : tried) {
        const Tensor head = learn::ridge_head(learn::from_fixed_point(moments.sum),
                                              learn::from_fixed_point(class_sums.sum), moments.num_samples, damping);
        for (const double scale : scales) {
          heads.push_back(head * scale);
          settings.emplace_back(damping, scale);
        }
      }
    });
    co_await std::move(solving);
    auto judging = best_of(sums, heads);
    const JudgedHead best = co_await std::move(judging);
    const auto place = std::ranges::find_if(heads, [&best](const Tensor& other) { return other.is_same(best.head); });
    const auto [damping, scale] = settings[static_cast<std::size_t>(place - heads.begin())];
    nlohmann::json report = {{"silos", moments.num_silos},
                             {"samples", moments.num_samples},
                             {"features", public_inputs_.size(1)},
                             {"damping", damping},
                             {"scale", scale}};
    if (best.rating) report["validation_accuracy"] = best.rating->accuracy();
    co_return SumsTeacher{public_inputs_.matmul(best.head).to(torch::kFloat), clients_, std::move(report)};
  }

  const RunContext& context_;
  const LocalModels& models_;
  const ConsolidationPlan& plan_;
  std::vector<std::unique_ptr<learn::Model>> networks_;
  std::vector<std::string> clients_;
  wire::PackedState student_;
  std::string student_digest_;
  learn::FeatureMap map_;
  Tensor public_inputs_;
};

}  // namespace

net::Task<SumsTeacher> teacher_from_sums(const RunContext& context, const LocalModels& models,
                                         const ConsolidationPlan& plan) {
  TeacherFitting fitting(context, models, plan);
  auto running = fitting.run();
  co_return co_await std::move(running);
}

}  // namespace headstart::server
