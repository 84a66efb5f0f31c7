#include "server/federation.hpp"

#include <fmt/format.h>

#include "server/rounds.hpp"
#include "shared/base/version.hpp"
#include "shared/learn/platform.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

constexpr std::uint64_t max_default_upload_memory = std::uint64_t{1} << 30;

std::uint64_t upload_budget(const FederationOptions& options, std::uint64_t model_bytes) {
  if (options.upload_memory > 0) return static_cast<std::uint64_t>(options.upload_memory);
  return std::min(2 * model_bytes, max_default_upload_memory);
}

nlohmann::json measured(const std::optional<learn::Evaluation>& evaluation) {
  if (!evaluation) return nullptr;
  return {{"accuracy", evaluation->accuracy()},
          {"loss", evaluation->loss()},
          {"class_accuracy", evaluation->class_accuracy()},
          {"samples", evaluation->num_samples()}};
}

/// Who gets to see pre-trained models of single silos, in words, for run.json.
nlohmann::json recipients_of_local_models(const FederationOptions& options) {
  nlohmann::json recipients = nlohmann::json::array();
  if (options.start == StartModel::random) return recipients;
  recipients.push_back("the server");
  if (options.validation == ValidationSource::federated) {
    recipients.push_back("every client: federated validation has each of them count on each model");
  }
  if (options.start == StartModel::best_local) {
    recipients.push_back("every client: the best local model is what round 1 starts from");
  }
  if (options.start == StartModel::kd && options.consolidation.transfer == TransferSet::student) {
    recipients.push_back("the student's client: it is sent the models of the silos that share with peers");
  }
  return recipients;
}

}  // namespace

Federation::Federation(net::asio::any_io_executor executor, net::asio::thread_pool& pool, const ServerConfig& config,
                       CentralData data, RunFolder& folder, FederationObserver& observer, Clock clock)
    : executor_(std::move(executor)),
      config_(config),
      data_(std::move(data)),
      folder_(folder),
      observer_(observer),
      cohort_(executor_),
      context_{executor_,        pool,
               config_,          data_,
               global_schema_,   folder,
               cohort_,          observer,
               std::move(clock), learn::device_of(config.device),
               stop_.get_token()},
      local_models_(context_),
      targets_(config.federation.targets) {
  config_.terms.task = data_.task;
  evaluated_ = context_.make_global_model();
  global_schema_ = evaluated_->schema();
  if (data_.test.size() == 0) evaluated_.reset();
  slots_ = std::make_unique<UploadSlots>(executor_, upload_budget(config_.federation, global_schema_.num_bytes()),
                                         folder.staging());
  lobby_ = std::make_unique<Lobby>(static_cast<std::size_t>(config_.federation.num_clients));
  AdmissionRules rules{config_.terms, global_schema_.digest(), config_.terms.model.architecture(),
                       global_schema_.num_bytes(), config_.allowed_clients};
  admission_ = std::make_unique<Admission>(executor_, std::move(rules), *lobby_, cohort_, *slots_, observer);
}

net::Task<nlohmann::json> Federation::run() {
  folder_.write_run(run_record());
  std::optional<Error> failure;
  try {
    co_await run_phases();
  } catch (const Error& error) {
    failure = error;
  } catch (const std::exception& error) {
    // A bug, here or in a library: the clients are still told and the folder is still closed in order.
    failure = Error(Errc::internal, error.what());
  }
  if (failure && stop_.stop_requested()) {
    failure = Error(Errc::interrupted, fmt::format("stopped after round {}; {}", num_rounds_done_, kept()));
  } else if (failure) {
    failure = Error(failure->code(), fmt::format("{}; {}", failure->what(), kept()));
  }
  if (failure) stopped_because_ = failure->what();
  const nlohmann::json result = summary(stopped_because_);
  // A run that failed leaves its summary under another name, so that nobody takes it for a finished one.
  if (failure) {
    folder_.write_interrupted(result);
  } else {
    folder_.write_summary(result);
  }
  const std::string words = (failure ? "the run ended early: " : "the run is done: ") + stopped_because_;
  co_await finish_clients(words);
  folder_.discard_temporary();
  if (failure) throw *failure;
  co_return result;
}

net::Task<> Federation::run_phases() {
  co_await admission_->complete();
  began_at_ = context_.clock();
  Start start = co_await make_start();
  global_ = {0, std::move(start.state)};
  start_used_ = start.used;
  start_report_ = std::move(start.report);
  bytes_up_ = cohort_.bytes_up();
  bytes_down_ = cohort_.bytes_down();
  before_rounds_ = {{"seconds", seconds()},
                    {"bytes_up", bytes_up_},
                    {"bytes_down", bytes_down_},
                    {"pretrain_seconds", local_models_.longest_pretraining()},
                    {"pretrain_reused_seconds", reused_seconds_}};
  co_await run_rounds();
  if (!local_models_.models().empty() && data_.test.size() > 0) {
    observer_.on_phase("ensemble of the local models, for the record", 0);
    ensemble_ = co_await local_models_.measure_ensemble();
  }
  auto keeping = net::offload(context_.pool, [this] {
    folder_.write_final(global_.state, {{"rounds", std::to_string(num_rounds_done_)},
                                        {"architecture", config_.terms.model.architecture()},
                                        {"headstart", std::string(version())}});
  });
  co_await std::move(keeping);
}

net::Task<Start> Federation::make_start() {
  const StartModel wanted = config_.federation.start;
  if (wanted == StartModel::random) co_return co_await random_start(context_);
  co_await local_models_.pretrain();
  // Models from the store were trained in an earlier run: their time counts as if it had been spent now.
  reused_seconds_ = std::max(0.0, local_models_.longest_pretraining() - local_models_.phase_seconds());
  co_await local_models_.collect();
  co_await local_models_.rate();
  if (wanted == StartModel::best_local) co_return co_await best_local_start(context_, local_models_);
  if (wanted == StartModel::average) co_return co_await average_start(context_, local_models_);
  co_return co_await kd_start(context_, local_models_);
}

net::Task<> Federation::run_rounds() {
  // Arguments of a co_await are named: g++ 12 destroys aggregate temporaries in its expression twice.
  const Participation nobody;
  co_await record_round(0, nobody);
  const std::int64_t num_rounds = config_.federation.num_rounds;
  stopped_because_ = fmt::format("all {} rounds are done", num_rounds);
  for (std::int64_t round = 1; round <= num_rounds; ++round) {
    if (config_.federation.targets.stop && targets_.all_reached()) {
      stopped_because_ = "every target is reached";
      break;
    }
    if (stop_.stop_requested()) throw Error(Errc::interrupted, "stopped");
    RoundOutcome outcome = co_await run_round(context_, global_, static_cast<std::uint32_t>(round));
    global_ = {static_cast<std::uint64_t>(round), std::move(outcome.state)};
    num_rounds_done_ = round;
    const Participation participation{std::move(outcome.accepted), std::move(outcome.excluded)};
    co_await record_round(round, participation);
  }
  if (config_.federation.targets.stop && targets_.all_reached()) stopped_because_ = "every target is reached";
}

net::Task<> Federation::record_round(std::int64_t round, const Participation& participation) {
  // Counted before federated evaluation: the model it sends is the next round's download.
  const std::uint64_t up = cohort_.bytes_up();
  const std::uint64_t down = cohort_.bytes_down();
  const std::uint64_t up_now = up - std::exchange(bytes_up_, up);
  const std::uint64_t down_now = down - std::exchange(bytes_down_, down);
  const auto central = co_await evaluate_centrally();
  const double seconds_now = seconds();
  const auto federated = co_await evaluate_at_clients();

  nlohmann::json line = measured(central);
  if (line.is_null()) line = nlohmann::json::object();
  line["round"] = round;
  line["seconds"] = seconds_now;
  line["bytes_up"] = up_now;
  line["bytes_down"] = down_now;
  line["clients"] = participation.accepted;
  line["excluded"] = participation.excluded;
  line["federated"] = measured(federated);
  folder_.append_round(line);
  auto keeping = net::offload(context_.pool, [this, round] { folder_.checkpoint(round, global_.state); });
  co_await std::move(keeping);

  if (central) {
    last_accuracy_ = central->accuracy();
    best_accuracy_ = std::max(best_accuracy_.value_or(0), *last_accuracy_);
    targets_.on_round(round, *last_accuracy_, seconds_now, bytes_up_ + bytes_down_);
  }
  RoundView view;
  view.round = round;
  view.num_rounds = config_.federation.num_rounds;
  view.accuracy = last_accuracy_;
  if (central) view.loss = central->loss();
  if (federated) view.federated_accuracy = federated->accuracy();
  view.seconds = seconds_now;
  view.num_bytes = up_now + down_now;
  view.num_updates = participation.accepted.size();
  view.next_target = targets_.next();
  observer_.on_round(view);
}

net::Task<std::optional<learn::Evaluation>> Federation::evaluate_centrally() {
  if (data_.test.size() == 0) co_return std::nullopt;
  auto measuring = net::offload(context_.pool, [this] {
    const learn::KeepFreedMemory keep_freed_memory;
    evaluated_->load(global_.state.state());
    return learn::evaluate(*evaluated_, data_.test, data_.task.num_classes);
  });
  co_return co_await std::move(measuring);
}

net::Task<std::optional<learn::Evaluation>> Federation::evaluate_at_clients() {
  if (!config_.federation.federated_evaluation) co_return std::nullopt;
  const auto ask = [this](ClientSession& client) { return client.evaluate(global_); };
  auto counting = context_.evaluate_at_clients(ask);
  const learn::Evaluation sum = co_await std::move(counting);
  co_return sum.num_samples() > 0 ? std::optional(sum) : std::nullopt;
}

net::Task<> Federation::finish_clients(const std::string& words) {
  std::vector<net::Task<>> farewells;
  for (const auto& client : cohort_.active()) farewells.push_back(client->finish(words));
  co_await session::gather(executor_, std::move(farewells));
}

void Federation::stop() {
  stop_.request_stop();
  admission_->stop();
  cohort_.abort_all();
}

double Federation::seconds() const {
  return began_at_ ? seconds_between(*began_at_, context_.clock()) + reused_seconds_ : 0;
}

std::string Federation::kept() const {
  return fmt::format("kept in {}: rounds.jsonl up to round {}, checkpoints", folder_.path().string(), num_rounds_done_);
}

nlohmann::json Federation::run_record() const {
  ServerConfig copy = config_;
  Fields fields;
  declare_fields(fields, copy);
  const learn::Platform here = learn::platform();
  return {{"program", "headstart"},
          {"version", version()},
          {"config", fields.resolved()},
          {"seed", config_.terms.seed},
          {"architecture", config_.terms.model.architecture()},
          {"dataset", data_.dataset},
          {"manifest_digest", data_.manifest_digest},
          {"validation_source", word_of(Choices<ValidationSource>(validation_words), config_.federation.validation)},
          {"models_leave_silos_for", recipients_of_local_models(config_.federation)},
          {"reproducible_with",
           {{"libtorch", here.libtorch},
            {"instruction_set", here.instruction_set},
            {"blas", here.blas},
            {"threads", here.num_threads},
            {"device", context_.device.str()}}}};
}

nlohmann::json Federation::summary(const std::string& stopped_because) const {
  const auto start_word = [](StartModel start) { return word_of(Choices<StartModel>(start_words), start); };
  nlohmann::json result = {{"start", start_word(config_.federation.start)},
                           {"start_used", start_word(start_used_)},
                           {"start_report", start_report_},
                           {"rounds", num_rounds_done_},
                           {"stopped_because", stopped_because},
                           {"before_rounds", before_rounds_},
                           {"targets", targets_.report()},
                           {"models", local_models_.report()},
                           {"ensemble", ensemble_},
                           {"seconds", seconds()},
                           {"bytes_up", cohort_.bytes_up()},
                           {"bytes_down", cohort_.bytes_down()},
                           {"final_accuracy", nullptr},
                           {"best_accuracy", nullptr}};
  if (last_accuracy_) result["final_accuracy"] = *last_accuracy_;
  if (best_accuracy_) result["best_accuracy"] = *best_accuracy_;
  if (!global_.state.bytes().empty()) result["model_digest"] = global_.state.digest();
  return result;
}

}  // namespace headstart::server
