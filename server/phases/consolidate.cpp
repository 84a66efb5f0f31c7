#include "server/phases/consolidate.hpp"

#include <algorithm>

#include <boost/asio/post.hpp>
#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/disclosure.hpp"
#include "server/phases/public_teaching.hpp"
#include "server/sessions/client_tasks.hpp"
#include "server/uploads/inspection.hpp"
#include "shared/base/digest.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/net/offload.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::server {

namespace {

/// Progress of work on the server's pool, brought to the observer's executor at a few calls a second.
learn::ProgressCallback server_progress(const RunContext& context) {
  return [&context, next = TimePoint{}](const learn::Progress& progress) mutable {
    const TimePoint now = context.clock();
    if (now < next && progress.done < progress.total) return;
    next = now + std::chrono::milliseconds(250);
    net::asio::post(context.executor, [&context, progress] {
      context.observer.on_progress("server", static_cast<std::uint64_t>(progress.done),
                                   static_cast<std::uint64_t>(progress.total));
    });
  };
}

/// One consolidation with one setting: the seed, and what the report says of it. Without a seed where the student's
/// client is gone, failed, or took too long.
struct Distilled {
  static Distilled none(std::string why) { return {{}, nlohmann::json::object(), std::move(why)}; }

  std::optional<wire::PackedState> seed;
  nlohmann::json report = nlohmann::json::object();
  std::string failure;  ///< Why there is no seed.
};
using Distil = std::function<net::Task<Distilled>(learn::KdSetting)>;

/// Distils on the public set, here.
net::Task<Distilled> distil_on_public(const RunContext& context, const LocalModels& models,
                                      const ConsolidationPlan& plan, PublicTeaching& teaching,
                                      learn::KdSetting setting) {
  auto answering = teaching.guidance(setting.temperature);
  const learn::Guidance teachers = co_await std::move(answering);
  context.observer.on_phase({PhaseKind::public_consolidation}, 1);
  auto distilling = net::offload(context.pool, [&context, &models, &plan, &teachers, setting] {
    const learn::KeepFreedMemory keep_freed_memory;
    learn::DistillOptions options = context.terms().consolidation;
    options.temperature = setting.temperature;
    const learn::Samples samples{context.data.transfer.x.to(context.device), {}};
    const auto student = context.make_global_model();
    if (plan.student) student->load(models.load(models.models().at(*plan.student)).state());
    const Seed seed = context.terms().seeds().child("consolidation");
    const auto lease = learn::lease_for(*student, seed.child("layers"));

    std::optional<wire::PackedState> best;
    const learn::Metric metric = context.metric();
    double best_score = -1;
    std::int64_t best_epoch = 0;
    const auto keep_best = [&](std::int64_t epoch) {
      const double score = metric.score(
          learn::evaluate(*student, context.data.validation, context.data.task.num_classes, metric.measures()));
      if (score <= best_score) return;
      best_score = score;
      best_epoch = epoch;
      best = wire::PackedState(student->state());
    };
    const bool keeps_best = context.options().consolidation.keep == KeptState::best;
    learn::distill(*student, samples, teachers, options, seed, server_progress(context), context.stop,
                   keeps_best ? keep_best : std::function<void(std::int64_t)>());
    Distilled distilled{keeps_best ? std::move(*best) : wire::PackedState(student->state()),
                        {{"kept_epoch", keeps_best ? best_epoch : options.epochs}}};
    if (const auto violation = violation_in(distilled.seed->state())) {
      throw Error(Errc::run_failed,
                  fmt::format("the model distilled on the public set cannot be trained from: {}. Has the public set "
                              "samples far out of range?",
                              *violation));
    }
    return distilled;
  });
  Distilled distilled = co_await std::move(distilling);
  distilled.report["teachers"] = teaching.clients();
  distilled.report.update(teaching.report());
  co_return distilled;
}

/// Has the student's own client distil on its data.
net::Task<Distilled> distil_at_client(const RunContext& context, const LocalModels& models,
                                      const ConsolidationPlan& plan, learn::KdSetting setting) {
  const std::string& place = *plan.place;
  context.observer.on_phase({PhaseKind::client_consolidation, 0, place}, 1);
  context.observer.on_note(
      fmt::format("{} is sent the pre-trained models of {} other clients", place, plan.teachers.size()));
  auto starting = net::offload(context.pool, [&context, &models, &plan] {
    wire::PackedState state = plan.student ? models.load(models.models().at(*plan.student))
                                           : wire::PackedState(context.make_global_model()->state());
    std::string digest = state.digest();
    return DigestedState{std::move(digest), std::move(state)};
  });
  const DigestedState student = co_await std::move(starting);
  const wire::PackedState packed_weights = wire::PackedState::of_tensor("weights", plan.weights);
  const DigestedState weights{packed_weights.digest(), packed_weights};
  const auto ask = [&](ClientSession& client) -> net::Task<wire::PackedState> {
    const DisclosurePolicy disclosure(client.name());
    DistillInputs inputs{DisclosurePolicy::release_model("student", student),
                         DisclosurePolicy::release_tensors("teacher weights", weights),
                         {}};
    for (const std::string& name : plan.teachers) {
      const LocalModel& model = models.models().at(name);
      auto state = session::source_of_model_file(context.folder.model_of(name), *model.num_bytes);
      inputs.teachers.push_back(disclosure.release(name, model, std::move(state)));
    }
    auto distilling = distill(client, std::move(inputs), setting);
    Upload upload = co_await std::move(distilling);
    wire::PackedState seed;
    const auto take = [&seed](wire::PackedState state) { seed = std::move(state); };
    auto taking =
        take_state(context.intake(), client.name(), upload, student.state.state().schema(), "distilled model", take);
    co_await std::move(taking);
    co_return seed;
  };
  std::string reason = "it is not there";
  if (const auto client = context.roster.find(place)) {
    const std::vector<std::shared_ptr<ClientSession>> clients{client};
    auto asking = context.roster.ask<wire::PackedState>(clients, ask);
    auto answers = co_await std::move(asking);
    if (answers.front().value) co_return Distilled{std::move(answers.front().value)};
    reason = answers.front().reason;
  }
  co_return Distilled::none(reason);
}

/// What a server keeps on its disk, of the seed or of a trial: the weights of `digest`. Throws Error(data) where the
/// file does not hold them. On the pool.
wire::PackedState load_kept(const std::filesystem::path& file, const std::string& digest) {
  wire::PackedState state = wire::load_safetensors(file).model;
  if (state.digest() != digest) throw Error(Errc::data, file.string() + ": its content has changed");
  return state;
}

/// The trials of one plan: those of an earlier server, and where this one keeps its own.
class Trials {
 public:
  Trials(const RunContext& context, std::string inputs, const std::vector<TrialRecord>& earlier)
      : context_(context), inputs_(std::move(inputs)) {
    std::ranges::copy_if(earlier, std::back_inserter(earlier_),
                         [this](const TrialRecord& trial) { return trial.inputs == inputs_; });
  }

  [[nodiscard]] std::optional<TrialRecord> earlier(const learn::KdSetting& setting) const {
    const auto found = std::ranges::find(earlier_, setting, &TrialRecord::setting);
    return found == earlier_.end() ? std::nullopt : std::optional(*found);
  }

  /// Rates it, and keeps its weights where it is better than `best`, whose are then let go. None where nobody rated it.
  net::Task<std::optional<TrialRecord>> finish(const learn::KdSetting& setting, Distilled distilled,
                                               const std::optional<TrialRecord>& best) const {
    auto judging = rate_start(context_, *distilled.seed);
    const learn::Evaluation evaluation = co_await std::move(judging);
    if (evaluation.num_samples() == 0) co_return std::nullopt;
    const learn::Rating rating = learn::rating_of(evaluation, context_.metric());
    TrialRecord trial{inputs_, setting, rating, {}, std::move(distilled.report)};
    auto keeping = net::offload(context_.pool, [&] {
      trial.digest = distilled.seed->digest();
      const bool is_best = !best || learn::is_better(rating, best->rating);
      if (is_best) {
        wire::save_safetensors(context_.folder.trial_file(trial.digest), *distilled.seed,
                               plan::metadata_of(context_.terms(), context_.terms().architecture));
      }
      context_.folder.write_down(trial);
      std::error_code ignored;
      const bool is_beaten = is_best && best && best->digest != trial.digest;
      if (is_beaten) std::filesystem::remove(context_.folder.trial_file(best->digest), ignored);
    });
    co_await std::move(keeping);
    co_return trial;
  }

  /// The consolidation that `trial` was, or the same again where the file was damaged.
  net::Task<Distilled> seed_of(const TrialRecord& trial, const Distil& distil) const {
    std::string damage;
    Distilled kept{{}, trial.report, {}};
    auto loading = net::offload(context_.pool, [&] {
      try {
        kept.seed = load_kept(context_.folder.trial_file(trial.digest), trial.digest);
      } catch (const Error& error) {
        damage = error.what();
      }
    });
    co_await std::move(loading);
    if (kept.seed) co_return kept;
    context_.observer.on_note(fmt::format("the best setting is distilled again: {}", damage));
    auto distilling = distil(trial.setting);
    co_return co_await std::move(distilling);
  }

 private:
  const RunContext& context_;
  std::string inputs_;
  std::vector<TrialRecord> earlier_;
};

/// The consolidation that the search likes best. Its report lists what was tried.
net::Task<Distilled> distil_tuned(const RunContext& context, learn::SettingSearch& search, const Distil& distil,
                                  const Trials& kept, std::string place) {
  const bool has_labels = context.options().consolidation.transfer == TransferSet::student;
  nlohmann::json trials = nlohmann::json::array();
  std::optional<TrialRecord> best;
  std::string failure;
  while (const std::optional<learn::Ask> ask = search.next()) {
    std::optional<TrialRecord> trial = kept.earlier(ask->setting);
    if (!trial) {
      Distilled distilled;
      try {
        auto distilling = distil(ask->setting);
        distilled = co_await std::move(distilling);
      } catch (const Error& error) {
        if (error.code() != Errc::run_failed) throw;
        context.observer.on_note(fmt::format("T {}: {}", ask->setting.temperature, error.what()));
      }
      if (distilled.seed) {
        auto finishing = kept.finish(ask->setting, std::move(distilled), best);
        trial = co_await std::move(finishing);
      } else if (has_labels) {
        // A client that is there may do better with another setting; one that is gone will not.
        failure = distilled.failure;
        const auto host = context.roster.find(place);
        if (!host || host->is_lost()) co_return Distilled::none(failure);
      }
    }
    trials.push_back({{"temperature", ask->setting.temperature},
                      {"alpha", has_labels ? nlohmann::json(ask->setting.alpha) : nlohmann::json()},
                      {"accuracy", trial ? nlohmann::json(trial->rating.accuracy) : nlohmann::json()},
                      {"loss", trial ? nlohmann::json(trial->rating.loss) : nlohmann::json()}});
    if (trial && trial->rating.score) trials.back()["score"] = *trial->rating.score;
    search.tell(trial ? std::optional(trial->rating) : std::nullopt);
    if (trial && (!best || learn::is_better(trial->rating, best->rating))) best = std::move(trial);
  }
  if (has_labels && !best) co_return Distilled::none(failure);  // the next client may do better
  const learn::KdSetting chosen = search.best().setting;
  context.observer.on_note(has_labels ? fmt::format("tuned: T {}, alpha {}", chosen.temperature, chosen.alpha)
                                      : fmt::format("tuned: T {}", chosen.temperature));
  auto taking = kept.seed_of(*best, distil);
  Distilled tuned = co_await std::move(taking);
  tuned.report["tuning"] = {{"temperature", chosen.temperature}, {"trials", trials}};
  if (has_labels) tuned.report["tuning"]["alpha"] = chosen.alpha;
  co_return tuned;
}

/// The consolidation of a plan, tuned where that is asked for.
net::Task<Distilled> consolidate(const RunContext& context, const LocalModels& models, const ConsolidationPlan& plan,
                                 const Trials& trials) {
  const learn::DistillOptions& options = context.terms().consolidation;
  std::unique_ptr<PublicTeaching> teaching;
  if (!plan.place) {
    auto preparing = public_teaching(context, models, plan);
    teaching = co_await std::move(preparing);
    if (std::string fault = teaching->fault_of_student(); !fault.empty()) co_return Distilled::none(std::move(fault));
  }
  const Distil distil = [&](learn::KdSetting setting) {
    return plan.place ? distil_at_client(context, models, plan, setting)
                      : distil_on_public(context, models, plan, *teaching, setting);
  };
  const auto search = search_of(context.options().consolidation, options.epochs);
  auto distilling = search ? distil_tuned(context, *search, distil, trials, plan.place.value_or(""))
                           : distil({options.temperature, options.alpha});
  Distilled distilled = co_await std::move(distilling);
  co_return distilled;
}

nlohmann::json described(const ConsolidationPlan& plan, const ConsolidationOptions& options,
                         const learn::DistillOptions& kd) {
  const bool as_published = learn::is_of_equation_6(kd);
  nlohmann::json left_out = nlohmann::json::object();
  for (const auto& [client, reason] : plan.left_out) left_out[client] = reason;
  nlohmann::json description = {
      {"student", plan.student ? nlohmann::json(*plan.student) : nlohmann::json("untrained")},
      {"weights", word_of(Choices<learn::TeacherWeighting>(learn::weighting_words), options.weighting)},
      {"transfer", word_of(Choices<TransferSet>(transfer_words), options.transfer)},
      {"place", plan.place ? nlohmann::json(*plan.place) : nlohmann::json("server")},
      {"teachers", plan.teachers},
      {"student_copy_teaches", plan.copy_teaches},
      {"divides_label_prior", options.divides_label_prior},
      {"left_out", left_out},
      {"measure", kd.measure},
      {"average", word_of(Choices<learn::TeacherAverage>(learn::average_words), kd.average)},
      {"standardise", kd.standardise},
      {"normalise", kd.normalise},
      {"in_published_table", plan.is_published && as_published && options.tune == SettingChoice::as_set}};
  if (options.exchange != TeachingExchange::models) {
    description["exchange"] = word_of(Choices<TeachingExchange>(exchange_words), options.exchange);
    description["answer_bits"] = options.answer_bits;
  }
  if (options.target != TeachingTarget::teachers) {
    description["target"] = word_of(Choices<TeachingTarget>(target_words), options.target);
  }
  if (options.weighting == learn::TeacherWeighting::experts) {
    const bool by_answers = options.exchange == TeachingExchange::answers;
    const learn::Density density = by_answers ? learn::Density::bounded : options.density;
    description["density"] = word_of(Choices<learn::Density>(learn::density_words), density);
  }
  return description;
}

/// Names what a seed is distilled from: the settings are the run's, and cannot change.
std::string inputs_of(const LocalModels& models) {
  std::string text;
  for (const auto& [client, model] : models.models()) {
    const std::string rating = model.rating ? to_line(to_json(*model.rating)) : "unrated";
    text += fmt::format("{} {} {} {}\n", client, model.architecture, model.digest, rating);
  }
  return sha256_hex(text);
}

/// The seed of an earlier server; none, with a note, where its file does not hold it. On the pool.
std::optional<DistilledStart> taken_up(const RunContext& context, const DistilledRecord& earlier) {
  std::string words = "the seed that was distilled before is used";
  std::optional<DistilledStart> seed;
  try {
    seed = DistilledStart{load_kept(context.folder.seed_file(), earlier.digest), earlier.report};
  } catch (const Error& error) {
    words = fmt::format("the seed is distilled again: {}", error.what());
  }
  net::asio::post(context.executor, [&context, words] { context.observer.on_note(words); });
  return seed;
}

/// Consolidation as configured, by the next client in rank where the student's own cannot.
net::Task<DistilledStart> distil_seed(const RunContext& context, const LocalModels& models, const std::string& inputs,
                                      const std::vector<TrialRecord>& earlier) {
  const ConsolidationOptions& options = context.options().consolidation;
  std::vector<Candidate> candidates = models.candidates();
  while (true) {
    const ConsolidationPlan plan =
        plan_consolidation(options, candidates, context.data.task.num_classes, context.metric());
    for (const auto& [client, reason] : plan.left_out) {
      context.observer.on_note(fmt::format("{} does not teach: {}", client, reason));
    }
    DistilledStart seed{{}, described(plan, options, context.terms().consolidation)};
    const Trials trials(context, sha256_hex(inputs + to_line(seed.report)), earlier);
    auto distilling = consolidate(context, models, plan, trials);
    Distilled distilled = co_await std::move(distilling);
    if (distilled.seed) {
      seed.report.update(distilled.report);
      seed.state = std::move(*distilled.seed);
      co_return seed;
    }
    const std::string& student = plan.place ? *plan.place : *plan.student;
    context.leave_out({PhaseKind::consolidation}, student, distilled.failure);
    if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped during consolidation");
    if (plan.place) {
      // The next one by rank takes its place; its model, which is here, still teaches.
      std::ranges::find(candidates, student, &Candidate::client)->can_host = false;
    } else {
      std::erase_if(candidates, [&student](const Candidate& candidate) { return candidate.client == student; });
    }
  }
}

}  // namespace

net::Task<learn::Evaluation> rate_start(const RunContext& context, const wire::PackedState& state,
                                        std::string without) {
  if (context.options().validation == ValidationSource::server) {
    auto rating = net::offload(context.pool, [&context, &state] {
      const auto model = context.make_global_model();
      model->load(state.state());
      return learn::evaluate(*model, context.data.validation, context.data.task.num_classes,
                             context.metric().measures());
    });
    const learn::Evaluation evaluation = co_await std::move(rating);
    if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped while the seed was rated");
    co_return evaluation;
  }
  auto hashing = net::offload(context.pool, [&state] { return state.digest(); });
  const std::string digest = co_await std::move(hashing);
  const DigestedState seed{digest, state};
  const auto ask = [&](ClientSession& client) {
    return evaluate(client, DisclosurePolicy::release_model("seed", seed), false, context.rating_settings());
  };
  auto counting = context.evaluate_at_clients(PhaseKind::seed_rating, context.judges_of(without), ask, nullptr);
  co_return co_await std::move(counting);
}

net::Task<DistilledStart> distilled_start(const RunContext& context, const LocalModels& models,
                                          const Recovery& earlier) {
  const std::string inputs = inputs_of(models);
  if (earlier.seed && earlier.seed->inputs == inputs) {
    auto taking = net::offload(context.pool, [&] { return taken_up(context, *earlier.seed); });
    std::optional<DistilledStart> seed = co_await std::move(taking);
    if (seed) co_return std::move(*seed);
  }
  auto distilling = distil_seed(context, models, inputs, earlier.trials);
  DistilledStart seed = co_await std::move(distilling);
  auto keeping = net::offload(context.pool, [&] {
    wire::save_safetensors(context.folder.seed_file(), seed.state,
                           plan::metadata_of(context.terms(), context.terms().architecture));
    context.folder.write_down(DistilledRecord{inputs, seed.state.digest(), seed.report});
  });
  co_await std::move(keeping);
  co_return seed;
}

}  // namespace headstart::server
