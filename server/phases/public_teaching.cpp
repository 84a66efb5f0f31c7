#include "server/phases/public_teaching.hpp"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/disclosure.hpp"
#include "server/phases/sums_teacher.hpp"
#include "server/sessions/client_tasks.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/learn/distill/experts.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

using learn::Tensor;

constexpr char diverged_on_public[] = "its model diverged: its logits on the public set are not finite";

learn::DistillOptions options_at(const RunContext& context, double temperature) {
  learn::DistillOptions options = context.terms().consolidation;
  options.temperature = temperature;
  return options;
}

/// [n, C] of one model of the plan, as it teaches.
Tensor teaching_logits(const RunContext& context, const LocalModel& model, const Tensor& logits) {
  return context.options().consolidation.divides_label_prior ? learn::without_label_prior(logits, *model.rating)
                                                             : logits;
}

/// [K, n, C] in the order of the plan's weights.
Tensor teacher_logits(const RunContext& context, const LocalModels& models, const ConsolidationPlan& plan,
                      const Tensor& x) {
  std::vector<Tensor> logits;
  for (const std::string& teacher : plan.teachers) {
    const LocalModel& model = models.models().at(teacher);
    logits.push_back(
        teaching_logits(context, model, model.transfer_logits ? *model.transfer_logits : models.logits(model, x)));
  }
  if (plan.copy_teaches) {
    const LocalModel& copied = models.models().at(*plan.student);
    logits.push_back(teaching_logits(context, copied, models.logits(copied, x)));
  }
  return torch::stack(logits);
}

net::Task<DigestedState> packed_public_samples(const RunContext& context) {
  auto packing = net::offload(context.pool, [&context] {
    const Tensor& stored = context.data.public_bytes;
    const wire::PackedState packed =
        wire::PackedState::of_tensor("samples", stored.defined() ? stored : context.data.transfer.x.cpu());
    return DigestedState{packed.digest(), packed};
  });
  co_return co_await std::move(packing);
}

/// Of each silo that answers, how much each public sample is like its own.
net::Task<std::map<std::string, Tensor>> collect_densities(const RunContext& context,
                                                           const std::vector<std::string>& names) {
  std::vector<std::shared_ptr<ClientSession>> clients;
  for (const std::string& name : names) {
    if (auto client = context.roster.find(name)) clients.push_back(std::move(client));
  }
  context.observer.on_phase({PhaseKind::answering}, clients.size());
  auto packing = packed_public_samples(context);
  const DigestedState samples = co_await std::move(packing);
  const std::int64_t num_samples = context.data.transfer.size();
  std::map<std::string, Tensor> all;
  const auto take_from = [&](ClientSession& client) -> net::Task<bool> {
    auto asking = densities(client, DisclosurePolicy::release_tensors("public samples", samples),
                            static_cast<std::uint64_t>(num_samples));
    Upload upload = co_await std::move(asking);
    std::vector<std::int64_t> shape{num_samples};
    learn::Schema schema({{"log_odds", c10::ScalarType::Double, shape}});
    Tensor log_odds;
    const auto keep = [&log_odds](const wire::PackedState& state) {
      log_odds = state.state().tensors().front().tensor.clone();
    };
    const std::string what = "densities";
    auto taking = take_state(context.intake(), client.name(), upload, std::move(schema), what, keep);
    co_await std::move(taking);
    all.emplace(client.name(), log_odds);
    co_return true;
  };
  const auto answers = co_await context.roster.ask<bool>(clients, take_from);
  if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped while silos answered");
  for (const auto& answer : answers) {
    if (!answer.value) context.leave_out({PhaseKind::answering}, answer.client->name(), answer.reason);
  }
  co_return all;
}

/// Pre-trained models that are here, weighted by class or by sample.
class ModelTeaching final : public PublicTeaching {
 public:
  ModelTeaching(const RunContext& context, const LocalModels& models, const ConsolidationPlan& plan)
      : context_(context), models_(models), plan_(plan) {}

  net::Task<> prepare() {
    const bool is_experts = context_.options().consolidation.weighting == learn::TeacherWeighting::experts;
    if (is_experts) {
      std::vector<std::string> experts = plan_.teachers;
      if (plan_.copy_teaches) experts.push_back(*plan_.student);
      auto collecting = collect_densities(context_, experts);
      densities_ = co_await std::move(collecting);
    }
    context_.observer.on_phase({PhaseKind::teaching}, 1);
    auto answering = net::offload(context_.pool, [this] {
      const learn::KeepFreedMemory keep_freed_memory;
      const Tensor x = context_.data.transfer.x.to(context_.device);
      teachers_ = learn::sound_teachers(teacher_logits(context_, models_, plan_, x), plan_.weights);
    });
    co_await std::move(answering);
    note_dropped();
    if (is_experts && fault_of_student().empty()) weigh_experts();
  }

  net::Task<learn::Guidance> guidance(double temperature) override {
    auto making = net::offload(context_.pool, [this, temperature] {
      const learn::DistillOptions options = options_at(context_, temperature);
      if (!sample_weights_.defined()) return learn::guidance(teachers_.logits, teachers_.weights, options);
      return learn::guidance_by(learn::expert_targets(teachers_.logits, sample_weights_, temperature), options);
    });
    co_return co_await std::move(making);
  }
  [[nodiscard]] std::vector<std::string> clients() const override { return clients_; }
  [[nodiscard]] std::string fault_of_student() const override { return has_sound_student_ ? "" : diverged_on_public; }

 private:
  void note_dropped() {
    clients_ = plan_.teachers;
    const std::vector<std::int64_t>& all_dropped = teachers_.dropped;
    has_sound_student_ = std::ranges::find(all_dropped, std::ssize(plan_.teachers)) == all_dropped.end();
    // Otherwise the plan that is made without this student finds the others again.
    if (!has_sound_student_) return;
    for (const std::int64_t dropped : all_dropped) {
      const std::string& client = plan_.teachers[static_cast<std::size_t>(dropped)];
      std::erase(clients_, client);
      context_.leave_out({PhaseKind::consolidation}, client, diverged_on_public);
    }
  }

  /// n_k times the density weight, of the teachers that are sound; 0 of a silo whose densities are not there.
  void weigh_experts() {
    std::vector<std::string> sound = clients_;
    if (plan_.copy_teaches) sound.push_back(*plan_.student);
    std::vector<Tensor> rows;
    for (const std::string& client : sound) {
      const auto found = densities_.find(client);
      const auto num_examples = static_cast<double>(models_.models().at(client).num_examples);
      rows.push_back(found == densities_.end()
                         ? torch::zeros({context_.data.transfer.size()}, torch::kDouble)
                         : num_examples *
                               learn::density_weights(found->second, context_.options().consolidation.density));
    }
    const auto num_known =
        std::ranges::count_if(sound, [this](const std::string& client) { return densities_.contains(client); });
    if (num_known < quorum_of(context_.options())) {
      throw Error(Errc::run_failed,
                  fmt::format("consolidation: {} silos said how much the public samples are like their "
                              "own, and {} are needed",
                              num_known, quorum_of(context_.options())));
    }
    std::erase_if(clients_, [this](const std::string& client) { return !densities_.contains(client); });
    sample_weights_ = torch::stack(rows);
  }

  const RunContext& context_;
  const LocalModels& models_;
  const ConsolidationPlan& plan_;
  std::map<std::string, Tensor> densities_;
  learn::SoundTeachers teachers_;
  Tensor sample_weights_;  ///< [K', n] of experts; else undefined.
  std::vector<std::string> clients_;
  bool has_sound_student_ = true;
};

/// Silos answer at home, and the server uses the sum of their answers.
class AnswerTeaching final : public PublicTeaching {
 public:
  explicit AnswerTeaching(const RunContext& context) : context_(context) {}

  net::Task<> prepare() {
    auto packing = packed_public_samples(context_);
    samples_ = co_await std::move(packing);
    for (const auto& client : context_.roster.active()) {
      most_examples_ = std::max(most_examples_, client->info().num_examples);
    }
  }

  net::Task<learn::Guidance> guidance(double temperature) override {
    auto clients = context_.roster.active();
    context_.observer.on_phase({PhaseKind::answering}, clients.size());
    const auto& options = context_.options().consolidation;
    const bool is_experts = options.weighting == learn::TeacherWeighting::experts;
    const plan::AnswerSettings settings{.temperature = temperature,
                                        .bits = options.answer_bits,
                                        .weighs_by_density = is_experts,
                                        .most_examples = is_experts ? most_examples_ : 0};
    clients_.clear();
    Tensor sum = torch::zeros({context_.data.transfer.size(), context_.data.task.num_classes}, torch::kLong);
    const auto take_from = [&](ClientSession& client) -> net::Task<bool> {
      auto adding = add(client, settings, sum);
      co_await std::move(adding);
      co_return true;
    };
    const auto answers = co_await context_.roster.ask<bool>(clients, take_from);
    if (context_.stop.stop_requested()) throw Error(Errc::interrupted, "stopped while silos answered");
    for (const auto& answer : answers) {
      if (!answer.value) context_.leave_out({PhaseKind::answering}, answer.client->name(), answer.reason);
    }
    const std::int64_t quorum = quorum_of(context_.options());
    if (std::ssize(clients_) < quorum) {
      throw Error(Errc::run_failed, fmt::format("consolidation: {} silos answered on the public set, and {} are needed",
                                                clients_.size(), quorum));
    }
    std::ranges::sort(clients_);
    co_return learn::guidance_by(learn::targets_of_sum(sum).to(context_.device), options_at(context_, temperature));
  }
  [[nodiscard]] std::vector<std::string> clients() const override { return clients_; }

 private:
  net::Task<> add(ClientSession& client, const plan::AnswerSettings& settings, Tensor& sum) {
    const std::int64_t num_bytes = learn::answer_bytes(sum.numel(), settings.bits);
    auto asking = answers(client, settings, DisclosurePolicy::release_tensors("public samples", samples_),
                          static_cast<std::uint64_t>(num_bytes));
    Upload upload = co_await std::move(asking);
    std::vector<std::int64_t> shape{num_bytes};
    learn::Schema schema({{"answers", c10::ScalarType::Byte, shape}});
    Tensor answered;
    const auto look = [&](const wire::PackedState& state) {
      const Tensor& packed = state.state().tensors().front().tensor;
      answered = learn::unpacked_answers(packed, sum.numel(), settings.bits).view_as(sum);
      // A silo's answers to a sample are a share of 1; each of them is rounded.
      const std::int64_t most = (std::int64_t{1} << settings.bits) - 1 + sum.size(1);
      const std::int64_t largest = answered.sum(1).max().item<std::int64_t>();
      if (largest <= most) return;
      throw Error(Errc::run_failed,
                  fmt::format("its answers to a sample add up to {}; at most {} is a share of 1", largest, most));
    };
    const std::string what = "answers on the public set";
    auto taking = take_state(context_.intake(), client.name(), upload, std::move(schema), what, look);
    co_await std::move(taking);
    sum += answered;
    clients_.push_back(client.name());
  }

  const RunContext& context_;
  DigestedState samples_;
  std::int64_t most_examples_ = 0;
  std::vector<std::string> clients_;
};

/// A head over features, fitted by sums over all silos.
class SumsTeaching final : public PublicTeaching {
 public:
  SumsTeaching(const RunContext& context, SumsTeacher teacher) : context_(context), teacher_(std::move(teacher)) {}

  net::Task<learn::Guidance> guidance(double temperature) override {
    const Tensor weights = learn::equal_weights(1, teacher_.logits.size(1));
    co_return learn::guidance(teacher_.logits.unsqueeze(0).to(context_.device), weights,
                              options_at(context_, temperature));
  }
  [[nodiscard]] std::vector<std::string> clients() const override { return teacher_.clients; }
  [[nodiscard]] nlohmann::json report() const override { return {{"sums", teacher_.report}}; }

 private:
  const RunContext& context_;
  SumsTeacher teacher_;
};

/// Nobody teaches a student whose answers are not finite.
class UnsoundStudent final : public PublicTeaching {
 public:
  net::Task<learn::Guidance> guidance(double /*temperature*/) override {
    throw Error(Errc::internal, "a student that cannot be distilled into was to be taught");
    co_return learn::Guidance{};
  }
  [[nodiscard]] std::vector<std::string> clients() const override { return {}; }
  [[nodiscard]] std::string fault_of_student() const override { return diverged_on_public; }
};

}  // namespace

net::Task<std::unique_ptr<PublicTeaching>> public_teaching(const RunContext& context, const LocalModels& models,
                                                           const ConsolidationPlan& plan) {
  const ConsolidationOptions& options = context.options().consolidation;
  const bool is_seen = options.target == TeachingTarget::teachers && options.exchange == TeachingExchange::models;
  if (!is_seen && plan.student) {
    auto answering = net::offload(context.pool, [&] {
      const Tensor logits =
          models.logits(models.models().at(*plan.student), context.data.transfer.x.to(context.device));
      return at::isfinite(logits).all().item<bool>();
    });
    const bool is_sound = co_await std::move(answering);
    if (!is_sound) co_return std::make_unique<UnsoundStudent>();
  }
  if (options.target != TeachingTarget::teachers) {
    auto fitting = teacher_from_sums(context, models, plan);
    SumsTeacher teacher = co_await std::move(fitting);
    co_return std::make_unique<SumsTeaching>(context, std::move(teacher));
  }
  if (options.exchange == TeachingExchange::answers) {
    auto teaching = std::make_unique<AnswerTeaching>(context);
    auto preparing = teaching->prepare();
    co_await std::move(preparing);
    co_return teaching;
  }
  auto teaching = std::make_unique<ModelTeaching>(context, models, plan);
  auto preparing = teaching->prepare();
  co_await std::move(preparing);
  co_return teaching;
}

}  // namespace headstart::server
