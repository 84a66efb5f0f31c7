#include "server/config/server_config.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>

#include <fmt/format.h>

#include "server/strategies/strategy.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/metrics/metric.hpp"

namespace headstart::server {

namespace {

void declare_listening(Fields& fields, ServerConfig& config) {
  fields.group("listen", "Where the server listens, and to whom");
  fields.text("listen.address", config.address, "Address to listen on.");
  fields.integer("listen.port", config.port,
                 "Port to listen on; 0: any free one, written to the file port in the run's folder.", {0, 65535});
  fields.flag("listen.insecure", config.insecure,
              "Listen beyond loopback without TLS: models then travel in the clear, and names prove nothing.");
  fields.integer("limits.handshakes", config.max_handshakes,
                 "Connections at a time that have not joined yet; one address may hold a fourth of them. Who has shown "
                 "a certificate has a place apart, as many in all and four for each name.",
                 {4, 100000});
  fields.integer(
      "limits.receive_memory", config.receive_memory,
      "Bytes of memory for messages above 64 KiB while they come in, over all connections, apart from updates "
      "that are kept in memory, which are read into their place; who finds none left is not read from "
      "meanwhile.",
      {1 << 21, 1e12});
  fields.number("limits.update_norm", config.max_update_norm,
                "Largest L2 distance of a client's update from the model that it was sent, over all floating-point "
                "values, running statistics included; one beyond it is refused. 0: none. audit.jsonl has the distances "
                "of all updates, with and without a bound.",
                {0, 1e30});
  fields.group("admin", "The port for probes, metrics and the page");
  fields.text("admin.address", config.admin_address, "Address of the port for probes, metrics and the page.");
  fields.integer(
      "admin.port", config.admin_port,
      "Port that answers GET /healthz, /readyz, /metrics (Prometheus) and / (the page), without TLS; 0: any free one, "
      "written to the file admin-port in the run's folder; -1: none.",
      {-1, 65535});
  fields.group("page", "The page where people watch the run");
  fields.path("page.token_file", config.page_token,
              "File with one line, the token that the page asks for: 16 to 128 letters, digits, '-', '_', '.' or '~'. "
              "Empty: no token, and then there is no page where admin.address is not loopback. Probes and metrics "
              "never ask for it.");
  fields.path("page.reference", config.page_reference,
              "Another run's folder, or its rounds.jsonl, that the page draws beside this run and counts saved rounds "
              "against.");
  net::declare_fields(fields, "tls", config.tls);
  fields.path("listen.allowed", config.allowed_clients,
              "File with the names of the clients that may join, one a line, '#' begins a comment; read again when a "
              "client comes and before each round. Empty: all that the authority has certified.");
}

void declare_data(Fields& fields, ServerConfig& config) {
  learn::declare_fields(fields, "data", config.data);
  fields.group("data", "The data set, its files and its partition, and what a sample means");
  SampleSettings& samples = config.samples;
  fields.names(
      "data.classes", samples.classes,
      "Names of the classes by label, or their number: for data that do not say it, or a server without data.");
  fields.integers(
      "data.shape", samples.shape,
      fmt::format(
          "Shape of a sample, 1 to {} numbers ([features], [channels, height, width]), for a server without data "
          "(evaluation.central false); a known set needs none.",
          learn::max_rank),
      {1, static_cast<double>(learn::max_extent)});
  fields.numbers("data.mean", samples.mean,
                 "Per channel, subtracted from every silo's values (uint8 divided by 255); empty: as the server's data "
                 "have it.",
                 {-1e30, 1e30});
  fields.numbers("data.deviation", samples.deviation, "Per channel; values are divided by it after data.mean.",
                 {learn::smallest_deviation, 1e30});
  fields.numbers(
      "data.range", samples.range,
      "Least and greatest value of a sample before data.mean, for a server without data; a silo whose values "
      "lie beyond is refused. Empty: not known.",
      {-1e30, 1e30});
  fields.path("data.manifest", config.manifest, "Manifest of the partition and its draws (headstart-lab partition).");
}

void declare_federation(Fields& fields, FederationOptions& federation) {
  fields.group("federation", "Clients, rounds, and what becomes of their updates");
  fields.integer("federation.clients", federation.num_clients, "Clients that the run waits for.", {1, 100000});
  fields.integer("federation.rounds", federation.num_rounds, "Rounds of FedAvg.", {0, 1000000});
  fields.integer("federation.min_clients", federation.min_clients,
                 "Updates that a round needs to count; 0: half of the clients, rounded up.", {0, 100000});
  fields.integer("federation.late_clients", federation.num_late,
                 "Clients beyond federation.clients that may join while rounds are under way.", {0, 100000});
  fields.integer("federation.upload_memory", federation.upload_memory,
                 "Bytes of memory for updates in flight, more are staged on disk; 0: two models, at most 1 GiB.",
                 {0, 1e13});
  declare_fields(fields, federation.strategy);
  fields.group("start", "The model that round 1 starts from");
  fields.choice("start.model", federation.start, "What round 1 starts from.", Choices<StartModel>(start_words));
  fields.names("start.candidates", federation.candidates,
               "start.model auto: starts that are made and rated by the validation source, the best of which is taken: "
               "random, best_local, average, kd, each also with +head (its head fitted by sums).");
  fields.choice("start.head", federation.head.start,
                "own: the head of that model stays. sums: it is fitted to the training samples of all silos, who send "
                "sums over them (second moments of features once, a gradient a step) and no sample, feature or model.",
                Choices<StartHead>(start_head_words));
  fields.group("rounds", "What becomes of the model of each round");
  fields.choice("rounds.head", federation.head.rounds,
                "own: the averaged head stays. sums: after each round it is fitted as start.head=sums does, and kept "
                "where the loss by the validation source falls.",
                Choices<StartHead>(start_head_words));
  fields.group("head", "start.head=sums, rounds.head=sums: how the head is fitted");
  fields.choice(
      "head.method", federation.head.method,
      "steps: cross-entropy, by head.steps gradients. ridge, gaussian: least squares, or one Gaussian a class, "
      "from two sums, their scale by the validation source.",
      Choices<HeadMethod>(head_method_words));
  fields.integer("head.steps", federation.head.steps, "Gradients that each silo is asked for.", {1, 1000});
  fields.number("head.damping", federation.head.damping,
                "Added to the second moments of the features, relative to their mean.", {1e-12, 1e6});
  fields.integer("head.min_samples", federation.head.min_samples,
                 "Least samples of a class at a silo for them to be in its sums; each silo may ask for more "
                 "(sums.min_samples).",
                 {1, 1e9});
  declare_fields(fields, "consolidation", federation.consolidation);
}

void declare_timeouts(Fields& fields, Timeouts& timeouts) {
  fields.group("timeouts", "How long the server waits for whom");
  fields.number(
      "timeouts.handshake", timeouts.handshake,
      "Seconds for a new connection to say who it is; 5 of them at most for TLS, and for the WebSocket upgrade.",
      {0.1, 3600});
  fields.number(
      "timeouts.silence", timeouts.silence,
      "Seconds within which a connection without a sign of life is lost; a fourth of it is between heartbeats.",
      {0.1, 1e6});
  fields.number("timeouts.absence", timeouts.absence,
                "Seconds for which the run waits for a client whose connection was lost.", {0, 1e6});
  fields.number("timeouts.task", timeouts.task,
                "Seconds without progress (a report, a byte) after which a client's task is given up.", {0.1, 1e6});
  fields.number("timeouts.phase", timeouts.phase,
                "Seconds that a round, or a phase before the rounds, may take; later results are refused as late.",
                {0.1, 1e7});
  fields.number("timeouts.lobby", timeouts.lobby,
                "Seconds after which the run starts with the clients that are there, if they are enough "
                "(federation.min_clients); 0: it waits for all.",
                {0, 1e7});
}

/// Whose data judge models, what the judgement is for, and which models are kept.
void declare_measurements(Fields& fields, FederationOptions& federation) {
  fields.group("validation", "The data that rate models");
  fields.choice("validation.source", federation.validation,
                "Whose data judges models: a labeled set that the server holds (validation in the manifest), or the "
                "clients' counts on their held-out data. A client does not count for its own pre-trained model, whose "
                "epoch its held-out data chose, unless no other client has any.",
                Choices<ValidationSource>(validation_words));
  fields.checked_text(
      "validation.metric", federation.metric,
      "What makes a model better: accuracy, balanced_accuracy, f1, auc (both mean over classes), log_loss, "
      "calibration_error, or of one class recall:CLASS, precision:CLASS, f1:CLASS, auc:CLASS, the class by its name or "
      "number. Decides the best round, the start, the gate, tuning and kept heads by the validation source, and early "
      "stopping of pre-training by each client's held-out samples. Targets go by accuracy. A model that always answers "
      "with one class has its recall at 1: to choose models, balanced_accuracy, f1:CLASS or auc are better.",
      learn::require_metric);
  fields.group("evaluation", "Where the model of each round is measured");
  fields.flag("evaluation.central", federation.central_evaluation, "Measure every round's model on the test set.");
  fields.flag("evaluation.federated", federation.federated_evaluation,
              "Have the clients measure every round's model on their held-out data.");
  fields.flag(
      "evaluation.scores", federation.counts_scores,
      "Have them also count these samples by predicted class and by score, for the confusion matrix, AUC and "
      "calibration error of all silos together; at most 64 classes. validation.metric auc and calibration_error "
      "with validation.source federated include it.");
  fields.group("targets", "Accuracies whose round is recorded, or ends the run");
  fields.numbers("targets.accuracies", federation.targets.accuracies, "Test accuracies to reach.", {0, 1});
  fields.number("targets.reference", federation.targets.reference,
                "A test accuracy that targets.fractions refer to; 0: none.", {0, 1});
  fields.numbers("targets.fractions", federation.targets.fractions, "Targets as fractions of targets.reference.",
                 {0, 2});
  fields.flag("targets.stop", federation.targets.stop, "Stop at the first round that reaches every target.");
  fields.group("checkpoints", "How often models are kept, and how many");
  fields.integer("checkpoints.every", federation.checkpoints.every, "Rounds between checkpoints; 0: none.",
                 {0, 1000000});
  fields.integer("checkpoints.keep", federation.checkpoints.keep,
                 "Newest checkpoints that are kept; 0: all. With two, a damaged newest one costs one round.",
                 {0, 1000000});
  fields.flag("checkpoints.best", federation.checkpoints.best,
              "Keep the best model by validation.source as best.safetensors.");
}

}  // namespace

void declare_fields(Fields& fields, ServerConfig& config) {
  fields.group("run", "Folder, seed, device and log of the run");
  fields.path("run.folder", config.folder,
              "Folder of the run: made new, or that of the same run unfinished, which then goes on.");
  plan::declare_fields(fields, config.terms);
  fields.integer("run.threads", config.threads,
                 "LibTorch threads of each computation at the server; clients have a setting of their own, and for a "
                 "repeatable run "
                 "all are the same.",
                 {1, 1024});
  fields.text("run.device", config.device, "Where the server computes: cpu, cuda or auto.");
  fields.text("run.log", config.log, "Log level: trace, debug, info, warn, error, off.");
  fields.choice("run.log_format", config.log_format, "Log lines as text, or as JSON objects.",
                Choices<LogFormat>(log_format_words));
  worker_process::declare_fields(fields, "worker", config.worker);
  declare_listening(fields, config);
  declare_data(fields, config);
  declare_federation(fields, config.federation);
  declare_timeouts(fields, config.federation.timeouts);
  declare_measurements(fields, config.federation);
}

namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(Errc::usage, what); }

/// What contains another lasts at least as long.
void check_timeouts(const Timeouts& timeouts) {
  const std::pair<const char*, double> order[] = {{"timeouts.handshake", timeouts.handshake},
                                                  {"timeouts.silence", timeouts.silence},
                                                  {"timeouts.task", timeouts.task},
                                                  {"timeouts.phase", timeouts.phase}};
  for (std::size_t i = 1; i < std::size(order); ++i) {
    if (order[i - 1].second <= order[i].second) continue;
    refuse(
        fmt::format("{} ({} s) is longer than {} ({} s): timeouts must satisfy handshake <= silence <= task <= phase",
                    order[i - 1].first, order[i - 1].second, order[i].first, order[i].second));
  }
  if (timeouts.absence > timeouts.phase) refuse("timeouts.absence is longer than timeouts.phase");
}

void check_samples(const SampleSettings& samples, plan::StatisticsSource statistics) {
  if (statistics == plan::StatisticsSource::federated && !samples.mean.empty()) {
    refuse("data.statistics federated finds mean and deviation itself: leave data.mean and data.deviation out");
  }
  if (!samples.shape.empty()) {
    if (const auto violation = learn::shape_violation(samples.shape)) refuse("data.shape: " + *violation);
  }
  if (samples.mean.size() != samples.deviation.size()) {
    refuse(fmt::format("data.mean has {} numbers and data.deviation has {}; both have one a channel",
                       samples.mean.size(), samples.deviation.size()));
  }
  if (!samples.range.empty() && (samples.range.size() != 2 || samples.range[0] >= samples.range[1])) {
    refuse("data.range: expected two numbers, the least value and the greatest");
  }
}

/// What silos give, and who answers.
void check_teaching(const FederationOptions& federation, const plan::Terms& terms) {
  const ConsolidationOptions& kd = federation.consolidation;
  const bool is_experts = kd.weighting == learn::TeacherWeighting::experts;
  const bool by_answers = kd.exchange == TeachingExchange::answers;
  const bool by_sums = kd.target != TeachingTarget::teachers;
  const auto needs_public = [&](bool wants, const char* what) {
    if (!wants || kd.transfer != TransferSet::student) return;
    refuse(fmt::format("{} needs consolidation.transfer public or public-small", what));
  };
  needs_public(is_experts, "consolidation.weights experts");
  needs_public(by_answers, "consolidation.exchange answers");
  needs_public(by_sums, "consolidation.target lifted or joint");
  if (by_answers && learn::needs_ratings(kd.weighting)) {
    refuse(
        "consolidation.exchange answers needs consolidation.weights experts or equal: weights by class need each "
        "silo's model");
  }
  if (by_answers && (kd.divides_label_prior || by_sums)) {
    refuse("consolidation.exchange answers goes with consolidation.target teachers and without divide_label_prior");
  }
  const bool is_plain = terms.consolidation.average == learn::TeacherAverage::probabilities;
  if ((is_experts || by_answers) && (!is_plain || terms.consolidation.standardise)) {
    refuse(
        "consolidation.weights experts and consolidation.exchange answers average probabilities: they need "
        "consolidation.average probabilities and standardise false");
  }
  if (kd.answer_bits != 12 && kd.answer_bits != 16) {
    refuse(fmt::format("consolidation.answer_bits: 12 or 16, got {}", kd.answer_bits));
  }
  if (by_sums && (is_experts || kd.divides_label_prior)) {
    refuse(
        "consolidation.target lifted or joint has one teacher, which nothing weighs: it goes with "
        "consolidation.weights adaptive, precision or equal, which then have no effect, and without "
        "divide_label_prior");
  }
  if (by_sums && federation.validation == ValidationSource::none) {
    refuse("consolidation.target lifted or joint needs validation.source (server or federated): it picks the scale");
  }
}

void check_consolidation(const FederationOptions& federation, const plan::Terms& terms) {
  const bool has_source = federation.validation != ValidationSource::none;
  const ConsolidationOptions& kd = federation.consolidation;
  if (kd.student != StudentStart::untrained && !has_source) {
    refuse("consolidation.student best or worst needs validation.source (server or federated)");
  }
  if (learn::needs_ratings(kd.weighting) && kd.target == TeachingTarget::teachers && !has_source) {
    refuse("consolidation.weights adaptive or precision needs validation.source (server or federated)");
  }
  if (kd.transfer == TransferSet::student && !has_source) {
    refuse("consolidation.transfer student needs validation.source (server or federated): it names the student");
  }
  if (kd.tune != SettingChoice::as_set && !has_source) {
    refuse("consolidation.tune needs validation.source (server or federated): it rates the settings");
  }
  check_teaching(federation, terms);
  learn::check(terms.consolidation, "consolidation", kd.weighting == learn::TeacherWeighting::equal,
               "consolidation.weights must be equal");
  if (kd.tune != SettingChoice::as_set) (void)search_of(kd, terms.consolidation.epochs);
  if (kd.divides_label_prior && (!has_source || kd.transfer == TransferSet::student)) {
    refuse(
        "consolidation.divide_label_prior needs validation.source (server or federated), which shows it, and "
        "consolidation.transfer public or public-small");
  }
  if (kd.gate && !has_source) refuse("consolidation.gate needs validation.source (server or federated)");
  if (kd.keep == KeptState::best &&
      (federation.validation != ValidationSource::server || kd.transfer == TransferSet::student)) {
    refuse("consolidation.keep best needs validation.source server and consolidation.transfer public");
  }
}

void check_targets(const FederationOptions& federation) {
  if (!federation.targets.fractions.empty() && federation.targets.reference <= 0) {
    refuse("targets.fractions need targets.reference");
  }
  if (federation.targets.stop && federation.targets.accuracies.empty() && federation.targets.fractions.empty()) {
    refuse("targets.stop needs targets.accuracies or targets.fractions");
  }
  const bool has_targets = !federation.targets.accuracies.empty() || !federation.targets.fractions.empty();
  if (has_targets && !federation.central_evaluation) refuse("targets need evaluation.central true");
}

/// What would have this server compute a model that is known by its tensors alone. `has_worker`: a process does it.
void check_stated_model(const FederationOptions& federation, bool has_worker) {
  const auto refuse_for = [](std::string_view setting, std::string_view mend) {
    refuse(fmt::format("model.name state:FILE: {} needs the server to compute the model; {}", setting, mend));
  };
  if (fits_heads(federation)) refuse_for("a head from sums", "leave start.head and rounds.head at own");
  const bool is_kd = may_start_from(federation, StartModel::kd);
  if (is_kd && federation.consolidation.target != TeachingTarget::teachers) {
    refuse_for("consolidation.target lifted or joint", "leave it at teachers");
  }
  if (has_worker) return;
  if (federation.central_evaluation) {
    refuse_for("evaluation.central", "set it to false and evaluation.federated to true, or name a worker.command");
  }
  if (federation.validation == ValidationSource::server) {
    refuse_for("validation.source server", "set validation.source=federated, or name a worker.command");
  }
  if (is_kd && (federation.consolidation.transfer != TransferSet::student ||
                federation.consolidation.exchange == TeachingExchange::answers)) {
    refuse_for("consolidation on public data", "set consolidation.transfer=student, or name a worker.command");
  }
  if (strategy_row(federation.strategy.name).needs_public_set) {
    refuse_for(fmt::format("federation.strategy {}", federation.strategy.name),
               "choose another one, or name a worker.command");
  }
}

void check_measurements(const FederationOptions& federation) {
  const bool has_source = federation.validation != ValidationSource::none;
  if (federation.metric != "accuracy" && !has_source && !pretrains(federation)) {
    refuse(
        fmt::format("validation.metric {} decides nothing without validation.source (server or federated) or a start "
                    "that pre-trains",
                    federation.metric));
  }
  if (federation.counts_scores && !federation.federated_evaluation) {
    refuse("evaluation.scores needs evaluation.federated true");
  }
}

}  // namespace

void check(const ServerConfig& config) {
  const FederationOptions& federation = config.federation;
  if (config.folder.empty()) refuse("run.folder is empty: name the folder that the run leaves its results in");
  check_timeouts(federation.timeouts);
  check_samples(config.samples, config.terms.statistics);
  const bool has_source = federation.validation != ValidationSource::none;
  if (federation.start == StartModel::automatic && !has_source) {
    refuse("start.model auto needs validation.source (server or federated): it says which candidate is best");
  }
  if (federation.start == StartModel::automatic && federation.head.start == StartHead::sums) {
    refuse("start.model auto has its heads in start.candidates (kd+head): leave start.head at own");
  }
  if (config.terms.precision != learn::Precision::float32 && !config.terms.model.is_built_in()) {
    refuse("run.precision: bf16 is for the program's own models, and model.name is a file; use float32");
  }
  if (config.terms.model.is_stated()) check_stated_model(federation, !config.worker.command.empty());
  if (!config.worker.command.empty() && !config.terms.model.is_stated()) {
    refuse("worker.command is for model.name=state:FILE; the server computes other models itself");
  }
  if (may_start_from(federation, StartModel::best_local) && !has_source) {
    refuse("start.model best_local needs validation.source (server or federated): it says which model is best");
  }
  if (may_start_from(federation, StartModel::kd)) check_consolidation(federation, config.terms);
  if (federation.validation == ValidationSource::federated && config.terms.held_out == 0) {
    refuse("validation.source federated needs held-out samples at the clients: data.held_out above 0");
  }
  if (federation.head.rounds == StartHead::sums && !has_source) {
    refuse("rounds.head sums needs validation.source (server or federated): it says whether the head is kept");
  }
  if (fits_heads(federation) && federation.head.method != HeadMethod::steps && !has_source) {
    refuse("head.method ridge or gaussian needs validation.source (server or federated): it picks the scale");
  }
  const bool needs_teachers = may_start_from(federation, StartModel::kd);
  if (needs_teachers && federation.num_clients < 2) {
    refuse("start.model kd needs at least two clients: one model cannot teach itself");
  }
  if (federation.min_clients > federation.num_clients) {
    refuse("federation.min_clients is larger than federation.clients");
  }
  if (const StrategyRow& strategy = strategy_row(federation.strategy.name);
      quorum_of(federation) < strategy.min_updates) {
    refuse(
        fmt::format("federation.strategy {} takes {} updates a round at least, and federation.min_clients asks for {}",
                    strategy.name, strategy.min_updates, quorum_of(federation)));
  }
  learn::check(federation.strategy.feddf, "feddf");
  check_measurements(federation);
  check_targets(federation);
}

}  // namespace headstart::server
