#include "server/phases/sums_teacher.hpp"

#include <algorithm>

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
    if (is_joint()) note_left_out();
    WithoutSums without;
    FeatureSums sums(context_, std::move(features), PhaseKind::teacher_fitting, without);
    auto asking = sums.closed_form();
    const FeatureSums::ClosedForm closed = co_await std::move(asking);
    require_quorum(sums, closed.moments);
    require_quorum(sums, closed.class_sums);
    auto picking = pick(sums, closed.moments, closed.class_sums);
    co_return co_await std::move(picking);
  }

 private:
  [[nodiscard]] bool is_joint() const { return context_.options().consolidation.target == TeachingTarget::joint; }

  void note_left_out() const {
    for (const std::string& teacher : plan_.teachers) {
      if (std::ranges::find(clients_, teacher) != clients_.end()) continue;
      context_.leave_out({PhaseKind::teacher_fitting}, teacher, "its model shows no features, or none that are finite");
    }
  }

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
      constexpr std::int64_t most_features = 4096;
      if (options.projection == 0 && of_public.size(1) > most_features) {
        throw Error(
            Errc::run_failed,
            fmt::format("consolidation.target joint: {} models have {} features together, and at most {} are summed "
                        "as they are; set consolidation.projection, as to 256",
                        clients_.size(), of_public.size(1), most_features));
      }
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

  /// The plan's teachers and the student's model, where they show features that are finite.
  void find_shared_models() {
    std::vector<std::string> names = plan_.teachers;
    if (plan_.student) names.push_back(*plan_.student);
    std::ranges::sort(names);
    for (const std::string& name : names) {
      const LocalModel& model = models_.models().at(name);
      if (!model.num_bytes || !model.shares_with_peers || model.spec.is_scripted()) continue;
      auto network = learn::make_model(model.spec, context_.data.task, context_.terms().seeds().child("model"));
      network->load(models_.load(model).state());
      network->to(context_.device);
      network = learn::in_precision(std::move(network), context_.terms().precision);
      const Tensor few =
          context_.data.transfer.x.narrow(0, 0, std::min<std::int64_t>(context_.data.transfer.size(), 256));
      if (!at::isfinite(learn::features_of(*network, few.to(context_.device))).all().item<bool>()) continue;
      networks_.push_back(std::move(network));
      clients_.push_back(name);
    }
    if (!clients_.empty()) return;
    throw Error(
        Errc::run_failed,
        "consolidation.target joint: no pre-trained model with share_model: peers shows finite features (cnn and "
        "resnet18 do)");
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
    auto judging = sums.judge(heads);
    const std::vector<JudgedHead> judged = co_await std::move(judging);
    const auto choice = choose_head(judged, context_.metric());
    if (!choice)
      throw Error(Errc::run_failed, "a teacher from sums: nobody rated its heads, so that none can be chosen");
    const auto [damping, scale] = settings[choice->place];
    Tensor logits;
    auto answering =
        net::offload(context_.pool, [&] { logits = public_inputs_.matmul(heads[choice->place]).to(torch::kFloat); });
    co_await std::move(answering);
    nlohmann::json report = {{"silos", moments.num_silos},
                             {"samples", moments.num_samples},
                             {"features", public_inputs_.size(1)},
                             {"damping", damping},
                             {"scale", scale},
                             {"validation_accuracy", choice->rating.accuracy()}};
    co_return SumsTeacher{std::move(logits), clients_, std::move(report)};
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
