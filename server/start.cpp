#include "server/start.hpp"

#include <algorithm>

#include <boost/asio/post.hpp>
#include <fmt/format.h>
#include <torch/torch.h>

#include "server/intake.hpp"
#include "shared/base/digest.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/aggregate.hpp"
#include "shared/learn/distill.hpp"
#include "shared/learn/platform.hpp"
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

net::Task<learn::Evaluation> rated(const RunContext& context, const wire::PackedState& state) {
  if (context.options().validation == ValidationSource::server) {
    auto rating = net::offload(context.pool, [&context, &state] {
      const auto model = context.make_global_model();
      model->load(state.state());
      return learn::evaluate(*model, context.data.validation, context.data.task.num_classes);
    });
    co_return co_await std::move(rating);
  }
  auto hashing = net::offload(context.pool, [&state] { return state.digest(); });
  const std::string digest = co_await std::move(hashing);
  const auto ask = [&](ClientSession& client) {
    return client.evaluate_candidate({{}, context.terms().model, digest, session::source_of(state)});
  };
  auto counting = context.evaluate_at_clients(phase::seed_rating, ask);
  co_return co_await std::move(counting);
}

/// [n, C] of one model of the plan, as it teaches.
at::Tensor teaching_logits(const RunContext& context, const LocalModel& model, const at::Tensor& logits) {
  return context.options().consolidation.divides_label_prior ? learn::without_label_prior(logits, *model.rating)
                                                             : logits;
}

/// [K, n, C] in the order of the plan's weights.
at::Tensor teacher_logits(const RunContext& context, const LocalModels& models, const ConsolidationPlan& plan,
                          const at::Tensor& x) {
  std::vector<at::Tensor> logits;
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

/// One consolidation with one setting: the seed, and what the report says of it. Without a seed where the student's
/// client is gone, failed, or took too long.
struct Distilled {
  std::optional<wire::PackedState> seed;
  nlohmann::json report = nlohmann::json::object();
  std::string failure;  ///< Why there is no seed.
};
using Distil = std::function<net::Task<Distilled>(learn::KdSetting)>;

/// What the public set and the teachers' logits on it are, for as many consolidations as are wanted.
struct PublicTeaching {
  learn::Samples samples;  ///< On the run's device.
  at::Tensor logits;
};

net::Task<PublicTeaching> teach_on_public(const RunContext& context, const LocalModels& models,
                                          const ConsolidationPlan& plan) {
  PublicTeaching teaching{{context.data.transfer.x.to(context.device), {}}, {}};
  context.observer.on_phase("teacher logits on the public set", 1);
  auto answering = net::offload(context.pool, [&context, &models, &plan, &teaching] {
    const learn::KeepFreedMemory keep_freed_memory;
    return teacher_logits(context, models, plan, teaching.samples.x);
  });
  teaching.logits = co_await std::move(answering);
  co_return teaching;
}

/// Distils on the public set, here.
net::Task<Distilled> distil_on_public(const RunContext& context, const LocalModels& models,
                                      const ConsolidationPlan& plan, const PublicTeaching& teaching,
                                      learn::KdSetting setting) {
  context.observer.on_phase("consolidation on the public set", 1);
  auto distilling = net::offload(context.pool, [&context, &models, &plan, &teaching, setting] {
    const learn::KeepFreedMemory keep_freed_memory;
    learn::DistillOptions options = context.terms().consolidation;
    options.temperature = setting.temperature;
    const at::Tensor targets = learn::soft_targets(teaching.logits, plan.weights, options).to(context.device);
    const auto student = context.make_global_model();
    if (plan.student) student->load(models.load(models.models().at(*plan.student)).state());
    const Seed seed = context.terms().seeds().child("consolidation");
    const auto lease = learn::lease_for(*student, seed.child("layers"));

    std::optional<wire::PackedState> best;
    double best_accuracy = -1;
    std::int64_t best_epoch = 0;
    const auto keep_best = [&](std::int64_t epoch) {
      const double accuracy =
          learn::evaluate(*student, context.data.validation, context.data.task.num_classes).accuracy();
      if (accuracy <= best_accuracy) return;
      best_accuracy = accuracy;
      best_epoch = epoch;
      best = wire::PackedState(student->state());
    };
    const bool keeps_best = context.options().consolidation.keep == KeptState::best;
    learn::distill(*student, teaching.samples, targets, options, seed, server_progress(context), context.stop,
                   keeps_best ? keep_best : std::function<void(std::int64_t)>());
    return Distilled{keeps_best ? *best : wire::PackedState(student->state()),
                     {{"kept_epoch", keeps_best ? best_epoch : options.epochs}}};
  });
  co_return co_await std::move(distilling);
}

/// The consolidation that the search likes best. Its report lists what was tried.
net::Task<Distilled> distil_tuned(const RunContext& context, learn::SettingSearch& search, const Distil& distil,
                                  std::string place) {
  const bool has_labels = context.options().consolidation.transfer == TransferSet::student;
  nlohmann::json trials = nlohmann::json::array();
  Distilled best;
  std::optional<learn::Rating> best_rating;
  while (const std::optional<learn::Ask> ask = search.next()) {
    std::optional<learn::Rating> rating;
    Distilled trial;
    try {
      auto distilling = distil(ask->setting);
      trial = co_await std::move(distilling);
    } catch (const Error& error) {
      if (error.code() != Errc::run_failed) throw;
      context.observer.on_note(fmt::format("T {}: {}", ask->setting.temperature, error.what()));
    }
    if (trial.seed) {
      auto judging = rated(context, *trial.seed);
      rating = learn::rating_of(co_await std::move(judging));
    } else if (has_labels) {
      // A client that is there may do better with another setting; one that is gone will not.
      best.failure = trial.failure;
      const auto host = context.cohort.find(place);
      if (!host || host->is_lost()) co_return best;
    }
    trials.push_back({{"temperature", ask->setting.temperature},
                      {"alpha", has_labels ? nlohmann::json(ask->setting.alpha) : nlohmann::json()},
                      {"accuracy", rating ? nlohmann::json(rating->accuracy) : nlohmann::json()},
                      {"loss", rating ? nlohmann::json(rating->loss) : nlohmann::json()}});
    search.tell(rating);
    if (!rating || (best_rating && !learn::is_better(*rating, *best_rating))) continue;
    best_rating = rating;
    best = std::move(trial);
  }
  if (has_labels && !best_rating) co_return best;  // the next client may do better
  const learn::KdSetting chosen = search.best().setting;
  context.observer.on_note(has_labels ? fmt::format("tuned: T {}, alpha {}", chosen.temperature, chosen.alpha)
                                      : fmt::format("tuned: T {}", chosen.temperature));
  best.report["tuning"] = {{"temperature", chosen.temperature}, {"trials", trials}};
  if (has_labels) best.report["tuning"]["alpha"] = chosen.alpha;
  co_return best;
}

/// Has the student's own client distil on its data.
net::Task<Distilled> distil_at_client(const RunContext& context, const LocalModels& models,
                                      const ConsolidationPlan& plan, learn::KdSetting setting) {
  const std::string& place = *plan.place;
  context.observer.on_phase(fmt::format("consolidation at {}", place), 1);
  context.observer.on_note(
      fmt::format("{} is sent the pre-trained models of {} other clients", place, plan.teachers.size()));
  auto starting = net::offload(context.pool, [&context, &models, &plan] {
    wire::PackedState state = plan.student ? models.load(models.models().at(*plan.student))
                                           : wire::PackedState(context.make_global_model()->state());
    std::string digest = state.digest();
    return DigestedState{std::move(digest), std::move(state)};
  });
  const DigestedState student = co_await std::move(starting);
  const wire::PackedState weights = wire::PackedState::of_tensor("weights", plan.weights);
  const auto ask = [&](ClientSession& client) -> net::Task<wire::PackedState> {
    std::vector<ModelSource> teachers;
    for (const std::string& name : plan.teachers) {
      const LocalModel& model = models.models().at(name);
      teachers.push_back({name, model.spec, model.digest,
                          session::source_of_model_file(context.folder.model_of(name), *model.num_bytes)});
    }
    auto distilling = client.distill(student, weights, std::move(teachers), setting);
    Upload upload = co_await std::move(distilling);
    wire::PackedState seed;
    const auto take = [&seed](wire::PackedState state) { seed = std::move(state); };
    auto taking = take_state(context, client, upload, student.state.state().schema(), "distilled model", take);
    co_await std::move(taking);
    co_return seed;
  };
  std::string reason = "it is not there";
  if (const auto client = context.cohort.find(place)) {
    const std::vector<std::shared_ptr<ClientSession>> clients{client};
    auto asking = context.cohort.ask<wire::PackedState>(clients, ask);
    auto answers = co_await std::move(asking);
    if (answers.front().value) co_return Distilled{std::move(answers.front().value)};
    reason = answers.front().reason;
  }
  co_return Distilled{{}, nlohmann::json::object(), reason};
}

/// The consolidation of a plan, tuned where that is asked for.
net::Task<Distilled> consolidate(const RunContext& context, const LocalModels& models, const ConsolidationPlan& plan) {
  const learn::DistillOptions& options = context.terms().consolidation;
  PublicTeaching teaching;
  if (!plan.place) {
    auto preparing = teach_on_public(context, models, plan);
    teaching = co_await std::move(preparing);
  }
  const Distil distil = [&](learn::KdSetting setting) {
    return plan.place ? distil_at_client(context, models, plan, setting)
                      : distil_on_public(context, models, plan, teaching, setting);
  };
  const auto search = search_of(context.options().consolidation, options.epochs);
  auto distilling = search ? distil_tuned(context, *search, distil, plan.place.value_or(""))
                           : distil({options.temperature, options.alpha});
  co_return co_await std::move(distilling);
}

nlohmann::json described(const ConsolidationPlan& plan, const ConsolidationOptions& options,
                         const learn::DistillOptions& kd) {
  const bool as_published = kd.average == learn::TeacherAverage::probabilities && !kd.standardise && !kd.normalise;
  nlohmann::json left_out = nlohmann::json::object();
  for (const auto& [client, reason] : plan.left_out) left_out[client] = reason;
  return {{"student", plan.student ? nlohmann::json(*plan.student) : nlohmann::json("untrained")},
          {"weights", word_of(Choices<learn::TeacherWeighting>(learn::weighting_words), options.weighting)},
          {"transfer", word_of(Choices<TransferSet>(transfer_words), options.transfer)},
          {"place", plan.place ? nlohmann::json(*plan.place) : nlohmann::json("server")},
          {"teachers", plan.teachers},
          {"student_copy_teaches", plan.copy_teaches},
          {"divides_label_prior", options.divides_label_prior},
          {"left_out", left_out},
          {"average", word_of(Choices<learn::TeacherAverage>(learn::average_words), kd.average)},
          {"standardise", kd.standardise},
          {"normalise", kd.normalise},
          {"in_published_table", plan.is_published && as_published && options.tune == SettingChoice::as_set}};
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

/// Puts the seed of an earlier server into `start`; false, with a note, where its file does not hold it. On the pool.
bool take_up(const RunContext& context, const SeedRecord& earlier, Start& start) {
  std::string words = "the seed that was distilled before is used";
  bool is_whole = false;
  try {
    wire::PackedState state = wire::load_safetensors(context.folder.seed_file()).model;
    if (state.digest() != earlier.digest) throw Error(Errc::data, "its content has changed");
    start.state = std::move(state);
    start.report = earlier.report;
    is_whole = true;
  } catch (const Error& error) {
    words = fmt::format("the seed is distilled again: {}", error.what());
  }
  net::asio::post(context.executor, [&context, words] { context.observer.on_note(words); });
  return is_whole;
}

/// Consolidation as configured, by the next client in rank where the student's own cannot.
net::Task<Start> distil_seed(const RunContext& context, const LocalModels& models) {
  const ConsolidationOptions& options = context.options().consolidation;
  std::vector<Candidate> candidates = models.candidates();
  Start start{StartModel::kd, {}, {}};
  while (true) {
    const ConsolidationPlan plan = plan_consolidation(options, candidates, context.data.task.num_classes);
    for (const auto& [client, reason] : plan.left_out) {
      context.observer.on_note(fmt::format("{} does not teach: {}", client, reason));
    }
    start.report = described(plan, options, context.terms().consolidation);
    auto distilling = consolidate(context, models, plan);
    Distilled distilled = co_await std::move(distilling);
    if (distilled.seed) {
      start.report.update(distilled.report);
      start.state = std::move(*distilled.seed);
      co_return start;
    }
    context.leave_out(phase::consolidation, *plan.place, distilled.failure);
    if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped during consolidation");
    // The next one by rank takes its place; its model, which is here, still teaches.
    std::ranges::find(candidates, *plan.place, &Candidate::client)->can_host = false;
  }
}

}  // namespace

net::Task<Start> random_start(const RunContext& context) {
  auto making =
      net::offload(context.pool, [&context] { return wire::PackedState(context.make_global_model()->state()); });
  wire::PackedState state = co_await std::move(making);
  co_return Start{StartModel::random, std::move(state), nlohmann::json::object()};
}

net::Task<Start> best_local_start(const RunContext& context, const LocalModels& models) {
  const LocalModel* best = models.best_shared();
  if (best == nullptr) {
    throw Error(Errc::run_failed,
                "no pre-trained model of the federated architecture with share_model: peers has a rating");
  }
  auto loading = net::offload(context.pool, [&models, best] { return models.load(*best); });
  context.observer.on_note(fmt::format("best local model: {}'s", best->client));
  wire::PackedState state = co_await std::move(loading);
  const nlohmann::json report = {{"client", best->client}};
  co_return Start{StartModel::best_local, std::move(state), report};
}

net::Task<Start> average_start(const RunContext& context, const LocalModels& models) {
  std::int64_t announced = 0;
  std::vector<std::pair<const LocalModel*, std::int64_t>> members;
  for (const auto& [name, model] : models.models()) {
    if (!model.has_federated_architecture) continue;
    members.emplace_back(&model, model.num_examples);
    announced += model.num_examples;
  }
  if (members.empty()) throw Error(Errc::run_failed, "no pre-trained model of the federated architecture to average");
  auto averaging = net::offload(context.pool, [&] {
    learn::Aggregator sum(context.global_schema, announced);
    for (const auto& [model, num_examples] : members) {
      if (const auto offence = learn::add_update(sum, models.load(*model).state(), num_examples)) {
        throw Error(Errc::run_failed, fmt::format("client {}: {}", model->client, *offence));
      }
    }
    wire::PackedState average(std::move(sum).report());
    if (context.data.transfer.size() == 0) return average;
    const auto network = context.make_global_model();
    network->load(average.state());
    learn::reestimate_statistics(*network, context.data.transfer.x.to(context.device));
    return wire::PackedState(network->state());
  });
  wire::PackedState average = co_await std::move(averaging);
  const nlohmann::json report = {{"statistics", "public set"}};
  Start start{StartModel::average, std::move(average), report};
  if (context.data.transfer.size() > 0) co_return start;

  // Every client re-estimates, those with an architecture of their own included: their models are not in the average.
  const auto clients = context.cohort.active();
  context.observer.on_phase("normalisation statistics", clients.size());
  std::int64_t announced_by_all = 0;
  for (const auto& client : clients) announced_by_all += client->info().num_examples;
  UploadSum sum(context.global_schema, announced_by_all);
  auto hashing = net::offload(context.pool, [&start] { return start.state.digest(); });
  const std::string digest = co_await std::move(hashing);
  const DigestedState sent{digest, start.state};
  const auto take_from = [&](ClientSession& client) -> net::Task<bool> {
    Upload upload = co_await client.reestimate_statistics(sent);
    const std::string what = "statistics";
    const NormBound unbounded{sent.state};
    auto inspecting = inspect(context, client, upload, sum, unbounded, what);
    const Inspection seen = co_await std::move(inspecting);
    if (seen.offence) throw Error(Errc::run_failed, *seen.offence);
    const std::int64_t num_examples = client.info().num_examples;
    auto adding = net::offload(context.pool, [&sum, &upload, num_examples] { sum.add(upload, num_examples); });
    co_await std::move(adding);
    co_return true;
  };
  const auto answers = co_await context.cohort.ask<bool>(clients, take_from);
  for (const auto& answer : answers) {
    if (!answer.value) {
      context.leave_out(phase::statistics, answer.client->name(), answer.reason);
    }
  }
  auto reporting = net::offload(context.pool, [&sum] { return std::move(sum).report(); });
  start.state = co_await std::move(reporting);
  start.report["statistics"] = "clients";
  co_return start;
}

net::Task<Start> kd_start(const RunContext& context, const LocalModels& models, std::optional<SeedRecord> earlier) {
  const ConsolidationOptions& options = context.options().consolidation;
  Start start{StartModel::kd, {}, {}};
  const std::string inputs = inputs_of(models);
  bool is_here = false;
  if (earlier && earlier->inputs == inputs) {
    auto taking = net::offload(context.pool, [&] { return take_up(context, *earlier, start); });
    is_here = co_await std::move(taking);
  }
  if (!is_here) {
    auto distilling = distil_seed(context, models);
    start = co_await std::move(distilling);
    auto keeping = net::offload(context.pool, [&] {
      wire::save_safetensors(context.folder.seed_file(), start.state);
      context.folder.journal().append(seed_event({inputs, start.state.digest(), start.report}));
    });
    co_await std::move(keeping);
  }
  // The gate: is the seed better than what it could be replaced by?
  const LocalModel* best = models.best_shared();
  if (best == nullptr) {
    if (options.gate) context.observer.on_note("gate: no rated model may reach other silos, the seed stands");
    co_return start;
  }
  context.observer.on_phase(phase::seed_rating, 1);
  const learn::Evaluation seed = co_await rated(context, start.state);
  if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped while the seed was rated");
  const bool passes = seed.accuracy() > best->rating->accuracy();
  start.report["gate"] = {{"seed_accuracy", seed.accuracy()},
                          {"best_local_accuracy", best->rating->accuracy()},
                          {"best_local", best->client},
                          {"passes", passes},
                          {"acts", options.gate && !passes}};
  if (options.gate && !passes) {
    context.observer.on_note(
        fmt::format("gate: the seed ({:.4f}) is not better than {}'s model ({:.4f}), which is used instead",
                    seed.accuracy(), best->client, best->rating->accuracy()));
    Start fallback = co_await best_local_start(context, models);
    fallback.report["refused_seed"] = start.report;
    co_return fallback;
  }
  co_return start;
}

}  // namespace headstart::server
